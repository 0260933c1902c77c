"""The entries around the customers' own: mail, staff, robots, visitors, errors."""

from __future__ import annotations

from kiva_stream.sandbox.generator.mix import Key
from kiva_stream.sandbox.generator.week.plan import WeekPlan
from kiva_stream.sandbox.generator.week.times import EVEN

ABOUT_CUSTOMERS: tuple[Key, ...] = ("balance", "tag", "mail", "payment", "staff", "note")
ABOUT_ORDERS: tuple[Key, ...] = ("order.edit", "recalculated")
WITHOUT_CUSTOMER: tuple[Key, ...] = ("cron", "debug", "error", "login.failed", "visitor", "integration")


def plan_background(plan: WeekPlan) -> None:
    """Plan all of them."""
    for key in ABOUT_CUSTOMERS:
        for at_ms in plan.spread(key):
            plan.add(at_ms, key, plan.any_customer())
    for key in ABOUT_ORDERS:
        for at_ms in plan.spread(key):
            plan.add_for_order(at_ms, key, plan.pick_order(plan.shop.current_orders))
    for key in WITHOUT_CUSTOMER:
        for at_ms in plan.spread(key, EVEN):
            plan.add(at_ms, key)
