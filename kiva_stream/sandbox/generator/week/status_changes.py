"""Customers that cancel, pause, expire, are deleted or erased, start again, or change their address."""

from __future__ import annotations

from kiva_stream.sandbox.generator.clock import MINUTE
from kiva_stream.sandbox.generator.population import NO_CUSTOMER, CustomerAccount
from kiva_stream.sandbox.generator.week.plan import WeekPlan

CANCELLED_TWICE = 0.02  # of staff's cancellations: minutes after the customer's own
EXPIRED_SHARE = 350 / 27_500  # of staff's edits


def plan_status_changes(plan: WeekPlan) -> None:
    """Plan this week's changes of status and of address."""
    shop, number = plan.shop, plan.number
    for at_ms in plan.spread("reactivate"):
        plan.add(at_ms, "reactivate", shop.reactivate(shop.cancelled, at_ms, number))
    for at_ms in plan.spread("resume"):
        plan.add(at_ms, "resume", shop.reactivate(shop.paused, at_ms, number))
    _plan_cancellations(plan)
    for at_ms in plan.spread("pause"):
        plan.add(at_ms, "pause", shop.deactivate("paused", at_ms, number))
    for at_ms in plan.spread("delete"):
        plan.add(at_ms, "delete", shop.deactivate("dead", at_ms, number))
    for at_ms in plan.spread("erase"):
        plan.add(at_ms, "erase", _erase(plan))
    for at_ms in plan.spread("customer.edit"):
        expires = plan.draw.chance(EXPIRED_SHARE)
        customer = shop.deactivate("expired", at_ms, number) if expires else plan.any_customer()
        plan.add(at_ms, "customer.edit", customer)
    for at_ms in plan.spread("email.change"):
        plan.add(at_ms, "email.change", _change_address(plan, at_ms))


def _plan_cancellations(plan: WeekPlan) -> None:
    """Plan the cancellations by customers, then those by staff, some of which repeat the last one."""
    last, last_ms = NO_CUSTOMER, 0
    for at_ms in plan.spread(16):
        last, last_ms = plan.shop.deactivate("cancelled", at_ms, plan.number), at_ms
        plan.add(at_ms, 16, last)
    for at_ms in plan.spread(35):
        if last is not NO_CUSTOMER and plan.draw.chance(CANCELLED_TWICE):
            plan.add(last_ms + 3 * MINUTE, 35, last)
        else:
            plan.add(at_ms, 35, plan.shop.deactivate("cancelled", at_ms, plan.number))


def _erase(plan: WeekPlan) -> CustomerAccount:
    if not plan.shop.to_be_erased:
        return plan.activity.draw_evenly()
    customer = plan.shop.to_be_erased.pop(0)
    plan.activity.remove(customer)
    return customer


def _change_address(plan: WeekPlan, at_ms: int) -> CustomerAccount:
    """Change the address of a customer that may have another; its entry is written afterwards."""
    if not plan.shop.address_changers:
        return plan.activity.draw_evenly()
    customer = plan.draw.pick(plan.shop.address_changers)
    plan.shop.population.change_address(customer, len(customer.earlier_addresses))
    customer.updated_ms = max(customer.updated_ms, at_ms)
    return customer
