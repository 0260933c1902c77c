"""An optional field whose value ActiveCampaign refuses costs that value, not the contact and its events."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.live_shop import email, live_shop
from tests.acceptance.test_refused_contacts import BACKFILL, contacts_sent, dead, verified
from tests.support.postgres import connected

BAD_PHONE = "+1 555 not a phone"


@pytest.mark.parametrize("counted_from", [0, 1])
async def test_an_import_that_names_a_phone_costs_the_phone_and_neither_contact_nor_events(
    database: str, tmp_path: Path, counted_from: int
) -> None:
    async with live_shop(database, tmp_path, 20) as live, connected(database) as connection:
        await live.activecampaign.change(invalid_values=[BAD_PHONE], rows_counted_from=counted_from)
        await connection.execute(
            "UPDATE kiva.customers SET phone = '+1 555 0100'; UPDATE kiva.customers SET status = 'paused', "
            f"phone = '{BAD_PHONE}' WHERE id IN (7, 20)"
        )
        for customer in live.customers:
            await live.write(connection, customer)
        live.run(*BACKFILL)
        contacts, received = await live.contacts(), await live.received()
        assert set(received) == set(contacts) == set(map(email, live.customers))
        assert dead(live) == []
        assert {each for each in contacts if not contacts[each]["phone"]} == {email(7), email(20)}
        assert contacts[email(7)]["fields"]["Kiva Status"] == "paused"
        assert live.status()["notes"]["value_left_out"] == 2
        before = await contacts_sent(live)
        live.run("backfill")
        assert await contacts_sent(live) == before
        await connection.execute("UPDATE kiva.customers SET phone = '+1 555 0107' WHERE id = 7")
        live.run("backfill")
        assert (await live.contacts())[email(7)]["phone"] == "+1 555 0107"


async def test_a_linked_contact_whose_phone_is_refused_shows_the_rest_of_its_change(
    database: str, tmp_path: Path
) -> None:
    async with live_shop(database, tmp_path, 1) as live, connected(database) as connection:
        live.run(*BACKFILL)
        await live.activecampaign.change(invalid_values=[BAD_PHONE])
        await connection.execute(
            "UPDATE kiva.customers SET status = 'paused', next_delivery = '2030-01-07', "
            f"phone = '{BAD_PHONE}'"
        )
        live.run("backfill")
        contact = (await live.contacts())[email(1)]
        assert contact["fields"]["Kiva Status"] == "paused"
        assert contact["fields"]["Kiva Next Delivery"] == "2030-01-07"
        await live.activecampaign.change(invalid_values=[])
        live.run("sync", "--customer", "1")
        assert (await live.contacts())[email(1)]["phone"] == BAD_PHONE


async def test_verify_lists_a_value_that_is_left_out_and_a_repair_sends_it_again(
    database: str, tmp_path: Path
) -> None:
    async with live_shop(database, tmp_path, 1) as live, connected(database) as connection:
        await live.activecampaign.change(invalid_values=[BAD_PHONE])
        await connection.execute(f"UPDATE kiva.customers SET phone = '{BAD_PHONE}'")
        live.run(*BACKFILL)
        (gap,) = verified(live)["gaps"]
        assert gap["kind"] == "left out"
        assert "phone" in gap["what"]
        assert BAD_PHONE not in gap["what"]
        verified(live, "--repair")
        await live.activecampaign.change(invalid_values=[])
        verified(live, "--repair", code=0)
        assert (await live.contacts())[email(1)]["phone"] == BAD_PHONE
