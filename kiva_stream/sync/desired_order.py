"""The order that ActiveCampaign should show for an order of the shop: its desired state, without I/O."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from hashlib import blake2b

import msgspec

from kiva_stream.model.ids import ContactId, Email
from kiva_stream.model.orders import DesiredOrder, LineItem, Order, OrderItem, OrderSource
from kiva_stream.model.text_cleaning import clean

NO_NAME = "Unknown item"
MAX_NAME = 255
MAX_STATUS = 100
MAX_QUANTITY = 2**31 - 1  # GraphQL's Int

FINGERPRINT_BYTES = 16

_CATEGORIES = frozenset({"menu", "sub", "addon"})
_OTHER = "other"  # any other category
_NAME_ROOM = 220  # what MAX_NAME leaves for the name if a quantity is appended to it


def invalid(order: Order) -> str:
    """Return why an order cannot be sent; "" if it can."""
    return "its total is negative" if order.total_cents < 0 else ""


def order_source(order: Order, now: datetime, realtime_max_age_s: float) -> OrderSource:
    """Return whether automations may start on an order that was never sent, by the age of its payment."""
    if order.paid_at is None or now - order.paid_at > timedelta(seconds=realtime_max_age_s):
        return OrderSource.HISTORICAL
    return OrderSource.REAL_TIME


def desired_order(
    order: Order, email: Email, *, currency: str, source: OrderSource, was_accepted: bool
) -> DesiredOrder:
    """Return an order as ActiveCampaign should show it, for the contact of `email`.

    `currency` has three capital letters. With `was_accepted`, ActiveCampaign accepted the order before. The
    shop's total is sent as it is, whether or not the items add up to it. ActiveCampaign's amounts are not
    negative ("Orders" in its API reference): a negative price or discount becomes 0.
    """
    items = [item for item in order.items if 0 < _known(item.qty) <= MAX_QUANTITY]
    lines = tuple(map(_line, items))
    discounts = order.discount_cents + order.credit_cents
    oddities = {
        "other_category": sum(line.category == _OTHER for line in lines),
        "negative_price": sum(item.unit_price_cents < 0 for item in items),
        "negative_discount": int(discounts < 0),
    }
    return DesiredOrder(
        id=order.id,
        customer_id=order.customer_id,
        email=email,
        created_at=order.created_at,
        normalized_status=_normalized_status(order, was_accepted),
        store_status=clean(order.status)[:MAX_STATUS],
        currency=currency,
        total_cents=order.total_cents,
        discounts_cents=max(0, discounts),
        source=source,
        lines=lines,
        notes=tuple(note for note, count in oddities.items() for _ in range(count)),
    )


def fingerprint(desired: DesiredOrder, contact: ContactId) -> bytes:
    """Return 16 bytes that change whenever the order must be sent again.

    They do not depend on the address, since an order stays with its contact when that is renamed. They depend
    on the contact: an order that gets another one is sent again.
    """
    shown = msgspec.structs.replace(desired, email=Email(""), notes=())
    return blake2b(msgspec.json.encode((shown, contact)), digest_size=FINGERPRINT_BYTES).digest()


def _normalized_status(order: Order, was_accepted: bool) -> str:
    if order.payment_status == "refunded":
        return "REFUNDED"
    if order.status in {"cancelled", "skipped"}:
        return "CANCELLED"
    # An order that is not paid is sent only if it was accepted before: see `OrderChanges`.
    return "FAILED" if was_accepted and not order.is_paid else "COMPLETED"


def _known(qty: Decimal) -> Decimal:
    """Return a quantity, 0 for PostgreSQL's NaN and infinities."""
    return qty if qty.is_finite() else Decimal(0)


def _line(item: OrderItem) -> LineItem:
    """Return an item as a line item.

    ActiveCampaign's quantities are whole numbers: 1.5 lb become one thing, with the quantity in its name.
    """
    is_whole = item.qty == item.qty.to_integral_value()
    price = Decimal(item.unit_price_cents) if is_whole else item.qty * item.unit_price_cents
    return LineItem(
        id=str(item.id),
        product_id="" if item.product_id is None else str(item.product_id),
        name=_name(item, is_whole),
        category=item.category if item.category in _CATEGORIES else _OTHER,
        quantity=int(item.qty) if is_whole else 1,
        price_cents=max(0, int(price.to_integral_value(ROUND_HALF_UP))),
    )


def _name(item: OrderItem, is_whole: bool) -> str:
    name = clean(item.name) or NO_NAME
    if not is_whole:
        name = f"{name[:_NAME_ROOM].rstrip()} ({item.qty.normalize():f})"
    return name[:MAX_NAME].rstrip()
