"""Orders while things happen to them: made when the week opens, changed by what customers do."""

from __future__ import annotations

from dataclasses import dataclass, field

from kiva_stream.sandbox.generator import words
from kiva_stream.sandbox.generator.draw import Draw
from kiva_stream.sandbox.generator.words import Box, Product

DELIVERY_CENTS = 495
MEDIAN_CENTS = 3800
SIGMA = 0.59  # 1 % of totals above $150
FREE_SHARE = 0.03  # promotion or credit
DIRTY_SHARE = 0.004  # orders whose stored items or totals are off


@dataclass(slots=True, eq=False)
class Order:
    """One customer's order of one delivery week."""

    id: int
    customer_id: int
    week: str  # Monday, ISO
    delivery: str  # date, ISO
    box: Box
    menu_items: int  # how many
    total_cents: int
    created_ms: int
    updated_ms: int
    status: str = "open"
    payment_status: str = "pending"
    closed_ms: int | None = None
    paid_ms: int | None = None
    discount_code: str | None = None
    email: str | None = None
    subs: list[tuple[Product, Product, int]] = field(default_factory=list)  # out, in, how many in
    addons: list[tuple[Product, int]] = field(default_factory=list)

    @property
    def is_paid(self) -> bool:
        """Whether it is paid, by either of the two columns that may say so."""
        return self.paid_ms is not None or self.payment_status in {"completed", "refunded"}

    @property
    def visible_items(self) -> int:
        """How many items the customer sees."""
        return self.menu_items + len(self.addons)


NO_ORDER = Order(
    id=0,
    customer_id=0,
    week="",
    delivery="",
    box=words.BOXES[0],
    menu_items=6,
    total_cents=0,
    created_ms=0,
    updated_ms=0,
)


def draw_total_cents(draw: Draw) -> int:
    """Draw what an order costs: log-normal, and some nothing."""
    return 0 if draw.chance(FREE_SHARE) else int(draw.spread(MEDIAN_CENTS, SIGMA))


def distort_total(order: Order, draw: Draw) -> None:
    """Make a few totals wrong: negative, or above $10,000."""
    if draw.chance(DIRTY_SHARE / 4):
        order.total_cents = draw.pick((-550, 1_250_000))
