"""The plan of a week: the entries that it will have, and what every step draws from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kiva_stream.sandbox.generator.mix import KINDS, Key, Kind
from kiva_stream.sandbox.generator.orders import NO_ORDER, Order
from kiva_stream.sandbox.generator.population import NO_CUSTOMER, CustomerAccount
from kiva_stream.sandbox.generator.shop import Shop
from kiva_stream.sandbox.generator.week.times import ANY_TIME, FRIDAY, OPENED, WeekTimes

VISITOR_SHARE: dict[Key, float] = {3: 0.1, 20: 0.25, 40: 0.15}
INACTIVE_SHARE = 0.02  # of the entries about customers that are about any, active or not


class PlannedEntry(NamedTuple):
    """An entry that the log will have."""

    at_ms: int
    number: int  # breaks ties, so that planned entries sort
    kind: Kind
    customer: CustomerAccount
    order: Order


class WeekPlan:
    """The entries planned for week `number` of a shop."""

    def __init__(self, shop: Shop, number: int) -> None:
        self.shop = shop
        self.number = number
        self.calendar = shop.calendar(number)
        self.draw = shop.draw
        self.activity = shop.activity
        self.times = WeekTimes(shop.draw, self.calendar)
        self.entries: list[PlannedEntry] = []

    def add(
        self, at_ms: int, key: Key, customer: CustomerAccount = NO_CUSTOMER, *, order: Order = NO_ORDER
    ) -> None:
        """Plan an entry."""
        self.entries.append(
            PlannedEntry(
                at_ms=at_ms, number=len(self.entries), kind=KINDS[key], customer=customer, order=order
            )
        )

    def add_for_order(self, at_ms: int, key: Key, order: Order) -> None:
        """Plan an entry about an order and its customer."""
        self.add(at_ms, key, self.shop.customer(order.customer_id), order=order)

    def quota(self, key: Key) -> range:
        """Return a range as long as the number of entries of a kind that this week has to have."""
        return range(self.shop.quotas.take(key, self.number))

    def spread(self, key: Key, profile: list[float] = ANY_TIME) -> Iterator[int]:
        """Yield the instants of all this week's entries of a kind."""
        return self.times.spread(len(self.quota(key)), profile)

    def any_customer(self) -> CustomerAccount:
        """Return the customer of an entry: mostly an active one, by activity."""
        if self.draw.random() < INACTIVE_SHARE:
            return self.draw.pick(self.shop.population.customers)
        return self.activity.draw_by_rank()

    def missing_order(self) -> Order:
        """Return an order that has an id and no row: the shop no longer has it."""
        opened_ms = self.calendar.at(FRIDAY, OPENED)
        return self.shop.order(self.activity.draw_evenly(), self.calendar, opened_ms)

    def take_order(self, pool: list[Order]) -> Order:
        """Remove an order from `pool` and return it, or a missing order when the pool is empty."""
        if not pool:
            return self.missing_order()
        index = self.draw.below(len(pool))
        pool[index], pool[-1] = pool[-1], pool[index]
        return pool.pop()

    def pick_order(self, pool: list[Order]) -> Order:
        """Return an order of `pool`, or a missing order when the pool is empty."""
        return self.draw.pick(pool) if pool else self.missing_order()
