"""Orders and their lines: made when the week opens, changed by what customers do, stored when settled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from kiva_stream.sandbox.generator import words
from kiva_stream.sandbox.generator.clock import stamp
from kiva_stream.sandbox.generator.draw import Draw
from kiva_stream.sandbox.generator.words import Box, Product

DELIVERY_CENTS = 495
MEDIAN_CENTS = 3800
SIGMA = 0.59  # 1 % of totals above $150
FREE_SHARE = 0.03  # promotion or credit
DIRTY_SHARE = 0.004  # orders whose stored lines or totals are off (domain.md 6.5, rows 34 to 38)
RECURRING_SHARE = 0.05  # add-ons that come by themselves
AUTO_SUB_SHARE = 0.1


@dataclass(slots=True, eq=False)
class Order:
    """One customer's order of one delivery week."""

    id: int
    customer_id: int
    week: str  # Monday, ISO
    delivery: str  # date, ISO
    box: Box
    menu_lines: int
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
    def lines(self) -> int:
        """How many lines the customer sees."""
        return self.menu_lines + len(self.addons)


NO_ORDER = Order(0, 0, "", "", words.BOXES[0], 6, 0, 0, 0)


def total_cents(draw: Draw) -> int:
    """Draw what an order costs: log-normal, and some for nothing."""
    return 0 if draw.chance(FREE_SHARE) else int(draw.spread(MEDIAN_CENTS, SIGMA))


def spoil(order: Order, draw: Draw) -> None:
    """Make a few totals impossible: negative, or above $10,000."""
    if draw.chance(DIRTY_SHARE / 4):
        order.total_cents = draw.pick((-550, 1_250_000))


class OrderText:
    """Writes settled orders of one site as lines of PostgreSQL's COPY text format."""

    def __init__(self, site_id: int, draw: Draw, first_item_id: int) -> None:
        self.orders = 0
        self.items = 0
        self._site_id = site_id
        self._draw = draw
        self._next_item_id = first_item_id

    def order(self, order: Order, addons: list[tuple[Product, int]]) -> str:
        """Return the row of `orders`, whose lines add up to its total wherever the shop's do."""
        lines_cents = order.box.price_cents + sum(product.price_cents * qty for product, qty in addons)
        over = lines_cents + DELIVERY_CENTS - order.total_cents
        discount = over if order.discount_code and over > 0 else 0
        kind = "normal" if order.total_cents else "promo"
        return (
            f"{order.id}\t{self._site_id}\t{order.customer_id}\t{order.week}\t{order.delivery}\t{order.status}"
            f"\t{order.payment_status}\t{kind}\t{self._site_id * 10 + order.box.id}\t{lines_cents}"
            f"\t{DELIVERY_CENTS}\t{discount}\t{max(over - discount, 0)}\t{order.total_cents}"
            f"\t{order.discount_code or NULL}\t{order.email or NULL}\t{stamp(order.created_ms)}"
            f"\t{_stamp(order.closed_ms)}\t{_stamp(order.paid_ms)}\t{stamp(order.updated_ms)}\n"
        )

    def rows(self, order: Order) -> tuple[str, str]:
        """Return the row of `orders` and the rows of `order_items`."""
        draw = self._draw
        addons = order.addons
        while draw.chance(RECURRING_SHARE):
            addons.append((draw.pick(words.PANTRY), 1))
        excess = order.total_cents - DELIVERY_CENTS - order.box.price_cents
        excess -= sum(product.price_cents * qty for product, qty in addons)
        if excess > 0:
            addons.append((words.EXTRA_SHARE._replace(price_cents=excess), 1))
        self.orders += 1
        row = self.order(order, addons)
        return row, "" if order.status == "skipped" else "".join(self._items(order, addons))

    def _items(self, order: Order, addons: list[tuple[Product, int]]) -> Iterator[str]:
        draw = self._draw
        dirt = draw.pick(("none", "name", "zero", "fraction")) if draw.chance(DIRTY_SHARE) else ""
        if dirt == "none":
            return
        produce, count = words.PRODUCE, len(words.PRODUCE)
        begin = draw.below(count)
        for n in range(order.menu_lines):
            yield self._item(order.id, produce[(begin + n * 7) % count], "menu", "1", 0)
        if draw.chance(AUTO_SUB_SHARE):
            order.subs.append((produce[begin], produce[begin - 1], 1))
        for out, new, qty in order.subs:
            yield self._item(order.id, out, "menu", "1", 0, removed=stamp(order.created_ms + 1))
            yield self._item(order.id, new, "sub", str(qty), 0, replaces=self._next_item_id - 1)
        for product, qty in addons:
            yield self._item(order.id, product, "addon", str(qty), product.price_cents)
        if dirt:
            name = "" if dirt == "name" else None
            yield self._item(order.id, _DIRTY_ITEM, "addon", _DIRTY_QTY[dirt], 0, name=name)

    def _item(
        self,
        order_id: int,
        product: Product,
        category: str,
        qty: str,
        price_cents: int,
        *,
        replaces: int | None = None,
        removed: str = r"\N",
        name: str | None = None,
    ) -> str:
        item_id = self._next_item_id
        self._next_item_id += 1
        self.items += 1
        return (
            f"{item_id}\t{order_id}\t{self._site_id * 1000 + product.id}"
            f"\t{product.name if name is None else name}\t{category}\t{qty}\t{price_cents}"
            f"\t{NULL if replaces is None else replaces}\t{removed}\n"
        )


NULL = r"\N"
_DIRTY_ITEM = words.PANTRY[0]
_DIRTY_QTY = {"name": "1", "zero": "0", "fraction": "1.5"}


def _stamp(ms: int | None) -> str:
    return NULL if ms is None else stamp(ms)
