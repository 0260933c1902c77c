"""Orders: as the shop has them, as ActiveCampaign should show them, and as it shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

import msgspec

from kiva_stream.model.ids import CustomerId, Email, OrderId

NEVER = datetime(1970, 1, 1, tzinfo=UTC)  # the `accepted_at` of an order that ActiveCampaign never accepted


class OrderItem(msgspec.Struct, frozen=True):
    """A row of `order_items` that was not removed."""

    id: int
    product_id: int | None
    name: str
    category: str
    qty: Decimal
    unit_price_cents: int


class Order(msgspec.Struct, frozen=True):
    """An order as it stands now, with its items in the order of their ids."""

    id: OrderId
    customer_id: CustomerId
    status: str  # open | closed | complete | cancelled | skipped
    payment_status: str  # pending | completed | failed | refunded | none
    created_at: datetime
    paid_at: datetime | None
    total_cents: int
    discount_cents: int
    credit_cents: int
    items: tuple[OrderItem, ...] = ()

    @property
    def is_paid(self) -> bool:
        """Whether the order belongs at ActiveCampaign, even if it was never sent."""
        return self.paid_at is not None or self.payment_status in {"completed", "refunded"}


class OrderSource(StrEnum):
    """Whether automations may start on an order; decided when it is first sent, and kept."""

    HISTORICAL = "HISTORICAL"
    REAL_TIME = "REAL_TIME"


class LineItem(msgspec.Struct, frozen=True):
    """A line item as ActiveCampaign should show it."""

    id: str
    product_id: str
    name: str
    category: str  # menu | sub | addon | other
    quantity: int
    price_cents: int  # of one


class DesiredOrder(msgspec.Struct, frozen=True):
    """An order as ActiveCampaign should show it."""

    id: OrderId
    customer_id: CustomerId
    email: Email
    created_at: datetime
    normalized_status: str  # COMPLETED | REFUNDED | CANCELLED | FAILED
    store_status: str
    currency: str
    total_cents: int
    discounts_cents: int  # discounts and credits
    source: OrderSource
    lines: tuple[LineItem, ...] = ()
    notes: tuple[str, ...] = ()  # what was odd about its rows; counted, not sent


class ShownOrder(msgspec.Struct, frozen=True):
    """An order as ActiveCampaign shows it; "" for what is missing there."""

    customer_id: str
    created_at: str  # as it was sent
    normalized_status: str
    store_status: str
    currency: str
    total_cents: Decimal
    discounts_cents: Decimal
    source: str
    lines: tuple[tuple[str, str, str, str, int, Decimal], ...]  # the attributes of a LineItem


class SentOrder(msgspec.Struct, frozen=True):
    """What ActiveCampaign last accepted, or refused, of an order."""

    id: OrderId
    source: OrderSource
    fingerprint: bytes
    accepted_at: datetime
    refused: str = ""  # why ActiveCampaign refused it, or why it was not sent; "": it accepted the order

    @property
    def was_accepted(self) -> bool:
        """Whether ActiveCampaign ever accepted the order, also if it refused what was sent last."""
        return self.accepted_at != NEVER


class BatchLimit(NamedTuple):
    """How many orders a request may have."""

    size: int
    ceiling: int  # the size does not grow above it
    refused_at: datetime | None = None  # when ActiveCampaign last refused a batch for its size; None: never
