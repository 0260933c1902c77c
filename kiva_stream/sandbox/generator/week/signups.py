"""New customers: sign-ups, promotions, gift boxes, and the activation of the accounts that wait for it."""

from __future__ import annotations

from kiva_stream.sandbox.generator.clock import MINUTE
from kiva_stream.sandbox.generator.population import NO_CUSTOMER
from kiva_stream.sandbox.generator.week.plan import VISITOR_SHARE, WeekPlan

FROM_PURCHASERS = 0.6  # of gift boxes


def plan_signups(plan: WeekPlan) -> None:
    """Add this week's new customers, and activate some of those that wait."""
    shop, calendar = plan.shop, plan.calendar
    for at_ms in plan.spread(2):
        plan.add(at_ms, 2, shop.sign_up("individual", calendar, at_ms))
    for at_ms in plan.spread(12):
        plan.add(at_ms, 12, shop.sign_up("promo", calendar, at_ms))
    for at_ms in plan.spread(40):
        _plan_gift(plan, at_ms)
    for at_ms in plan.spread(22):
        plan.add(at_ms, 22, shop.activate(shop.pending_promos, calendar))
    for at_ms in plan.spread(21):
        plan.add(at_ms, 21, shop.activate(shop.pending_gifts, calendar))


def _plan_gift(plan: WeekPlan, at_ms: int) -> None:
    """Plan the purchase of a gift box, by a new purchaser, an active customer, or a visitor."""
    purchaser = plan.shop.sign_up("gift_purchaser", plan.calendar, at_ms - MINUTE)
    buyer = purchaser if plan.draw.chance(FROM_PURCHASERS) else plan.activity.draw_by_rank()
    plan.add(at_ms, 40, NO_CUSTOMER if plan.draw.chance(VISITOR_SHARE[40]) else buyer)
