"""Orders under one connection after another, whatever their requests end with, on a real PostgreSQL."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from typing import cast

import anyio
import pytest
from msgspec.structs import replace

from kiva_stream.errors import KindRefused, OrdersRejected, RecordsHeld, TryLater, Unanswered
from kiva_stream.model.account_ids import AccountIds
from kiva_stream.model.ids import OrderId
from kiva_stream.model.orders import DesiredOrder, Order, OrderSource
from kiva_stream.observability.incidents import Incidents
from kiva_stream.ports.destination import Around
from kiva_stream.ports.state import Links
from kiva_stream.state.account_ids import SiteAccountIds
from kiva_stream.state.orders import OrderStates
from kiva_stream.state.store import Store
from kiva_stream.sync.order_kind import order_kind
from kiva_stream.sync.order_sync import OrderSync
from tests.fakes.source import FakeOrders
from tests.fakes.state_held import held_records
from tests.fakes.state_orders import FakeOrderLinks
from tests.support.orders import order
from tests.support.settings import activecampaign_settings
from tests.support.state_schema import begin, held_ledger

STEPS, PROBE_EVERY_S = 60, 300
# A lost answer is that of a request which was applied; of a killed process, only a late one was.
ENDS = ("accepted", "accepted", "named", "account", "lost", "unanswered", "killed", "killed late")
IDS = AccountIds(list_id=1, fields={}, tags={}, connection_id=1)


class Account:
    """An account whose requests end at random: implements OrderUploads for the connection it has now."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.connection = 1
        self.is_well = False
        self.process = anyio.CancelScope()  # of the process that sends
        self.has: dict[OrderId, DesiredOrder] = {}  # at the connection of now
        self.purchases: defaultdict[OrderId, set[int]] = defaultdict(
            set
        )  # connections that may have started one
        self.carried: set[OrderId] = set()  # by a request that was accepted or not answered

    async def answers(self) -> bool:
        return True

    async def upsert(
        self,
        orders: Sequence[DesiredOrder],
        *,
        around: Around = nullcontext,
        tries: float = math.inf,  # noqa: ARG002  each is the last one here
        is_suspect: bool = False,  # noqa: ARG002  the breaker's
    ) -> None:
        try:
            async with around():
                await self._answer(orders)
        except TryLater as error:
            raise Unanswered(str(error)) from error

    async def _answer(self, orders: Sequence[DesiredOrder]) -> None:
        end = "accepted" if self.is_well else self.chance.choice(ENDS)
        if end == "named":
            raise OrdersRejected("refused", {int(orders[0].id): "no such product"})
        if end == "account":
            raise KindRefused("the connection does not exist")
        self.carried.update(each.id for each in orders)
        for each in orders:
            if each.source is OrderSource.REAL_TIME:
                self.purchases[each.id].add(self.connection)
        if end not in ("unanswered", "killed"):
            self.has |= {each.id: each for each in orders}
        if end in ("killed", "killed late"):
            self.process.cancel()
            await anyio.sleep_forever()
        if end in ("unanswered", "lost"):
            raise TryLater("504")

    def reconnect(self) -> None:
        """Delete the connection with its orders, and create another one."""
        self.connection += 1
        self.has = {}


class Shop:
    """The orders of a shop, and one process after another that sends them."""

    def __init__(self, store: Store, chance: random.Random) -> None:
        self.orders = FakeOrders()
        self.account = Account(chance)
        self._store = store
        self._chance = chance

    def order(self) -> None:
        """Add an order, which was paid a moment ago or long ago, or change one."""
        ids = sorted(self.orders.rows)
        if ids and self._chance.random() < 0.3:
            changed = self.orders.rows[self._chance.choice(ids)]
            self.orders.put(replace(changed, total_cents=changed.total_cents + 1))
        else:
            ago = timedelta(minutes=1) if self._chance.random() < 0.7 else timedelta(days=30)
            self.orders.put(order(len(ids) + 1, paid_at=datetime.now(UTC) - ago))

    async def send(self, ids: Sequence[OrderId]) -> None:
        """Send orders by a process of its own, which may be killed meanwhile."""
        process = await self._process()
        with suppress(RecordsHeld), anyio.CancelScope() as self.account.process:
            await process.upsert(ids)

    async def send_all(self) -> None:
        """Send all orders as the next run does, while the account is well."""
        self.account.is_well = True
        await (await self._process()).snapshot(lambda _: None)

    async def _process(self) -> OrderSync:
        await SiteAccountIds(self._store, 1).adopt(IDS._replace(connection_id=self.account.connection))
        return OrderSync(
            "USD",
            orders=self.orders,
            sent=OrderStates(self._store, 1),
            links=cast("Links", FakeOrderLinks()),  # as much of it as order sync needs
            uploads=self.account,
            held=held_records(),
            kind=order_kind(Incidents(), PROBE_EVERY_S),
            settings=activecampaign_settings(orders_per_batch=3, order_settle_s=0),
        )


def is_live(row: Order) -> bool:
    return row.paid_at is not None and datetime.now(UTC) - row.paid_at < timedelta(days=1)


@pytest.mark.parametrize("seed", range(5))
async def test_no_order_is_a_purchase_at_two_connections_and_each_ends_at_the_last(
    store: Store, seed: int
) -> None:
    async with held_ledger(store) as ledger:
        await begin(ledger)
    chance = random.Random(seed)
    shop = Shop(store, chance)
    for _ in range(STEPS):
        shop.order()
        if chance.random() < 0.1:
            shop.account.reconnect()
        ids = sorted(shop.orders.rows)
        await shop.send(chance.sample(ids, min(len(ids), chance.randint(1, 6))))
    shop.account.reconnect()
    before = set(shop.account.carried)
    await shop.send_all()

    account, rows = shop.account, shop.orders.rows
    assert max(map(len, account.purchases.values())) == 1
    assert account.has.keys() == rows.keys()
    assert {key: each.total_cents for key, each in account.has.items()} == {
        key: row.total_cents for key, row in rows.items()
    }
    as_purchases = {key for key, each in account.has.items() if each.source is OrderSource.REAL_TIME}
    assert as_purchases == {key for key, row in rows.items() if is_live(row)} - before
