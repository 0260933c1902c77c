"""What customers do to their open orders: bursts of changes, most of them after a log-in."""

from __future__ import annotations

from kiva_stream.sandbox.generator.clock import SECOND
from kiva_stream.sandbox.generator.draw import Draw
from kiva_stream.sandbox.generator.mix import SUB_MADE, SUB_UNDONE, Key
from kiva_stream.sandbox.generator.orders import Order
from kiva_stream.sandbox.generator.shop import TRIES
from kiva_stream.sandbox.generator.week.logins import Logins
from kiva_stream.sandbox.generator.week.plan import WeekPlan
from kiva_stream.sandbox.generator.week.times import CUT_OFF, SHOPPING, SUNDAY

CHANGES: tuple[Key, ...] = (8, 10, 11, 14, 17, 18, 19)  # of an open order
LONGEST_BURST = 6  # changes
WITH_LOGIN = 0.7  # of the bursts
PAUSE_S = 25  # median


def draw_pause_ms(draw: Draw) -> int:
    """Return how long a customer takes from one thing to the next."""
    return int(min(draw.spread(PAUSE_S, 0.8), 600) * SECOND + 2500)


class Shopping:
    """Plans this week's changes of the open orders."""

    def __init__(self, plan: WeekPlan, open_orders: list[Order], logins: Logins) -> None:
        self._plan = plan
        self._open_orders = open_orders
        self._logins = logins

    def plan(self) -> None:
        """Plan all changes. A substitution that is undone is, as a rule, undone in its own burst."""
        plan, draw = self._plan, self._plan.draw
        changes = [key for key in CHANGES for _ in plan.quota(key)]
        draw.shuffle(changes)
        undone = len(plan.quota(SUB_UNDONE))
        undo_share = undone / max(1, len(plan.quota(SUB_MADE)))
        times = plan.times.spread(len(changes) + undone, SHOPPING)
        while changes:
            burst = self._burst(changes)
            for n, key in reversed(list(enumerate(burst))):
                if key == SUB_MADE and undone and draw.chance(undo_share):
                    burst.insert(n + 1, SUB_UNDONE)
                    undone -= 1
            self._plan_burst(next(times), burst, self._order_to_change())
        for _ in range(undone):
            self._plan_burst(next(times), [SUB_UNDONE], self._order_to_change())

    def _burst(self, changes: list[Key]) -> list[Key]:
        """Remove the changes of one burst from `changes` and return them."""
        size = 1
        while size < LONGEST_BURST and self._plan.draw.chance(0.5):
            size += 1
        burst = changes[-size:]
        del changes[-size:]
        return burst

    def _order_to_change(self) -> Order:
        """Return an open order of this week, that of an active customer where one is found."""
        monday = self._plan.calendar.mondays[0]
        for _ in range(TRIES):
            order = self._plan.activity.draw_by_rank().order
            if order.week == monday:
                return order
        return self._plan.pick_order(self._open_orders)

    def _plan_burst(self, at_ms: int, burst: list[Key], order: Order) -> None:
        """Plan the changes of one burst, one after another and all before the cut-off."""
        customer = self._plan.shop.customer(order.customer_id)
        if login := self._logins.take_by_chance(WITH_LOGIN):
            burst.insert(0, login)
        pauses_ms = [draw_pause_ms(self._plan.draw) for _ in burst]
        at_ms = min(at_ms, self._plan.calendar.at(SUNDAY, CUT_OFF) - sum(pauses_ms))
        for key, pause_ms in zip(burst, pauses_ms, strict=True):
            self._plan.add(at_ms, key, customer, order=order)
            at_ms += pause_ms
