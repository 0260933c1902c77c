"""Orders and their lines: made when the week opens, changed by what customers do, stored when settled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from kiva_stream.sandbox.generator import words
from kiva_stream.sandbox.generator.clock import stamp
from kiva_stream.sandbox.generator.draw import Draw
from kiva_stream.sandbox.generator.words import Box, Product

DELIVERY_CENTS = 495
MEDIAN_CENTS = 3800
SIGMA = 0.59  # 1 % of totals above $150
FREE_SHARE = 0.03  # promotion or credit
DIRTY_SHARE = 0.004  # orders whose stored lines or totals are off (domain.md 6.5, rows 34 to 38)
CATEGORY_SHARE = 0.002  # orders with a line of another category (row 37)
EDITED_SHARE = 0.004  # paid orders that somebody changed by hand, without a word in the log
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
    menu_items: int
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
        """Whether it is paid, in one way or the other of saying so (domain.md 0.11)."""
        return self.paid_ms is not None or self.payment_status in {"completed", "refunded"}

    @property
    def lines(self) -> int:
        """How many lines the customer sees."""
        return self.menu_items + len(self.addons)


NO_ORDER = Order(0, 0, "", "", words.BOXES[0], 6, 0, 0, 0)


def total_cents(draw: Draw) -> int:
    """Draw what an order costs: log-normal, and some for nothing."""
    return 0 if draw.chance(FREE_SHARE) else int(draw.spread(MEDIAN_CENTS, SIGMA))


def spoil(order: Order, draw: Draw) -> None:
    """Make a few totals impossible: negative, or above $10,000."""
    if draw.chance(DIRTY_SHARE / 4):
        order.total_cents = draw.pick((-550, 1_250_000))


class Item(NamedTuple):
    """A row of `order_items`."""

    id: int
    product_id: int
    name: str
    category: str
    qty: str  # `1`, `0`, `1.5`
    price_cents: int  # of one
    replaces: int | None = None
    removed: bool = False


class StoredOrder(NamedTuple):
    """An order that goes into the database, with what was worked out for it."""

    order: Order
    lines_cents: int
    discount_cents: int
    credit_cents: int
    items: list[Item]


class OrderText:
    """Settles orders of one site, and writes them as lines of PostgreSQL's COPY text format."""

    def __init__(self, site_id: int, draw: Draw, manual_edits: Draw, first_item_id: int) -> None:
        """`draw` is the shop's own chance; `touch` decides what somebody did to an order afterwards."""
        self.orders = 0
        self.items = 0
        self._site_id = site_id
        self._draw = draw
        self._manual_edits = manual_edits
        self._next_item_id = first_item_id

    def settle(self, order: Order) -> StoredOrder:
        """Return an order as it is to be stored; its total is what it costs, wherever the shop's adds up."""
        draw, addons = self._draw, order.addons
        while draw.chance(RECURRING_SHARE):
            addons.append((draw.pick(words.PANTRY), 1))
        excess = order.total_cents - DELIVERY_CENTS - order.box.price_cents
        excess -= sum(product.price_cents * qty for product, qty in addons)
        if excess > 0:
            addons.append((words.EXTRA_SHARE._replace(price_cents=excess), 1))
        lines_cents = order.box.price_cents + sum(product.price_cents * qty for product, qty in addons)
        over = lines_cents + DELIVERY_CENTS - order.total_cents
        discount = over if order.discount_code and over > 0 else 0
        items = [] if order.status == "skipped" else list(self._items(order, addons))
        if order.is_paid and self._manual_edits.chance(EDITED_SHARE):
            _manual_edits(order, self._manual_edits)
        self.orders += 1
        self.items += len(items)
        return StoredOrder(order, lines_cents, discount, max(over - discount, 0), items)

    def row(self, settled: StoredOrder) -> str:
        """Return the row of `orders`."""
        order, lines_cents, discount, credit, _ = settled
        kind = "normal" if order.total_cents else "promo"
        return (
            f"{order.id}\t{self._site_id}\t{order.customer_id}\t{order.week}\t{order.delivery}\t{order.status}"
            f"\t{order.payment_status}\t{kind}\t{self._site_id * 10 + order.box.id}\t{lines_cents}"
            f"\t{DELIVERY_CENTS}\t{discount}\t{credit}\t{order.total_cents}"
            f"\t{order.discount_code or NULL}\t{order.email or NULL}\t{stamp(order.created_ms)}"
            f"\t{_stamp(order.closed_ms)}\t{_stamp(order.paid_ms)}\t{stamp(order.updated_ms)}\n"
        )

    def item_rows(self, settled: StoredOrder) -> str:
        """Return the rows of `order_items`."""
        order = settled.order
        removed = stamp(order.created_ms + 1)
        return "".join(
            [
                f"{item.id}\t{order.id}\t{item.product_id}\t{item.name}\t{item.category}\t{item.qty}"
                f"\t{item.price_cents}\t{NULL if item.replaces is None else item.replaces}"
                f"\t{removed if item.removed else NULL}\n"
                for item in settled.items
            ]
        )

    def _items(self, order: Order, addons: list[tuple[Product, int]]) -> Iterator[Item]:
        draw = self._draw
        dirt = draw.pick(("none", "name", "zero", "fraction")) if draw.chance(DIRTY_SHARE) else ""
        if dirt == "none":
            return
        produce, count = words.PRODUCE, len(words.PRODUCE)
        begin = draw.below(count)
        for n in range(order.menu_items):
            yield self._item(produce[(begin + n * 7) % count], "menu", "1", 0)
        if draw.chance(AUTO_SUB_SHARE):
            order.subs.append((produce[begin], produce[begin - 1], 1))
        for out, new, qty in order.subs:
            yield self._item(out, "menu", "1", 0, removed=True)
            yield self._item(new, "sub", str(qty), 0, replaces=self._next_item_id - 1)
        for product, qty in addons:
            yield self._item(product, "addon", str(qty), product.price_cents)
        if dirt:
            product = _DIRTY_ITEM._replace(name="") if dirt == "name" else _DIRTY_ITEM
            yield self._item(product, "addon", _DIRTY_QTY[dirt], product.price_cents)
        if self._manual_edits.chance(CATEGORY_SHARE):
            yield self._item(_DIRTY_ITEM, "gift", "1", 0)

    def _item(
        self,
        product: Product,
        category: str,
        qty: str,
        price_cents: int,
        *,
        replaces: int | None = None,
        removed: bool = False,
    ) -> Item:
        item_id = self._next_item_id
        self._next_item_id += 1
        product_id = self._site_id * 1000 + product.id
        return Item(item_id, product_id, product.name, category, qty, price_cents, replaces, removed)


def _manual_edits(order: Order, draw: Draw) -> None:
    """Leave a paid order as hands leave it: its status says one thing, its payment another."""
    order.status, order.payment_status, order.paid_ms = draw.pick(
        (
            ("cancelled", "completed", order.paid_ms),
            ("cancelled", "none", order.paid_ms),
            ("cancelled", "refunded", order.paid_ms),
            ("complete", "failed", order.paid_ms),  # charged back
            ("closed", "completed", None),
            ("open", "completed", order.paid_ms),  # also of weeks long over (row 48)
        )
    )


NULL = r"\N"
_DIRTY_ITEM = words.PANTRY[0]
_DIRTY_QTY = {"name": "1", "zero": "0", "fraction": "1.5"}


def _stamp(ms: int | None) -> str:
    return NULL if ms is None else stamp(ms)
