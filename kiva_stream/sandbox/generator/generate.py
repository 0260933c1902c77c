"""`generate`: fills an empty database with a shop's history, and a file with its ground truth."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing
from datetime import date
from itertools import chain
from pathlib import Path

import asyncpg
import msgspec

from kiva_stream.errors import SourceError
from kiva_stream.sandbox.generator import copy
from kiva_stream.sandbox.generator.commits import Commits, Entry
from kiva_stream.sandbox.generator.expected_contacts import expected_contacts
from kiva_stream.sandbox.generator.expected_entries import ExpectedOutcomes, Tally
from kiva_stream.sandbox.generator.expected_orders import ExpectedOrder, expected_items, expected_order
from kiva_stream.sandbox.generator.history import START, History
from kiva_stream.sandbox.generator.load import Loader, loading, require_empty
from kiva_stream.sandbox.generator.mix import WEEKS
from kiva_stream.sandbox.generator.orders import Order
from kiva_stream.sandbox.generator.population import ERASED
from kiva_stream.sandbox.generator.rows import STRUCTURED_WEEK
from kiva_stream.sandbox.generator.shop import Shop
from kiva_stream.sandbox.generator.stored_orders import OrderCompleter, StoredOrder
from kiva_stream.sandbox.generator.truth_file import TruthFile

ITEM_IDS_A_SITE = 1_000_000_000


class Generated(msgspec.Struct, frozen=True):
    """The answer of `generate`. It counts the sites asked for, without the small one that shares the log."""

    entries: int
    site_ids: tuple[int, ...]
    classes: dict[str, int]  # event, sync_only, noise
    events: dict[str, int]  # by name at ActiveCampaign, whatever their outcome
    outcomes: dict[str, int]  # `delivered`, `skipped noise`, ...
    dirt: dict[str, int]  # malformed rows by what is wrong; late rows; gaps: ids of rolled-back transactions
    accounts: int  # of customers
    orders: int
    order_items: int
    contacts: int  # expected at ActiveCampaign
    orders_expected: int  # at ActiveCampaign


class _Generation:
    """One run of the generator: writes a history to the database and its truth to the file."""

    def __init__(self, history: History, seed: int, *, loader: Loader, truth: TruthFile | None) -> None:
        self._commits = Commits(seed)
        self._tally = Tally()
        self._entries = 0
        self._orders_expected = 0
        self._history = history
        self._loader = loader
        self._truth = truth
        self._outcomes = ExpectedOutcomes()
        self._counted_sites = {member.shop.site.id for member in history.members if member.counts}
        self._completers = {
            shop.site.id: OrderCompleter(
                shop.site.id,
                draw=shop.draw,
                manual_edits=shop.manual_edits,
                first_item_id=n * ITEM_IDS_A_SITE + 1,
            )
            for n, shop in enumerate(member.shop for member in history.members)
        }

    async def run(self, progress: Callable[[int], None]) -> None:
        """Write the whole history, week by week."""
        await self._write_sites()
        for week in self._history.weeks():
            await self._write_log(self._commits.transactions(week), progress)
            await self._write_orders(self._history.finished_orders())
        await self._write_log(self._commits.rest(), progress)
        await self._write_orders(self._history.unfinished_orders())
        for member in self._history.members:
            await self._write_customers(member.shop)

    def finish(self) -> Generated:
        """Finish the truth file, and return the counts."""
        shops = [member.shop for member in self._history.members if member.counts]
        customers = [customer for shop in shops for customer in shop.population.customers]
        contacts = [contact for shop in shops for contact in expected_contacts(shop)]
        if self._truth:
            addresses = ((each.id, each.address.key) for each in customers if each.anomaly not in ERASED)
            self._truth.finish(addresses, contacts)
        completers = [self._completers[shop.site.id] for shop in shops]
        return Generated(
            entries=self._entries,
            site_ids=tuple(shop.site.id for shop in shops),
            classes=dict(self._tally.classes),
            events=dict(self._tally.events),
            outcomes=dict(self._tally.outcomes),
            dirt={**self._history.dirt(), "late": self._commits.late, "gaps": self._commits.id_gaps},
            accounts=len(customers),
            orders=sum(completer.orders for completer in completers),
            order_items=sum(completer.items for completer in completers),
            contacts=len(contacts),
            orders_expected=self._orders_expected,
        )

    async def _write_log(self, transactions: Iterator[list[Entry]], progress: Callable[[int], None]) -> None:
        for entries in transactions:
            await self._loader.put("system_log", copy.log_rows(entries))
            expected = [
                (log_id, row, self._outcomes.expect(log_id, row))
                for log_id, row in entries
                if row.site_id in self._counted_sites
            ]
            for _, _, entry in expected:
                self._tally.add(entry)
            if self._truth:
                self._truth.add(expected)
            self._entries += len(expected)
            progress(self._entries)

    async def _write_orders(self, finished: Iterator[tuple[Shop, Order]]) -> None:
        orders, items = [], []
        expected: list[tuple[ExpectedOrder, StoredOrder]] = []
        for shop, order in finished:
            stored = self._completers[shop.site.id].complete(order)
            orders.append(copy.order_row(shop.site.id, stored))
            items.append(copy.item_rows(stored))
            if shop.site.id in self._counted_sites and not shop.customer(order.customer_id).exclusion:
                wanted = expected_order(shop.site.id, shop.site.currency, stored)
                expected += [(wanted, stored)] if wanted else []
        await self._loader.put_all("orders", orders)
        await self._loader.put_all("order_items", items)
        self._expect_orders(expected)

    def _expect_orders(self, orders: list[tuple[ExpectedOrder, StoredOrder]]) -> None:
        self._orders_expected += len(orders)
        if self._truth:
            items = (expected_items(order.site_id, stored) for order, stored in orders)
            self._truth.add_orders((order for order, _ in orders), chain.from_iterable(items))

    async def _write_sites(self) -> None:
        for shop in (member.shop for member in self._history.members):
            structured_since_ms = shop.calendar(STRUCTURED_WEEK).at(0, 0)
            await self._loader.put("sites", copy.site_row(shop, structured_since_ms))
            await self._loader.put_all("box_types", copy.box_rows(shop.site.id))
            await self._loader.put_all("products", copy.product_rows(shop.site.id))
            await self._loader.put_all("delivery_weeks", (copy.week_row(shop, n) for n in range(WEEKS)))

    async def _write_customers(self, shop: Shop) -> None:
        await self._loader.put_all("customers", copy.customer_rows(shop))
        await self._loader.put_all("schedule_overrides", copy.override_rows(shop))
        await self._loader.put_all("recurring_products", copy.recurring_rows(shop))
        await self._loader.put_all("customer_tags", copy.tag_rows(shop))


async def generate(
    dsn: str,
    entries: int,
    seed: int,
    *,
    sites: int = 1,
    truth: Path | None = None,
    progress: Callable[[int], None] | None = None,
    start: date = START,
) -> Generated:
    """Create schema `kiva` in the empty database `dsn` and fill it with a year of `entries` log entries.

    The same entries, seed and sites (1 to 3) give the same history. `truth` is the path of the truth file,
    `progress` is called after each transaction with the number of entries so far, `start` is the Monday of
    the first delivery week. Raises SettingsError when the schema exists or `truth` cannot be written,
    SourceError when the database is out of reach.
    """
    history = History(entries, seed, sites=sites, start=start)
    async with _connection(dsn) as connection:
        await require_empty(connection)
        with ExitStack() as files:
            truth_file = files.enter_context(closing(TruthFile(truth))) if truth else None
            async with loading(connection) as loader:
                run = _Generation(history, seed, loader=loader, truth=truth_file)
                await run.run(progress or (lambda _: None))
            return run.finish()


@asynccontextmanager
async def _connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    try:
        connection = await asyncpg.connect(dsn)
    except (OSError, ValueError, TimeoutError, asyncpg.PostgresError) as error:
        raise SourceError(f"Cannot reach the database to be filled: {error}") from error
    try:
        yield connection
    finally:
        await connection.close()
