"""The steps of a week, in their order.

A week opens on Friday, when orders are made and the menu is mailed. Customers change their orders until
Sunday night. The cut-off closes the orders; they are delivered from Tuesday to Friday, and paid at two in the
morning of that day.
"""

from __future__ import annotations

from kiva_stream.sandbox.generator.shop import Shop
from kiva_stream.sandbox.generator.week.background import plan_background
from kiva_stream.sandbox.generator.week.logins import Logins
from kiva_stream.sandbox.generator.week.order_cycle import OrderCycle
from kiva_stream.sandbox.generator.week.plan import PlannedEntry, WeekPlan
from kiva_stream.sandbox.generator.week.shopping import Shopping
from kiva_stream.sandbox.generator.week.signups import plan_signups
from kiva_stream.sandbox.generator.week.status_changes import plan_status_changes
from kiva_stream.sandbox.generator.week.visits import Visits


def plan_week(shop: Shop, number: int) -> list[PlannedEntry]:
    """Move the shop on by a week; return its entries in no order.

    Some of them, Friday's deliveries, belong to the next week. The order of the steps is part of a seed's
    history: each draws from the shop's one source of randomness.
    """
    plan = WeekPlan(shop, number)
    shop.activity.redraw()
    plan_signups(plan)
    cycle = OrderCycle(plan)
    cycle.open()
    cycle.skip_and_cancel()
    logins = Logins(plan)
    Shopping(plan, cycle.open_orders, logins).plan()
    Visits(plan, logins).plan()
    plan_status_changes(plan)
    cycle.close()
    cycle.pay()
    plan_background(plan)
    return plan.entries
