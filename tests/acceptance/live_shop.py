"""A shop that is open while kiva_stream follows it: customers, and writers whose transactions overlap."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import anyio
import asyncpg
import msgspec
from aiohttp import web

from kiva_stream.model.positions import Position
from tests.acceptance.stages import AT_ONCE, PATIENCE_S, Commands, activecampaign_beside, settings, until
from tests.support.postgres import connected
from tests.support.shop_rows import LONG_AGO, ShopRows

WEEK = date(2026, 11, 23)
NEXT_WEEK = WEEK + timedelta(days=7)
LONG_PAID: Mapping[str, Any] = {
    "status": "complete",
    "payment_status": "completed",
    "paid_at": LONG_AGO,
    "closed_at": LONG_AGO,
}
QUICK: Mapping[str, Any] = {
    "SOURCE__POLL_INTERVAL_S": "0.2",
    "SOURCE__DELAY_S": "0",
    "ACTIVECAMPAIGN__ORDER_SETTLE_S": "0.2",
}

FOLLOW = ("follow", "--since", "day1")

_ENTRY = """
INSERT INTO kiva.system_log (site_id, occurred_at, category, action, actor_type, message, customer_id, data)
VALUES (1, clock_timestamp(), 'customer', $1, 'customer', $1, $2, jsonb_build_object('n', $3::bigint))
RETURNING txid, id, inserted_at
"""


class Row(NamedTuple):
    """An entry that a writer wrote."""

    position: Position
    customer: int
    inserted_at: datetime


class LiveShop(Commands, kw_only=True):
    """A shop with customers that are not at ActiveCampaign yet."""

    rows: Any  # ShopRows
    customers: range
    numbers: Any = count()  # no two entries are the same, so that none is a duplicate

    async def write(
        self, connection: asyncpg.Connection, customer: int, action: str = "login.password"
    ) -> Row:
        """Write an entry of a customer in the transaction that is open there, if one is."""
        row = await connection.fetchrow(_ENTRY, action, customer, next(self.numbers))
        return Row(Position(row["txid"], row["id"]), customer, row["inserted_at"])

    async def open_week(self, week: date) -> None:
        """Press 'start a new week'."""
        await self.rows.connection.execute(
            "INSERT INTO kiva.delivery_weeks (site_id, week_start, opened_at) VALUES (1, $1, now())", week
        )

    async def order(self, number: int, customer: int, week: date = WEEK, **columns: object) -> None:
        """Write an order of one item; by default it is open and not paid."""
        own = {"site_id": 1, "customer_id": customer, "week_start": week, "delivery_date": week}
        money = {"subtotal_cents": 4250, "total_cents": 4250}
        stamps = {"created_at": LONG_AGO, "updated_at": LONG_AGO, "status": "open"}
        await self.rows.insert("orders", id=number, **{**own, **money, **stamps, **columns})
        await self.rows.insert(
            "order_items", order_id=number, name="Kale", category="menu", qty=1, unit_price_cents=0
        )

    async def contacts(self) -> dict[str, dict[str, Any]]:
        """Return ActiveCampaign's contacts by address."""
        return {contact["email"]: contact async for contact in self.activecampaign.rows("contacts")}

    async def tags(self) -> dict[str, list[str]]:
        """Return the week tags on ActiveCampaign's contacts by address."""
        return {
            email: [tag for tag in contact["tags"] if tag.endswith(" order")]
            for email, contact in (await self.contacts()).items()
        }

    async def order_there(self, number: int) -> dict[str, Any]:
        """Return an order as ActiveCampaign has it; nothing when it has not."""
        orders = [order async for order in self.activecampaign.rows("orders")]
        return next((order for order in orders if order["storeOrderId"] == str(number)), {})

    async def arrivals(self) -> list[dict[str, Any]]:
        """Return the events in the order in which they arrived, with the `id` of the entry of each."""
        events = [event async for event in self.activecampaign.rows("events")]
        return [{**event, "id": int(event["eventdata"].rpartition("log=")[2])} for event in events]

    async def received(self) -> dict[str, list[int]]:
        """Return the ids of the entries whose events arrived, in that order, by address."""
        found: dict[str, list[int]] = {}
        for event in await self.arrivals():
            found.setdefault(event["email"], []).append(event["id"])
        return found


def email(customer: int) -> str:
    """Return the address of a customer."""
    return f"customer{customer}@example.com"


@asynccontextmanager
async def live_shop(dsn: str, folder: Path, customers: int) -> AsyncIterator[LiveShop]:
    """Give a shop whose week is open, and an account after `setup` that has no request limit."""
    numbers = range(1, customers + 1)
    async with ShopRows.create(dsn) as rows, activecampaign_beside() as activecampaign:
        await activecampaign.change(**AT_ONCE)
        environ = {**activecampaign.environ(), **settings(dsn, **QUICK)}
        shop = LiveShop(folder, dsn, activecampaign, environ, rows=rows, customers=numbers)
        await rows.connection.executemany(
            "INSERT INTO kiva.customers (id, site_id, email, created_at, updated_at) "
            "VALUES ($1, 1, $2, '2018-03-04 17:02:10Z', '2018-03-04 17:02:10Z')",
            [(number, email(number)) for number in numbers],
        )
        await shop.open_week(WEEK)
        await shop.set_up()
        yield shop


@asynccontextmanager
async def writers(dsn: str, number: int) -> AsyncIterator[list[asyncpg.Connection]]:
    """Give as many connections as there are writers."""
    async with connected(dsn) as first:
        if number == 1:
            yield [first]
            return
        async with writers(dsn, number - 1) as others:
            yield [first, *others]


def by_contact(rows: Iterable[Row]) -> dict[str, list[int]]:
    """Return the ids of entries in log order, by the address of their customer."""
    found: dict[str, list[int]] = {}
    for row in sorted(rows, key=lambda row: row.position):
        found.setdefault(email(row.customer), []).append(row.position.id)
    return found


class Imports(NamedTuple):
    """The bodies of the imports that a proxy passed on, and the settings that lead commands to it."""

    bodies: list[dict[str, Any]]
    environ: Mapping[str, str]


@asynccontextmanager
async def imports_watched(shop: LiveShop) -> AsyncIterator[Imports]:
    """Run a proxy before the API of ActiveCampaign that keeps the bodies of bulk imports."""
    bodies: list[dict[str, Any]] = []
    async with aiohttp.ClientSession(shop.activecampaign.api_url) as session:

        async def pass_on(request: web.BaseRequest) -> web.Response:
            body = await request.read()
            if request.path.endswith("/import/bulk_import"):
                bodies.append(msgspec.json.decode(body))
            kept = {
                name: request.headers[name]
                for name in ("Api-Token", "Content-Type")
                if name in request.headers
            }
            async with session.request(request.method, request.path_qs, data=body, headers=kept) as reply:
                return web.json_response(body=await reply.read(), status=reply.status)

        runner = web.ServerRunner(web.Server(pass_on, access_log=None))
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield Imports(bodies, {"KIVA_STREAM__ACTIVECAMPAIGN__API_URL": url})
        finally:
            await runner.cleanup()


@asynccontextmanager
async def following(shop: Commands, *arguments: str, **environ: str) -> AsyncIterator[None]:
    """Follow during the block, then drain by SIGTERM and check that the exit code is 0."""
    with shop.start(*(arguments or FOLLOW), **environ) as process:
        try:
            yield
        finally:
            process.terminate()
            _, err = await anyio.to_thread.run_sync(lambda: process.communicate(timeout=PATIENCE_S))
        assert process.returncode == 0, err


async def arrived(shop: LiveShop, count: int) -> None:
    """Return when so many events have arrived at ActiveCampaign."""

    async def are_there() -> bool:
        return bool((await shop.activecampaign.state())["events"] >= count)

    await until(are_there)
