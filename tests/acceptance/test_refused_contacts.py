"""A contact that ActiveCampaign refuses: its reply is kept and shown, and every refusal can be undone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.acceptance.live_shop import LiveShop, email, following, live_shop
from tests.acceptance.stages import until
from tests.support.postgres import connected

WRONG, RIGHT = "Zacharias", "Zoe"
SAID = "The address is not accepted"
REFUSALS = (  # of every request that carries the wrong name; what they name is not optional
    {
        "path": "/import/bulk_import",
        "kind": "answer-before",
        "containing": WRONG,
        "status": 400,
        "text": '{"success":0,"message":"Some contacts are invalid.",'
        f'"failureReasons":[{{"contact":1,"failureReason":"{SAID}"}}]}}',
    },
    {
        "path": "/contact/sync",
        "kind": "answer-before",
        "containing": WRONG,
        "status": 422,
        "text": f'{{"errors":[{{"title":"{SAID}","source":{{"pointer":"/data/attributes/email"}}}}]}}',
    },
)
BACKFILL = ("backfill", "--since", "day1", "--yes")


@pytest.fixture
async def shop(database: str, tmp_path: Path) -> AsyncIterator[LiveShop]:
    """A shop of two customers after a backfill; ActiveCampaign refused the contact of the first."""
    async with live_shop(database, tmp_path, 2) as live, connected(database) as connection:
        await name_of_first(live, WRONG)
        for customer in live.customers:
            await live.write(connection, customer)
        await live.activecampaign.fail(*REFUSALS)
        live.run(*BACKFILL)
        yield live


async def name_of_first(shop: LiveShop, name: str) -> None:
    await shop.rows.connection.execute(
        "UPDATE kiva.customers SET first_name = $1, updated_at = clock_timestamp() WHERE id = 1", name
    )


async def contacts_sent(shop: LiveShop) -> int:
    """Return how many requests with contacts ActiveCampaign received, including refused ones."""
    state = await shop.activecampaign.state()
    carried: list[int] = [state["requests"].get(name, 0) for name in ("bulkImport", "syncContact")]
    faults: list[int] = [*state["faults"].values()]
    return sum(carried) + sum(faults)


def dead(shop: LiveShop) -> list[dict[str, Any]]:
    listed = msgspec.json.decode(shop.run("dead-letters", "list", "--json"))
    return list(listed["letters"])


async def has_arrived(shop: LiveShop) -> bool:
    """Return whether the refused contact is at ActiveCampaign, with its event."""
    return email(1) in await shop.contacts() and len((await shop.received()).get(email(1), [])) > 0


async def test_the_reply_that_refused_a_contact_is_shown_by_its_dead_letters(shop: LiveShop) -> None:
    (letter,) = dead(shop)
    assert (letter["reason"], letter["customer"]) == ("ac_rejected", "1")
    assert SAID in letter["reply"]
    assert list(await shop.received()) == [email(2)]


async def test_a_refused_contact_is_not_sent_again_while_its_data_are_the_same(shop: LiveShop) -> None:
    before = await contacts_sent(shop)
    async with connected(shop.dsn) as connection:
        await shop.write(connection, 1)
    shop.run("backfill")
    assert await contacts_sent(shop) == before
    assert [letter["reason"] for letter in dead(shop)] == ["ac_rejected"] * 2
    assert all(SAID in letter["reply"] for letter in dead(shop))


async def test_a_backfill_tries_a_refused_contact_again_when_its_data_changed(shop: LiveShop) -> None:
    await name_of_first(shop, RIGHT)
    shop.run("backfill")
    assert await has_arrived(shop)
    assert dead(shop) == []


@pytest.mark.parametrize("with_entry", [False, True])
async def test_follow_tries_a_refused_contact_again_when_its_data_change(
    shop: LiveShop, *, with_entry: bool
) -> None:
    async with following(shop, "follow"), connected(shop.dsn) as connection:
        await name_of_first(shop, RIGHT)
        if with_entry:
            await shop.write(connection, 1)

        async def have_all_arrived() -> bool:
            return len((await shop.received()).get(email(1), [])) == 1 + with_entry

        await until(have_all_arrived)

        async def is_none_dead() -> bool:
            return not await connection.fetchval("SELECT count(*) FROM kiva_stream.dead_letter")

        await until(is_none_dead)
    received = (await shop.received())[email(1)]
    assert received == sorted(received)


@pytest.mark.parametrize(
    "command",
    [
        ("dead-letters", "replay", "--all"),
        ("sync", "--customer", "1"),
        ("rewind", "--to", "day1", "--resend", "--yes"),
    ],
)
async def test_a_refused_contact_is_tried_again_though_nothing_changed_by(
    shop: LiveShop, command: tuple[str, ...]
) -> None:
    await shop.activecampaign.fail()
    shop.run(*command)
    if command[0] == "rewind":
        shop.run("backfill")
    assert email(1) in await shop.contacts()
    shop.run("backfill")
    assert await has_arrived(shop)
    assert dead(shop) == []


async def test_a_refused_contact_that_is_refused_again_stays_dead_with_the_new_reply(shop: LiveShop) -> None:
    again = [{**each, "text": each["text"].replace(SAID, "Still not")} for each in REFUSALS]  # type: ignore[attr-defined]
    await shop.activecampaign.fail(*again)
    before = await contacts_sent(shop)
    shop.run("dead-letters", "replay", "--all")
    assert await contacts_sent(shop) > before
    (letter,) = dead(shop)
    assert "Still not" in letter["reply"]
    assert letter["mark"] == ""


# Optional fields

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


# verify


def verified(shop: LiveShop, *arguments: str, code: int = 7) -> dict[str, Any]:
    with shop.start("verify", *arguments, "--json") as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    return dict(msgspec.json.decode(out))


async def test_verify_lists_a_refused_contact_and_a_repair_tries_it_again(shop: LiveShop) -> None:
    (gap,) = verified(shop)["gaps"]
    assert (gap["kind"], gap["customer"]) == ("refused", "1")
    await shop.activecampaign.fail()
    report = verified(shop, "--repair", code=0)
    assert [gap["kind"] for gap in report["closed"]] == ["refused"]
    assert email(1) in await shop.contacts()


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
