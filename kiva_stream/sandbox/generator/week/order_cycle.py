"""The weekly cycle of orders: opened, skipped or cancelled, closed at the cut-off, paid on delivery."""

from __future__ import annotations

from collections.abc import Iterator

from kiva_stream.sandbox.generator.mix import Key
from kiva_stream.sandbox.generator.orders import NO_ORDER, Order
from kiva_stream.sandbox.generator.population import CustomerAccount, is_delivery_week
from kiva_stream.sandbox.generator.week.plan import WeekPlan
from kiva_stream.sandbox.generator.week.times import CUT_OFF, FRIDAY, MAILED, MONDAY, OPENED, SHOPPING, SUNDAY

AFTER_CUT_OFF = 2 / 7  # of cancelled orders


class OrderCycle:
    """Plans what happens to this week's orders, and to earlier ones that are not closed or paid yet."""

    def __init__(self, plan: WeekPlan) -> None:
        self.open_orders: list[Order] = []
        self._plan = plan
        self._shop = plan.shop

    def open(self) -> None:
        """Make the week's orders, those of the welcome page too, and mail the menu."""
        plan = self._plan
        for customer in self._recipients(len(plan.quota("order.generated"))):
            at_ms = plan.times.within(FRIDAY, OPENED, 300)
            plan.add(at_ms, "order.generated", customer, order=self._create(customer, at_ms))
        for at_ms in plan.spread(13, SHOPPING):
            customer = plan.activity.draw_evenly()
            plan.add(at_ms, 13, customer, order=self._create(customer, at_ms))
        for n in plan.quota("menu"):
            ranked = plan.activity.ranked
            plan.add(plan.times.within(FRIDAY, MAILED, 1200), "menu", ranked[n % len(ranked)])

    def skip_and_cancel(self) -> None:
        """Let customers skip open orders, and cancel open ones or, on Monday, closed ones."""
        plan = self._plan
        for at_ms in plan.spread(15, SHOPPING):
            self._end(at_ms, 15, plan.take_order(self.open_orders), status="skipped")
        for at_ms in plan.spread(32, SHOPPING):
            if plan.draw.chance(AFTER_CUT_OFF) and self._shop.unpaid:
                monday_ms = plan.times.within(MONDAY, 8 * 3600, 12 * 3600)
                self._end(monday_ms, 32, plan.take_order(self._shop.unpaid), status="cancelled")
            else:
                self._end(at_ms, 32, plan.take_order(self.open_orders), status="cancelled")

    def close(self) -> None:
        """Close orders at the cut-off, the longest open first."""
        plan, pool = self._plan, [*self._shop.unclosed, *self.open_orders]
        count = len(plan.quota("order.closed"))
        for order in self._first(pool, count):
            at_ms = plan.times.within(SUNDAY, CUT_OFF, 60)
            order.status, order.closed_ms, order.updated_ms = "closed", at_ms, at_ms
            plan.add_for_order(at_ms, "order.closed", order)
        self._shop.unclosed[:] = pool[count:]
        self._shop.unpaid.extend(pool[:count])

    def pay(self) -> None:
        """Take payment for closed orders, remind of their delivery, and refund some."""
        plan, pool, count = self._plan, self._shop.unpaid, len(self._plan.quota(41))
        paid = self._first(pool, count)
        del pool[:count]
        for order in paid:
            self._complete(order)
        for n in plan.quota(1):
            order = paid[n] if n < len(paid) else plan.missing_order()
            plan.add_for_order(plan.times.within(self._delivery_day(order), 6 * 3600, 300), 1, order)
        for _ in plan.quota("payment.failed"):
            order = plan.pick_order(paid)
            plan.add_for_order(plan.times.within(MONDAY, 2 * 3600, 900), "payment.failed", order)
        for _ in plan.quota("order.refund"):
            self._refund(plan.pick_order(paid))

    def _recipients(self, count: int) -> Iterator[CustomerAccount]:
        """Yield `count` customers to deliver to: those whose schedule has this week, then others."""
        ranked, monday = self._plan.activity.ranked, self._plan.calendar.monday
        begin, found = self._plan.draw.below(len(ranked)), 0
        others: list[CustomerAccount] = []
        for n in range(len(ranked)):
            customer = ranked[(begin + n) % len(ranked)]
            if found == count:
                return
            if not (customer.hot or is_delivery_week(customer, monday)):
                others.append(customer)
                continue
            found += 1
            yield customer
        while found < count:
            yield others.pop() if others else self._plan.activity.draw_evenly()
            found += 1

    def _create(self, customer: CustomerAccount, at_ms: int) -> Order:
        order = self._shop.order(customer, self._plan.calendar, at_ms)
        customer.order = order
        customer.newest_order_ms = max(customer.newest_order_ms, at_ms)
        self.open_orders.append(order)
        self._shop.current_orders.append(order)
        return order

    def _end(self, at_ms: int, key: Key, order: Order, *, status: str) -> None:
        order.status, order.payment_status, order.updated_ms = status, "none", at_ms
        customer = self._shop.customer(order.customer_id)
        customer.order = NO_ORDER
        self._plan.add(at_ms, key, customer, order=order)

    def _first(self, pool: list[Order], count: int) -> list[Order]:
        """Return the first `count` orders of a pool, missing ones where it has too few."""
        return pool[:count] + [self._plan.missing_order() for _ in range(count - len(pool))]

    def _complete(self, order: Order) -> None:
        at_ms = self._plan.times.within(self._delivery_day(order), 2 * 3600, 900)
        order.payment_status, order.paid_ms, order.updated_ms = "completed", at_ms, at_ms
        order.status = "complete" if self._plan.draw.chance(0.5) else "closed"
        self._plan.add_for_order(at_ms, 41, order)

    def _refund(self, order: Order) -> None:
        at_ms = self._plan.times.within(self._delivery_day(order), 9 * 3600, 8 * 3600)
        order.payment_status, order.updated_ms = "refunded", at_ms
        self._plan.add_for_order(at_ms, "order.refund", order)

    def _delivery_day(self, order: Order) -> int:
        return MONDAY + self._shop.customer(order.customer_id).weekday - 1
