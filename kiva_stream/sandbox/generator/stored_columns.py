"""Columns of a customer's row that follow from its history, some of them stale as in a real shop."""

from __future__ import annotations

from datetime import timedelta

from kiva_stream.sandbox.generator.mix import WEEKS
from kiva_stream.sandbox.generator.population import CustomerAccount, is_delivery_week
from kiva_stream.sandbox.generator.shop import Shop

STALE_EVERY = 100  # customers whose stored next delivery is in the past
LEFT_OVER_EVERY = 10  # cancelled customers whose next delivery stays stored
BOX_GONE_EVERY, BOX_GONE_FIRST = 200, 11  # customers


def next_delivery(shop: Shop, customer: CustomerAccount) -> str | None:
    """Return the next delivery as the shop has stored it, for some customers one in the past."""
    left_over = customer.status == "cancelled" and customer.id % LEFT_OVER_EVERY == 0
    if customer.frequency is None or not (customer.status == "active" or left_over):
        return None
    monday = shop.start + timedelta(weeks=WEEKS)
    if customer.id % STALE_EVERY == 0:
        monday -= timedelta(weeks=4)
    weeks = (monday + timedelta(weeks=n) for n in range(8))
    first = next((week for week in weeks if is_delivery_week(customer, week)), monday)
    return (first + timedelta(days=customer.weekday - 1)).isoformat()


def box_is_gone(customer: CustomerAccount) -> bool:
    """Whether the customer's box type has no row any more."""
    return customer.id % BOX_GONE_EVERY == BOX_GONE_FIRST
