"""Orders as they are stored when nothing more happens to them: with items, amounts, and some that are off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kiva_stream.sandbox.generator import words
from kiva_stream.sandbox.generator.draw import Draw
from kiva_stream.sandbox.generator.orders import DELIVERY_CENTS, DIRTY_SHARE, Order
from kiva_stream.sandbox.generator.words import Product

CATEGORY_SHARE = 0.002  # orders with an item of a category that the contract does not have
EDITED_SHARE = 0.004  # paid orders that staff changed by hand, without an entry in the log
RECURRING_SHARE = 0.05  # add-ons that come by themselves
AUTO_SUB_SHARE = 0.1
_DIRTY_ITEM = words.PANTRY[0]
_DIRTY_QTY = {"name": "1", "zero": "0", "fraction": "1.5"}


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
    """An order ready to be stored, with the columns that are derived when it is."""

    order: Order
    subtotal_cents: int
    discount_cents: int
    credit_cents: int
    items: list[Item]


class OrderCompleter:
    """Completes the finished orders of one site."""

    def __init__(self, site_id: int, *, draw: Draw, manual_edits: Draw, first_item_id: int) -> None:
        """`draw` is the shop's source of randomness, `manual_edits` that of what staff changed by hand."""
        self.orders = 0
        self.items = 0
        self._site_id = site_id
        self._draw = draw
        self._manual_edits = manual_edits
        self._next_item_id = first_item_id

    def complete(self, order: Order) -> StoredOrder:
        """Return an order as it is to be stored: with items and amounts that add up to its total."""
        draw, addons = self._draw, order.addons
        while draw.chance(RECURRING_SHARE):
            addons.append((draw.pick(words.PANTRY), 1))
        excess = order.total_cents - DELIVERY_CENTS - order.box.price_cents
        excess -= sum(product.price_cents * qty for product, qty in addons)
        if excess > 0:
            addons.append((words.EXTRA_SHARE._replace(price_cents=excess), 1))
        subtotal_cents = order.box.price_cents + sum(product.price_cents * qty for product, qty in addons)
        over = subtotal_cents + DELIVERY_CENTS - order.total_cents
        discount = over if order.discount_code and over > 0 else 0
        items = [] if order.status == "skipped" else list(self._items(order, addons))
        if order.is_paid and self._manual_edits.chance(EDITED_SHARE):
            _edit_by_hand(order, self._manual_edits)
        self.orders += 1
        self.items += len(items)
        return StoredOrder(
            order=order,
            subtotal_cents=subtotal_cents,
            discount_cents=discount,
            credit_cents=max(over - discount, 0),
            items=items,
        )

    def _items(self, order: Order, addons: list[tuple[Product, int]]) -> Iterator[Item]:
        draw = self._draw
        dirt = draw.pick(("none", "name", "zero", "fraction")) if draw.chance(DIRTY_SHARE) else ""
        if dirt == "none":
            return
        produce, count = words.PRODUCE, len(words.PRODUCE)
        begin = draw.below(count)
        for n in range(order.menu_items):
            yield self._item(produce[(begin + n * 7) % count], "menu", "1")
        if draw.chance(AUTO_SUB_SHARE):
            order.subs.append((produce[begin], produce[begin - 1], 1))
        for out, new, qty in order.subs:
            yield self._item(out, "menu", "1", removed=True)
            yield self._item(new, "sub", str(qty), replaces=self._next_item_id - 1)
        for product, qty in addons:
            yield self._item(product, "addon", str(qty), price_cents=product.price_cents)
        if dirt:
            product = _DIRTY_ITEM._replace(name="") if dirt == "name" else _DIRTY_ITEM
            yield self._item(product, "addon", _DIRTY_QTY[dirt], price_cents=product.price_cents)
        if self._manual_edits.chance(CATEGORY_SHARE):
            yield self._item(_DIRTY_ITEM, "gift", "1")

    def _item(
        self,
        product: Product,
        category: str,
        qty: str,
        *,
        price_cents: int = 0,
        replaces: int | None = None,
        removed: bool = False,
    ) -> Item:
        item_id = self._next_item_id
        self._next_item_id += 1
        return Item(
            id=item_id,
            product_id=self._site_id * 1000 + product.id,
            name=product.name,
            category=category,
            qty=qty,
            price_cents=price_cents,
            replaces=replaces,
            removed=removed,
        )


def _edit_by_hand(order: Order, draw: Draw) -> None:
    """Change a paid order so that its status and its payment contradict each other."""
    order.status, order.payment_status, order.paid_ms = draw.pick(
        (
            ("cancelled", "completed", order.paid_ms),
            ("cancelled", "none", order.paid_ms),
            ("cancelled", "refunded", order.paid_ms),
            ("complete", "failed", order.paid_ms),  # charged back
            ("closed", "completed", None),
            ("open", "completed", order.paid_ms),  # also of weeks long over
        )
    )
