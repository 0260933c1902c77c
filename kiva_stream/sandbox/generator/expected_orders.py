"""The orders that must be at ActiveCampaign after a backfill: the paid ones of customers with a contact."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kiva_stream.sandbox.generator.clock import instant
from kiva_stream.sandbox.generator.stored_orders import Item, StoredOrder

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
    item_id: int
    product_id: int
    name: str
    category: str
    quantity: int
    price_cents: int  # of one


def expected_order(site_id: int, currency: str, stored: StoredOrder) -> ExpectedOrder | None:
    """Return what must arrive of the order of a customer with a contact, or None if nothing may."""
    order = stored.order
    if not order.is_paid or order.total_cents < 0 or not stored.items:
        return None
    refunded = order.payment_status == "refunded"
    return ExpectedOrder(
        site_id=site_id,
        order_id=order.id,
        customer_id=order.customer_id,
        normalized_status="REFUNDED" if refunded else _PAID_STATUS.get(order.status, "COMPLETED"),
        currency=currency.strip().upper(),
        total_cents=order.total_cents,
        discounts_cents=stored.discount_cents + stored.credit_cents,
        created_at=instant(order.created_ms),
        paid_ms=order.paid_ms,
    )


def expected_items(site_id: int, stored: StoredOrder) -> Iterator[ExpectedItem]:
    """Yield the items that must arrive with it: those that are not removed, in whole numbers."""
    for item in stored.items:
        if not item.removed and item.qty != "0":
            yield _item(site_id, stored.order.id, item)


def _item(site_id: int, order_id: int, item: Item) -> ExpectedItem:
    name, quantity, price_cents = item.name or NO_NAME, item.qty, item.price_cents
    if item.qty == "1.5":
        name, quantity, price_cents = f"{name} (1.5)", "1", (item.price_cents * 3 + 1) // 2
    category = item.category if item.category in _CATEGORIES else "other"
    return ExpectedItem(
        site_id=site_id,
        order_id=order_id,
        item_id=item.id,
        product_id=item.product_id,
        name=name,
        category=category,
        quantity=int(quantity),
        price_cents=price_cents,
    )
