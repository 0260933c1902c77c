"""The orders that must be at ActiveCampaign when a backfill is done, told by who made them.

Paid ones of customers with a contact (domain.md 0.11), as product.md maps them and rows 34 to 38 of domain.md
6.5 have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kiva_stream.sandbox.generator.clock import instant
from kiva_stream.sandbox.generator.orders import Item, StoredOrder

NO_NAME = "Unknown item"
_PAID_STATUS = {"cancelled": "CANCELLED", "skipped": "CANCELLED"}
_CATEGORIES = {"menu", "sub", "addon"}


class ExpectedOrder(NamedTuple):
    """A row of the ground truth's `order_row`."""

    site_id: int
    order_id: int
    customer_id: int
    normalized_status: str
    currency: str
    total_cents: int
    discounts_cents: int  # and credits
    created_at: str  # in whole seconds, UTC
    paid_ms: int | None  # decides on the source, with the time of the first sending


class ExpectedItem(NamedTuple):
    """A row of the ground truth's `order_line`."""

    site_id: int
    order_id: int
    line_id: int
    product_id: int
    name: str
    category: str
    quantity: int
    price_cents: int  # of one


def expected_order(site_id: int, currency: str, settled: StoredOrder) -> ExpectedOrder | None:
    """Return what must arrive of the order of a customer with a contact; None: nothing may."""
    order = settled.order
    if not order.is_paid or order.total_cents < 0 or not settled.items:
        return None
    refunded = order.payment_status == "refunded"
    return ExpectedOrder(
        site_id,
        order.id,
        order.customer_id,
        "REFUNDED" if refunded else _PAID_STATUS.get(order.status, "COMPLETED"),
        currency.strip().upper(),
        order.total_cents,
        settled.discount_cents + settled.credit_cents,
        instant(order.created_ms),
        order.paid_ms,
    )


def expected_items(site_id: int, settled: StoredOrder) -> Iterator[ExpectedItem]:
    """Yield the lines that must arrive with it: what is not removed, in whole numbers."""
    for item in settled.items:
        if not item.removed and item.qty != "0":
            yield _line(site_id, settled.order.id, item)


def _line(site_id: int, order_id: int, item: Item) -> ExpectedItem:
    name, quantity, price_cents = item.name or NO_NAME, item.qty, item.price_cents
    if item.qty == "1.5":
        name, quantity, price_cents = f"{name} (1.5)", "1", (item.price_cents * 3 + 1) // 2
    category = item.category if item.category in _CATEGORIES else "other"
    return ExpectedItem(
        site_id, order_id, item.id, item.product_id, name, category, int(quantity), price_cents
    )
