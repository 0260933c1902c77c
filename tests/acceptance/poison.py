"""Poison: requests with certain records get no answer, in a shop of some customers whom a backfill brings."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import anyio
from structlog.testing import capture_logs

from kiva_stream.model.positions import DAY1
from tests.acceptance.live_shop import LONG_PAID, WEEK, LiveShop, email, live_shop
from tests.acceptance.stages import PATIENCE_S
from tests.support.postgres import connected

CUSTOMERS = 20
PHONE = "+1 555 0100"
INTERNAL = '{"errors": [{"message": "Internal server error"}], "data": null}'
SETTINGS = {
    "BACKOFF_MAX_S": "0.1",
    "BREAKER_FAILURES": "3",
    "RETRY_HELD_S": "0.3",
    "REQUEST_TIMEOUT_S": "0.5",
    "ORDER_SETTLE_S": "0.1",
    "IMPORT_POLL_S": "0.05",
    "LOOKUP_SETTLE_S": "0.3",
    "BULK_IMPORTS_PER_MINUTE": "100000",
}

Way = Mapping[str, Any]

BY_PROXY: Way = {
    "kind": "answer-before",
    "status": 403,
    "headers": {"Content-Type": "text/html"},
    "text": "<html><title>Forbidden</title></html>",
}
# Ways to fail without an answer. Those whose names say so apply the request nevertheless.
WAYS: Mapping[str, Way] = {
    "500": {"kind": "500-before"},
    "503 HTML": {"kind": "html-503"},
    "504, applied": {"kind": "answer-after", "status": 504},
    "200, empty": {"kind": "answer-before", "status": 200, "text": ""},
    "200, foreign": {"kind": "answer-before", "status": 200, "text": INTERNAL},
    "reset": {"kind": "reset-before"},
    "reset, applied": {"kind": "reset-after"},
    "hang": {"kind": "hang"},
    "403 HTML": BY_PROXY,  # of events
    "interrupted": {},  # an import with the record is accepted, and ends so
}

# Ways to be refused without a reason that names the record.
REFUSALS: Mapping[str, Way] = {
    "400": {"kind": "answer-before", "status": 400, "text": '{"message": "Bad Request"}'},
    "422": {"kind": "answer-before", "status": 422, "text": '{"errors": [{"title": "It is not valid"}]}'},
    "403 HTML": BY_PROXY,
    "413": {"kind": "answer-before", "status": 413, "text": ""},
}


class Kind(NamedTuple):
    """A kind of request, what makes a backfill send it, and what then is at ActiveCampaign."""

    path: str
    pattern: str  # of a record in its body; {} is the customer, # is ActiveCampaign's id
    prepare: str  # SQL that changes all customers once all was brought; "": the first backfill sends it
    arrived: Callable[[LiveShop], Awaitable[set[int]]]  # the customers with the effect
    environ: Mapping[str, str] = {}


async def _contacts(shop: LiveShop) -> set[int]:
    return {customer_of(address) for address in await shop.contacts()}


async def _phones(shop: LiveShop) -> set[int]:
    return {
        customer_of(address) for address, each in (await shop.contacts()).items() if each["phone"] == PHONE
    }


async def _orders(shop: LiveShop) -> set[int]:
    return {int(order["storeOrderId"]) async for order in shop.activecampaign.rows("orders")}


async def _events(shop: LiveShop) -> set[int]:
    return {customer_of(address) for address, ids in (await shop.received()).items() if len(ids) >= 2}


async def _tags(shop: LiveShop) -> set[int]:
    return {customer_of(address) for address, tags in (await shop.tags()).items() if tags == ["no order"]}


async def _opted_out(shop: LiveShop) -> set[int]:
    there = await shop.contacts()
    return {customer_of(address) for address, each in there.items() if set(each["lists"].values()) == {2}}


_NEXT_WEEK = f"""
INSERT INTO kiva.delivery_weeks (site_id, week_start, opened_at)
VALUES (1, '{WEEK + timedelta(days=7)}', now())
"""
KINDS: Mapping[str, Kind] = {
    "import": Kind("/import/bulk_import", r'"customer{}@', "", _contacts),
    "contact/sync": Kind(
        "/contact/sync",
        r'"customer{}@',
        f"UPDATE kiva.customers SET phone = '{PHONE}'",
        _phones,
        {"IMPORT_MIN_CONTACTS": "1000"},
    ),
    "GraphQL": Kind("/ecom/graphql", r'"storeOrderId": ?"{}"', "", _orders),
    "event": Kind("/event", r"customer{}@", "", _events),
    "tag": Kind("/contactTags", r'"contact": ?"?#\b', _NEXT_WEEK, _tags),
    "list": Kind(
        "/contactLists",
        r'"contact": ?"?#\b',
        "UPDATE kiva.customers SET email_opt_in = false",
        _opted_out,
    ),
}


def customer_of(address: str) -> int:
    """Return the customer of an address."""
    (number,) = re.findall(r"customer(\d+)@", address)
    return int(number)


class Poisoned(NamedTuple):
    """A shop, and the customers whose records get no answer."""

    shop: LiveShop
    kind: Kind
    way: Way
    bad: Collection[int]

    async def fail(self) -> None:
        """Have the requests fail that carry a bad record."""
        if not self.way:
            bad = [email(customer) for customer in self.bad]
            await self.shop.activecampaign.change(interrupting_emails=bad)
            return
        ids = {customer_of(address): each["id"] for address, each in (await self.shop.contacts()).items()}
        records = "|".join(
            self.kind.pattern.replace("{}", str(each)).replace("#", str(ids.get(each))) for each in self.bad
        )
        await self.shop.activecampaign.fail({"path": self.kind.path, "matching": records, **self.way})

    async def lift(self) -> None:
        """Have all requests answered."""
        await self.shop.activecampaign.fail()
        await self.shop.activecampaign.change(interrupting_emails=[])

    async def contacts(self) -> set[int]:
        """Return the ids of the contacts of the bad customers in the state."""
        async with connected(self.shop.dsn) as connection:
            rows = await connection.fetch("SELECT id, email FROM kiva_stream.contact")
        return {row["id"] for row in rows if customer_of(row["email"]) in self.bad}


@asynccontextmanager
async def poisoned(
    dsn: str, folder: Path, kind: str, *, way: Way, bad: Sequence[int], customers: int = CUSTOMERS
) -> AsyncIterator[Poisoned]:
    """Give a shop of customers with a paid order and two entries each, at which the bad ones fail."""
    async with live_shop(dsn, folder, customers) as shop, connected(dsn) as writer:
        chosen = {**SETTINGS, **KINDS[kind].environ}
        shop.environ.update({f"KIVA_STREAM__ACTIVECAMPAIGN__{name}": value for name, value in chosen.items()})
        await shop.activecampaign.change(bulk_imports_per_minute=0, single_imports_per_minute=0)
        for customer in shop.customers:
            await shop.order(customer, customer, **LONG_PAID)
        for _ in range(2):
            for customer in shop.customers:
                await shop.write(writer, customer)
        if KINDS[kind].prepare:
            await shop.backfill(DAY1)
            await writer.execute(KINDS[kind].prepare)
        poison = Poisoned(shop, KINDS[kind], way, bad)
        await poison.fail()
        yield poison


async def backfilled(shop: LiveShop) -> set[int]:
    """Run a backfill to its end; return the contacts that it held, by their ids in the state."""
    with capture_logs() as logs, anyio.fail_after(PATIENCE_S):
        summary = await shop.backfill(DAY1)
    status = shop.status()
    assert (summary.stopped_by, status["phase"], status["equation"]["pending"]) == (None, "done", 0)
    return {each["contact"] for each in logs if each["event"].endswith(" is held")}


async def assert_all_arrived(poison: Poisoned) -> None:
    """Assert that all that was held arrives once it is answered, the events of each contact in order."""
    shop = poison.shop
    await poison.lift()
    await backfilled(shop)
    assert await poison.kind.arrived(shop) == set(shop.customers)
    received = await shop.received()
    assert {address: len(ids) for address, ids in received.items()} == {
        email(customer): 2 for customer in shop.customers
    }
    assert all(ids == sorted(ids) for ids in received.values())
    assert shop.status()["equation"]["parked"] == 0
