"""Rows of the log from planned entries: their actor, their clock, and one of three generations of texts.

| generation | weeks | a text |
|---|---|---|
| G1 | 1 to 13 | `Ann Lee logged in via cookie` |
| G2 | 14 to 30 | `Customer #5123 (Ann Lee) logged in via cookie`, often with the id in the text alone |
| structured | 31 to 52 | `Logged in via cookie`, with action and data |
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from kiva_stream.sandbox.generator import words
from kiva_stream.sandbox.generator.clock import HOUR, SECOND, Calendar
from kiva_stream.sandbox.generator.mix import EXPIRED_LINK, Key, Kind
from kiva_stream.sandbox.generator.population import NO_CUSTOMER, CustomerAccount
from kiva_stream.sandbox.generator.scene import Scene, Text
from kiva_stream.sandbox.generator.shop import Shop
from kiva_stream.sandbox.generator.week import PlannedEntry

G2_WEEK, STRUCTURED_WEEK = 13, 30
NULL_ID_SHARE = 0.4  # of G2
SKEWS_MS = (0, 2_500, -40_000)  # of the three web nodes
AS_CUSTOMER_SHARE = 0.008  # staff that is logged in as the customer
UNUSUAL_ACTOR_SHARE = 0.06  # staff, where customers are the usual actor
VARIANT_SHARE = 0.01  # of spellings
PHRASE_SHARE = 0.25  # of legacy texts that have another phrase


class Row(msgspec.Struct, gc=False):
    """A row of `system_log`, and what the ground truth follows from."""

    site_id: int
    occurred_ms: int
    inserted_ms: int
    severity: str
    category: str
    action: str | None
    customer_id: int | None
    actor: str | None
    staff: str | None
    message: str
    data: str | None
    stack: str | None
    order_id: int
    # for the ground truth alone
    shop: Shop
    kind: Kind
    sort: str  # event | sync_only | noise
    customer: CustomerAccount
    pairs: str  # `key=value; ` each
    reason: str = ""  # wrong_site | no_customer | no_account: decides the outcome, whatever the customer is
    dirt: str = ""  # what is malformed in it


# Other phrases for the same event, filled from the pairs of the structured text.
_PHRASES: dict[Key, tuple[str, ...]] = {
    3: ("expired magic link",),
    8: ("subbed {out} for {in}",),
    9: ("unsubbed {restored}", "made an un-substitution: {restored} restored"),
    10: ("added {item} to order #{order}", "added an add-on to order #{order}: {item}"),
    11: ("removed {item} from order #{order}",),
    13: ("created an order from welcome page: #{order}",),
    14: ("changed box: {from} -> {to}",),
    15: ("skipped order #{order}",),
    16: ("cancelled her account: {reason}", "cancelled their account"),
    17: ("thinking of skipping order #{order}",),
    18: ("gift certificate redeemed: ${amount}",),
    19: ("used coupon code {code}", "used discount code {code}"),
    20: ("submitted the contact form: {topic}",),
    22: ("promo account activated",),
    23: ("updated credit card",),
    24: ("resubscribed to emails",),
    25: ("unsubscribed from weekly menu",),
    26: ("updated delivery notes",),
    27: ("added a delivery to schedule: {delivery}",),
    28: ("told friends: {count} emails",),
    29: ("skipped a delivery on schedule: {delivery}",),
    30: ("changed delivery address", "changed address"),
    31: ("reset her password",),
    33: ("added a birthday",),
    34: ("updated schedule frequency",),
    41: ("payment of ${total} successful", "payment successful"),
}
_VARIANTS: dict[Key, tuple[str, str]] = {
    9: ("un-substition", "un-substitution"),
    10: ("add-on", "add on"),
    16: ("ancelled", "anceled"),
    32: ("ancelled", "anceled"),
    35: ("ancelled", "anceled"),
}


class RowWriter:
    """Writes the rows of one week of one shop."""

    def __init__(self, shop: Shop, week: int, calendar: Calendar) -> None:
        self._shop = shop
        self._draw = shop.draw
        self._scene = Scene(shop.draw, shop.site.currency.upper(), calendar)
        self._repeated = calendar.repeated_hour()
        self._legacy: Callable[[Row, Text], None] | None = self._g1 if week < G2_WEEK else self._g2
        if week >= STRUCTURED_WEEK:
            self._legacy = None

    def write(self, planned: PlannedEntry) -> Row:
        """Return the row of a planned entry, and change its customer and order as its text says."""
        scene, kind = self._scene, planned.kind
        scene.begin(planned.customer, planned.order, planned.at_ms)
        text = kind.writer(scene)
        actor, staff = self._actor(kind, text)
        row = Row(
            site_id=self._shop.site.id,
            occurred_ms=planned.at_ms - self._draw.below(40) + self._skew(kind, actor),
            inserted_ms=planned.at_ms,
            severity=kind.severity,
            category=kind.category,
            action=text.action,
            customer_id=planned.customer.id or None,
            actor=actor,
            staff=staff,
            message=text.message,
            data=text.data,
            stack=text.stack,
            order_id=planned.order.id,
            shop=self._shop,
            kind=kind,
            sort=kind.sort,
            customer=planned.customer,
            pairs=text.pairs,
        )
        if kind.sort == "event" and planned.customer is NO_CUSTOMER:
            row.reason = "no_account"
        if self._legacy:
            self._make_legacy(row, text)
            self._legacy(row, text)
        return row

    def _actor(self, kind: Kind, text: Text) -> tuple[str, str | None]:
        draw, actors = self._draw, kind.actors
        actor = text.actor or actors[0]
        if len(actors) > 1 and not text.actor and draw.random() < UNUSUAL_ACTOR_SHARE:
            actor = draw.pick(actors[1:])
        if actor == "customer" and draw.random() < AS_CUSTOMER_SHARE:
            actor = "admin"
        return actor, draw.pick(words.STAFF) if actor == "admin" else None

    def _skew(self, kind: Kind, actor: str) -> int:
        """Return the error of the writer's clock. The text of an expired link counts minutes: it has none."""
        if actor == "system" or kind.key == EXPIRED_LINK:
            return 0
        return SKEWS_MS[self._draw.below(3)]

    def _make_legacy(self, row: Row, text: Text) -> None:
        """Change a row to one of the time before the structured log."""
        row.action = row.actor = row.data = None
        row.pairs = ""
        if row.sort == "sync_only":
            row.sort = "noise"
        if row.occurred_ms in self._repeated:
            row.occurred_ms -= HOUR  # a local wall clock cannot tell the two hours apart
        key = row.kind.key
        if key in _PHRASES and self._draw.random() < PHRASE_SHARE:
            row.message = _phrase(self._draw.pick(_PHRASES[key]), text.pairs)
        if key in _VARIANTS and self._draw.random() < VARIANT_SHARE:
            row.message = row.message.replace(*_VARIANTS[key])

    def _g1(self, row: Row, _: Text) -> None:
        name = row.customer.name
        if row.sort == "event" and name and row.kind.actors[0] == "customer":
            row.message = f"{name} {_lower_first(row.message)}"
        elif row.sort == "event":
            row.message = row.message[:1].upper() + row.message[1:]

    def _g2(self, row: Row, _: Text) -> None:
        if row.customer is NO_CUSTOMER or row.kind.sort == "noise":
            return
        row.message = f"Customer #{row.customer.id} ({row.customer.name}) {_lower_first(row.message)}"
        if self._draw.random() < NULL_ID_SHARE:
            row.customer_id = None


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _phrase(phrase: str, pairs: str) -> str:
    values = dict(pair.split("=", 1) for pair in pairs.split("; ")[:-1])
    return phrase.format_map(values)


def is_wild(row: Row) -> bool:
    """Whether the row's own time cannot be right: after its insertion, or before the shop's launch."""
    return row.occurred_ms > row.inserted_ms + 300 * SECOND or row.occurred_ms < row.shop.launched_ms
