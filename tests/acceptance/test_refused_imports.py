"""An import refused without naming a row does not stop the others, and the contact at fault is named."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.live_shop import LiveShop, email, live_shop
from tests.acceptance.test_refused_contacts import BACKFILL, dead, verified
from tests.support.postgres import connected

BAD = 7
REFUSALS: Mapping[str, Mapping[str, Any]] = {
    "bad request": {"status": 400, "text": '{"success":0,"message":"Bad Request"}'},
    "address": {"status": 400, "text": f'{{"success":0,"message":"The address {email(BAD)} is invalid."}}'},
    "pointer": {
        "status": 422,
        "text": '{"errors":[{"title":"not valid","source":{"pointer":"/data/attributes/email"}}]}',
    },
}
NOT_VALID = '{"errors":[{"title":"not valid","source":{"pointer":"/data/attributes/email"}}]}'


@pytest.fixture
async def shop(database: str, tmp_path: Path) -> AsyncIterator[LiveShop]:
    """A shop of twenty customers, each with a paid order and an entry of a log-in."""
    async with live_shop(database, tmp_path, 20) as live, connected(database) as connection:
        for customer in live.customers:
            await live.order(customer, customer, status="complete", payment_status="completed")
            await live.write(connection, customer)
        yield live


def refusal(path: str, **answer: object) -> dict[str, Any]:
    """Return the fault that a request with the bad address meets."""
    return {"path": path, "kind": "answer-before", "containing": f'"{email(BAD)}"', **answer}


def on_list(contacts: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the addresses of the contacts that are subscribed."""
    return {each for each, contact in contacts.items() if 1 in contact["lists"].values()}


@pytest.mark.parametrize("kind", REFUSALS)
async def test_a_backfill_ends_though_imports_with_one_address_are_refused_without_a_row(
    shop: LiveShop, kind: str
) -> None:
    await shop.activecampaign.fail(refusal("/import/bulk_import", **REFUSALS[kind]))
    shop.run(*BACKFILL)
    contacts, received = await shop.contacts(), await shop.received()
    assert set(received) == set(contacts) == set(map(email, shop.customers))
    assert shop.status()["phase"] == "done"
    assert dead(shop) == []
    assert on_list(contacts) == set(map(email, shop.customers)) - {email(BAD)}
    assert shop.status()["not_on_list"] == {"came alone": 1}


async def test_a_contact_that_is_refused_alone_too_is_named_with_the_reply(shop: LiveShop) -> None:
    await shop.activecampaign.fail(
        refusal("/import/bulk_import", **REFUSALS["bad request"]),
        refusal("/contact/sync", status=422, text=NOT_VALID),
    )
    shop.run(*BACKFILL)
    assert set(await shop.received()) == set(map(email, shop.customers)) - {email(BAD)}
    (letter,) = dead(shop)
    assert (letter["customer"], letter["reason"]) == (str(BAD), "ac_rejected")
    assert "not valid" in letter["reply"]


async def test_a_contact_that_no_import_put_on_the_list_is_told_by_status_and_verify_until_one_does(
    database: str, tmp_path: Path
) -> None:
    async with live_shop(database, tmp_path, 2) as shop:
        await shop.activecampaign.change(excluded_emails=[email(2)])
        shop.run(*BACKFILL)
        assert on_list(await shop.contacts()) == {email(1)}
        assert shop.status()["not_on_list"] == {"came alone": 1}
        (gap,) = verified(shop)["gaps"]
        assert (gap["kind"], gap["customer"]) == ("not on list", "2")

        await shop.activecampaign.change(excluded_emails=[])
        report = verified(shop, "--repair", code=0)
        assert [gap["kind"] for gap in report["closed"]] == ["not on list"]
        assert on_list(await shop.contacts()) == {email(1), email(2)}
        assert shop.status()["not_on_list"] == {}
