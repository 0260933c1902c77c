"""What customers do without an order: visit their account, refuse mail or ask for it, log in and out."""

from __future__ import annotations

from kiva_stream.sandbox.generator.clock import MINUTE
from kiva_stream.sandbox.generator.mix import Key
from kiva_stream.sandbox.generator.population import NO_CUSTOMER, CustomerAccount
from kiva_stream.sandbox.generator.week.logins import Logins
from kiva_stream.sandbox.generator.week.plan import VISITOR_SHARE, WeekPlan
from kiva_stream.sandbox.generator.week.shopping import draw_pause_ms

ON_OWN_ACCOUNT: tuple[Key, ...] = (3, 20, 23, 26, 27, 28, 29, 30, 31, 33, 34, 36, 37, 38, 39, 42)
BLACKLISTED_SHARE, REGRETTED_SHARE = 0.1, 0.1  # of the customers that ask for mail again
WITH_LOGIN = 0.5  # of the visits


class Visits:
    """Plans this week's visits, and the log-ins that the shopping left."""

    def __init__(self, plan: WeekPlan, logins: Logins) -> None:
        self._plan = plan
        self._shop = plan.shop
        self._logins = logins

    def plan(self) -> None:
        """Plan all of them."""
        plan = self._plan
        for key in ON_OWN_ACCOUNT:
            for at_ms in plan.spread(key):
                is_visitor = plan.draw.chance(VISITOR_SHARE.get(key, 0))
                plan.add(at_ms, key, NO_CUSTOMER if is_visitor else self._customer(at_ms))
        for at_ms in plan.spread(25):
            plan.add(at_ms, 25, self._opt_out(at_ms))
        for at_ms in plan.spread(24):
            again_ms, customer = self._opt_in(at_ms)
            plan.add(again_ms, 24, customer)
        for at_ms in plan.times.spread(len(self._logins)):
            plan.add(at_ms, self._logins.take(), plan.any_customer())
        for at_ms in plan.spread(7):
            plan.add(at_ms, 7, plan.any_customer())

    def _customer(self, at_ms: int) -> CustomerAccount:
        """Return a customer that visits the own account, half of the time just after a log-in."""
        customer = self._plan.any_customer()
        if login := self._logins.take_by_chance(WITH_LOGIN):
            self._plan.add(at_ms - draw_pause_ms(self._plan.draw), login, customer)
        customer.updated_ms = max(customer.updated_ms, at_ms)
        return customer

    def _opt_out(self, at_ms: int) -> CustomerAccount:
        customer = self._plan.any_customer()
        customer.opt_in = False
        customer.updated_ms = max(customer.updated_ms, at_ms)
        self._shop.opted_out.append(customer)
        return customer

    def _opt_in(self, at_ms: int) -> tuple[int, CustomerAccount]:
        """Return a customer that asks for mail again, and when.

        There are three cases: one that stays blacklisted, one that regrets the refusal after some minutes,
        and one that refused at any time before.
        """
        draw, pool = self._plan.draw, self._shop.opted_out
        if not pool:
            return at_ms, self._plan.any_customer()
        if self._shop.blacklisted and draw.chance(BLACKLISTED_SHARE):
            customer = draw.pick(self._shop.blacklisted)
        elif draw.chance(REGRETTED_SHARE):
            customer = pool.pop()
            at_ms = max(at_ms, customer.updated_ms + 2 * MINUTE)
        else:
            customer = pool.pop(draw.below(len(pool)))
        customer.opt_in = True
        customer.updated_ms = max(customer.updated_ms, at_ms)
        return at_ms, customer
