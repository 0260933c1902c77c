"""What happens in a week of a shop: the weekly cycle, what customers do, and the noise around it.

A week opens on Friday, when orders are made and the menu is mailed. Customers change their orders until
Sunday night. The cut-off closes the orders; they are delivered from Tuesday to Friday, and paid at two in the
morning of that day (domain.md 2 and 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from kiva_stream.sandbox.generator.activity import Activity
from kiva_stream.sandbox.generator.clock import MINUTE, SECOND
from kiva_stream.sandbox.generator.mix import KINDS, SUB_MADE, SUB_UNDONE, Key, Kind
from kiva_stream.sandbox.generator.orders import NO_ORDER, Order
from kiva_stream.sandbox.generator.population import NO_CUSTOMER, CustomerAccount, on_week
from kiva_stream.sandbox.generator.shop import TRIES, Shop


class PlannedEntry(NamedTuple):
    """Something that will be an entry of the log."""

    at_ms: int
    number: int  # breaks ties, so that acts sort
    kind: Kind
    customer: CustomerAccount
    order: Order


FRIDAY, SUNDAY, MONDAY = 0, 2, 3  # days since the week opened
HOURS = (1, 1, 0, 0, 0, 1, 3, 5, 6, 6, 5, 5, 7, 5, 4, 4, 5, 6, 7, 8, 9, 7, 4, 1)  # of a day, site time
# What is left of the days' shares (domain.md 3) without the weekly cycle and the shopping.
DAYS = (0.3, 1.5, 1.0, 12.5, 6.5, 5.5, 2.7)
EVENING = 20  # o'clock
RUSH = 3  # how much busier the last evening before the cut-off is
OPENED = 11 * 3600 + 1800  # seconds into Friday
MAILED = 12 * 3600
CUT_OFF = 24 * 3600 - 60  # seconds into Sunday

AFTER_CUT_OFF = 2 / 7  # of cancelled orders
LONGEST_BURST = 6  # changes
WITH_LOGIN = 0.7  # of the bursts of changes
SESSION_GAP_S = 25  # median
CANCELLED_TWICE = 0.02  # of staff's cancellations: minutes after the customer's own
EXPIRED_SHARE = 350 / 27_500  # of staff's edits
VISITOR_SHARE: dict[Key, float] = {3: 0.1, 20: 0.25, 40: 0.15}
FROM_PURCHASERS = 0.6  # of gift boxes
BLACKLISTED_SHARE, REGRETTED_SHARE = 0.1, 0.1  # of those who want mail again
BY_GONE = 0.02  # of what happens to accounts happens to some that are not active

IN_ORDER: tuple[Key, ...] = (8, 10, 11, 14, 17, 18, 19)  # what customers do to an open order
AT_HOME: tuple[Key, ...] = (3, 20, 23, 26, 27, 28, 29, 30, 31, 33, 34, 36, 37, 38, 39, 42)
ABOUT_CUSTOMERS: tuple[Key, ...] = ("balance", "tag", "mail", "payment", "staff", "note")
ABOUT_ORDERS: tuple[Key, ...] = ("order.edit", "recalculated")
WITHOUT_CUSTOMER: tuple[Key, ...] = ("cron", "debug", "error", "login.failed", "visitor", "integration")


def _slots(days: Sequence[float]) -> list[float]:
    return list(accumulate(share * hour for share in days for hour in HOURS))


_ANY_TIME = _slots(DAYS)
_SHOPPING = list(
    accumulate(
        # From the menu mail on with a half-life of three hours, and a rush on the last evening.
        [0.0] * 12
        + [16.5 * 0.5 ** (hour / 3) for hour in range(12)]
        + [2.7 * hour for hour in HOURS]
        + [1.85 * hour * (RUSH if n >= EVENING else 1) for n, hour in enumerate(HOURS)]
    )
)
_EVEN = list(accumulate([1.0] * 24 * 7))


class Week:
    """The plan of one week of one shop. `Week(shop, number).acts()` moves the shop on by a week."""

    def __init__(self, shop: Shop, number: int) -> None:
        self.shop = shop
        self.number = number
        self.calendar = shop.calendar(number)
        self._draw = shop.draw
        self._activity: Activity = shop.activity
        self._acts: list[PlannedEntry] = []
        self._open: list[Order] = []
        self._logins: list[Key] = []

    def acts(self) -> list[PlannedEntry]:
        """Return what happens, in no order; some of it (Friday's deliveries) belongs to the next week."""
        self._activity.redraw()
        self._arrive()
        self._open_orders()
        self._skip_and_cancel()
        self._go_shopping()
        self._live()
        self._leave_and_return()
        self._close()
        self._pay()
        self._surround()
        return self._acts

    # --- building blocks ---

    def _add(self, at_ms: int, key: Key, customer: CustomerAccount = NO_CUSTOMER, order: Order = NO_ORDER) -> None:
        self._acts.append(PlannedEntry(at_ms, len(self._acts), KINDS[key], customer, order))

    def _quota(self, key: Key) -> range:
        return range(self.shop.quotas.take(key, self.number))

    def _times(self, slots: list[float], count: int) -> Iterator[int]:
        """Yield instants of the week, spread over its hours as `slots` says."""
        draw, at = self._draw, self.calendar.at
        for slot in draw.choices(range(len(slots)), cum_weights=slots, k=count) if count else ():
            yield at(slot // 24, slot % 24 * 3600 + draw.below(3600)) + draw.below(SECOND)

    def _spread(self, key: Key, slots: list[float] = _ANY_TIME) -> Iterator[int]:
        return self._times(slots, len(self._quota(key)))

    def _lump(self, day: int, second: int, length_s: int) -> int:
        return self.calendar.at(day, second) + self._draw.below(length_s * SECOND)

    def _someone(self) -> CustomerAccount:
        if self._draw.random() < BY_GONE:
            return self._draw.pick(self.shop.population.customers)
        return self._activity.draw_by_rank()

    def _add_to_order(self, at_ms: int, key: Key, order: Order) -> None:
        self._add(at_ms, key, self.shop.customer(order.customer_id), order)

    # --- accounts come ---

    def _arrive(self) -> None:
        for at_ms in self._spread(2):
            customer = self.shop.join("individual", self.calendar, at_ms)
            self._add(at_ms, 2, customer)
        for at_ms in self._spread(12):
            self._add(at_ms, 12, self.shop.join("promo", self.calendar, at_ms))
        for at_ms in self._spread(40):
            self._buy_gift(at_ms)
        for at_ms in self._spread(22):
            self._add(at_ms, 22, self.shop.activate(self.shop.pending_promos, self.calendar))
        for at_ms in self._spread(21):
            self._add(at_ms, 21, self.shop.activate(self.shop.pending_gifts, self.calendar))

    def _buy_gift(self, at_ms: int) -> None:
        purchaser = self.shop.join("gift_purchaser", self.calendar, at_ms - MINUTE)
        buyer = purchaser if self._draw.chance(FROM_PURCHASERS) else self._activity.draw_by_rank()
        self._add(at_ms, 40, NO_CUSTOMER if self._draw.chance(VISITOR_SHARE[40]) else buyer)

    # --- the weekly cycle ---

    def _open_orders(self) -> None:
        for customer in self._due(len(self._quota("order.generated"))):
            at_ms = self._lump(FRIDAY, OPENED, 300)
            self._add(at_ms, "order.generated", customer, self._order(customer, at_ms))
        for at_ms in self._spread(13, _SHOPPING):
            customer = self._activity.draw_evenly()
            self._add(at_ms, 13, customer, self._order(customer, at_ms))
        for n in self._quota("menu"):
            ranked = self._activity.ranked
            self._add(self._lump(FRIDAY, MAILED, 1200), "menu", ranked[n % len(ranked)])

    def _due(self, count: int) -> Iterator[CustomerAccount]:
        """Yield `count` accounts to deliver to: those with an on-week, then others."""
        ranked, monday = self._activity.ranked, self.calendar.monday
        begin, found = self._draw.below(len(ranked)), 0
        later: list[CustomerAccount] = []
        for n in range(len(ranked)):
            customer = ranked[(begin + n) % len(ranked)]
            if found == count:
                return
            if not (customer.hot or on_week(customer, monday)):
                later.append(customer)
                continue
            found += 1
            yield customer
        while found < count:
            yield later.pop() if later else self._activity.draw_evenly()
            found += 1

    def _order(self, customer: CustomerAccount, at_ms: int) -> Order:
        order = self.shop.order(customer, self.calendar, at_ms)
        customer.order = order
        customer.newest_order_ms = max(customer.newest_order_ms, at_ms)
        self._open.append(order)
        self.shop.current_orders.append(order)
        return order

    def _take(self, pool: list[Order]) -> Order:
        """Take an order from `pool`; without any, one that the shop no longer has (row 34 of 6.5)."""
        if not pool:
            return self.shop.order(self._activity.draw_evenly(), self.calendar, self.calendar.at(FRIDAY, OPENED))
        place = self._draw.below(len(pool))
        pool[place], pool[-1] = pool[-1], pool[place]
        return pool.pop()

    def _skip_and_cancel(self) -> None:
        for at_ms in self._spread(15, _SHOPPING):
            self._end(at_ms, 15, self._take(self._open), "skipped")
        for at_ms in self._spread(32, _SHOPPING):
            if not self._draw.chance(AFTER_CUT_OFF):
                self._end(at_ms, 32, self._take(self._open), "cancelled")
            elif self.shop.unpaid:
                monday_ms = self._lump(MONDAY, 8 * 3600, 12 * 3600)
                self._end(monday_ms, 32, self._take(self.shop.unpaid), "cancelled")
            else:
                self._end(at_ms, 32, self._take(self._open), "cancelled")

    def _end(self, at_ms: int, key: Key, order: Order, status: str) -> None:
        order.status, order.payment_status, order.updated_ms = status, "none", at_ms
        customer = self.shop.customer(order.customer_id)
        customer.order = NO_ORDER
        self._add(at_ms, key, customer, order)

    def _close(self) -> None:
        pool = [*self.shop.unclosed, *self._open]
        count = len(self._quota("order.closed"))
        for order in pool[:count] + [self._take([]) for _ in range(count - len(pool))]:
            at_ms = self._lump(SUNDAY, CUT_OFF, 60)
            order.status, order.closed_ms, order.updated_ms = "closed", at_ms, at_ms
            self._add_to_order(at_ms, "order.closed", order)
        self.shop.unclosed = pool[count:]
        self.shop.unpaid.extend(pool[:count])

    def _pay(self) -> None:
        pool, count = self.shop.unpaid, len(self._quota(41))
        paid = pool[:count] + [self._take([]) for _ in range(count - len(pool))]
        self.shop.unpaid = pool[count:]
        for order in paid:
            at_ms = self._lump(self._delivery_day(order), 2 * 3600, 900)
            order.payment_status, order.paid_ms, order.updated_ms = "completed", at_ms, at_ms
            order.status = "complete" if self._draw.chance(0.5) else "closed"
            self._add_to_order(at_ms, 41, order)
        for n in self._quota(1):
            order = paid[n] if n < len(paid) else self._take([])
            self._add_to_order(self._lump(self._delivery_day(order), 6 * 3600, 300), 1, order)
        for _ in self._quota("payment.failed"):
            order = self._draw.pick(paid) if paid else self._take([])
            self._add_to_order(self._lump(MONDAY, 2 * 3600, 900), "payment.failed", order)
        for _ in self._quota("order.refund"):
            self._refund(self._draw.pick(paid) if paid else self._take([]))

    def _refund(self, order: Order) -> None:
        at_ms = self._lump(self._delivery_day(order), 9 * 3600, 8 * 3600)
        order.payment_status, order.updated_ms = "refunded", at_ms
        self._add_to_order(at_ms, "order.refund", order)

    def _delivery_day(self, order: Order) -> int:
        return MONDAY + self.shop.customer(order.customer_id).weekday - 1

    # --- what customers do ---

    def _go_shopping(self) -> None:
        """Change open orders in bursts, most of them after a log-in."""
        draw = self._draw
        self._logins = [key for key in (4, 5, 6) for _ in self._quota(key)]
        draw.shuffle(self._logins)
        changes = [key for key in IN_ORDER for _ in self._quota(key)]
        draw.shuffle(changes)
        undone = len(self._quota(SUB_UNDONE))
        undo_share = undone / max(1, len(self._quota(SUB_MADE)))
        times = self._times(_SHOPPING, len(changes) + undone)
        while changes:
            burst = self._burst(changes)
            for n, key in reversed(list(enumerate(burst))):
                if key == SUB_MADE and undone and draw.chance(undo_share):
                    burst.insert(n + 1, SUB_UNDONE)
                    undone -= 1
            self._session(next(times), burst, self._shopper())
        for _ in range(undone):
            self._session(next(times), [SUB_UNDONE], self._shopper())

    def _burst(self, changes: list[Key]) -> list[Key]:
        size = 1
        while size < LONGEST_BURST and self._draw.chance(0.5):
            size += 1
        burst = changes[-size:]
        del changes[-size:]
        return burst

    def _shopper(self) -> Order:
        """Return the open order of somebody who is about to change it."""
        monday = self.calendar.mondays[0]
        for _ in range(TRIES):
            order = self._activity.draw_by_rank().order
            if order.week == monday:
                return order
        return self._draw.pick(self._open) if self._open else self._take([])

    def _session(self, at_ms: int, burst: list[Key], order: Order) -> None:
        """Let a customer do one thing after the other, ending before the cut-off."""
        customer = self.shop.customer(order.customer_id)
        if self._logins and self._draw.chance(WITH_LOGIN):
            burst.insert(0, self._logins.pop())
        id_gaps = [int(self._gap()) for _ in burst]
        at_ms = min(at_ms, self.calendar.at(SUNDAY, CUT_OFF) - sum(id_gaps))
        for key, gap in zip(burst, id_gaps, strict=True):
            self._add(at_ms, key, customer, order)
            at_ms += gap

    def _gap(self) -> float:
        return min(self._draw.spread(SESSION_GAP_S, 0.8), 600) * SECOND + 2500

    def _live(self) -> None:
        """Do what needs no order: log in, mind the account, log out."""
        draw = self._draw
        for key in AT_HOME:
            for at_ms in self._spread(key):
                visits = draw.chance(VISITOR_SHARE.get(key, 0))
                self._add(at_ms, key, NO_CUSTOMER if visits else self._visit(at_ms))
        for at_ms in self._spread(25):
            self._add(at_ms, 25, self._opt_out(at_ms))
        for at_ms in self._spread(24):
            again_ms, customer = self._opt_in(at_ms)
            self._add(again_ms, 24, customer)
        for at_ms in self._times(_ANY_TIME, len(self._logins)):
            self._add(at_ms, self._logins.pop(), self._someone())
        for at_ms in self._spread(7):
            self._add(at_ms, 7, self._someone())

    def _visit(self, at_ms: int) -> CustomerAccount:
        """Return somebody who, as a rule, has just logged in."""
        customer = self._someone()
        if self._logins and self._draw.chance(0.5):
            self._add(at_ms - int(self._gap()), self._logins.pop(), customer)
        customer.updated_ms = max(customer.updated_ms, at_ms)
        return customer

    def _opt_out(self, at_ms: int) -> CustomerAccount:
        customer = self._someone()
        customer.opt_in = False
        customer.updated_ms = max(customer.updated_ms, at_ms)
        self.shop.opted_out.append(customer)
        return customer

    def _opt_in(self, at_ms: int) -> tuple[int, CustomerAccount]:
        """Return when who wants mail again: some minutes after saying no, some in spite of a complaint."""
        draw, pool = self._draw, self.shop.opted_out
        if not pool:
            return at_ms, self._someone()
        if self.shop.blacklisted and draw.chance(BLACKLISTED_SHARE):
            customer = draw.pick(self.shop.blacklisted)
        elif draw.chance(REGRETTED_SHARE):
            customer = pool.pop()
            at_ms = max(at_ms, customer.updated_ms + 2 * MINUTE)
        else:
            customer = pool.pop(draw.below(len(pool)))
        customer.opt_in = True
        customer.updated_ms = max(customer.updated_ms, at_ms)
        return at_ms, customer

    # --- statuses ---

    def _leave_and_return(self) -> None:
        shop, number = self.shop, self.number
        for at_ms in self._spread("reactivate"):
            self._add(at_ms, "reactivate", shop.reactivate(shop.left, at_ms, number))
        for at_ms in self._spread("resume"):
            self._add(at_ms, "resume", shop.reactivate(shop.paused, at_ms, number))
        self._cancel()
        for at_ms in self._spread("pause"):
            self._add(at_ms, "pause", shop.deactivate("paused", at_ms, number))
        for at_ms in self._spread("delete"):
            self._add(at_ms, "delete", shop.deactivate("dead", at_ms, number))
        for at_ms in self._spread("erase"):
            self._add(at_ms, "erase", self._erase())
        for at_ms in self._spread("customer.edit"):
            expires = self._draw.chance(EXPIRED_SHARE)
            customer = shop.deactivate("expired", at_ms, number) if expires else self._someone()
            self._add(at_ms, "customer.edit", customer)
        for at_ms in self._spread("email.change"):
            self._add(at_ms, "email.change", self._move(at_ms))

    def _cancel(self) -> None:
        last, last_ms = NO_CUSTOMER, 0
        for at_ms in self._spread(16):
            last, last_ms = self.shop.deactivate("cancelled", at_ms, self.number), at_ms
            self._add(at_ms, 16, last)
        for at_ms in self._spread(35):
            if last is not NO_CUSTOMER and self._draw.chance(CANCELLED_TWICE):
                self._add(last_ms + 3 * MINUTE, 35, last)
            else:
                self._add(at_ms, 35, self.shop.deactivate("cancelled", at_ms, self.number))

    def _erase(self) -> CustomerAccount:
        if not self.shop.to_be_erased:
            return self._activity.draw_evenly()
        customer = self.shop.to_be_erased.pop(0)
        self._activity.remove(customer)
        return customer

    def _move(self, at_ms: int) -> CustomerAccount:
        """Change the address of somebody who may; the entry comes when it is done."""
        if not self.shop.address_changers:
            return self._activity.draw_evenly()
        customer = self._draw.pick(self.shop.address_changers)
        self.shop.population.move(customer, len(customer.earlier))
        customer.updated_ms = max(customer.updated_ms, at_ms)
        return customer

    # --- around them ---

    def _surround(self) -> None:
        for key in ABOUT_CUSTOMERS:
            for at_ms in self._spread(key):
                self._add(at_ms, key, self._someone())
        current_orders = self.shop.current_orders
        for key in ABOUT_ORDERS:
            for at_ms in self._spread(key):
                self._add_to_order(at_ms, key, self._draw.pick(current_orders) if current_orders else self._take([]))
        for key in WITHOUT_CUSTOMER:
            for at_ms in self._spread(key, _EVEN):
                self._add(at_ms, key)
