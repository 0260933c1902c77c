"""What the text of an entry is made from: who, which order, when."""

from __future__ import annotations

from typing import NamedTuple

from kiva_stream.sandbox.generator.clock import Calendar
from kiva_stream.sandbox.generator.draw import Draw
from kiva_stream.sandbox.generator.orders import NO_ORDER, Order
from kiva_stream.sandbox.generator.population import NO_CUSTOMER, CustomerAccount


class Text(NamedTuple):
    """A structured row's text, and what of it must arrive."""

    action: str
    message: str
    data: str = "{}"  # JSON
    pairs: str = ""  # `key=value; ` each, in the order of the catalog; values need no cleaning


class Scene:
    """The stage on which one entry after the other is written; reused, so that it costs nothing."""

    __slots__ = ("actor", "calendar", "currency", "customer", "draw", "now_ms", "order", "stack")

    def __init__(self, draw: Draw, currency: str, calendar: Calendar) -> None:
        self.draw = draw
        self.currency = currency
        self.calendar = calendar
        self.customer: CustomerAccount = NO_CUSTOMER
        self.order: Order = NO_ORDER
        self.now_ms = 0
        self.actor = ""  # set by a text that knows better than its kind
        self.stack: str | None = None

    @property
    def mail(self) -> str:
        """The account's address as JSON; a visitor's is nobody's."""
        if self.customer is NO_CUSTOMER:
            return f'"visitor{self.draw.below(1_000_000)}@visitors.example"'
        key = self.customer.address.key
        return f'"{key}"' if key else "null"

    @property
    def ip(self) -> str:
        """An address of the documentation ranges (RFC 5737)."""
        return f"203.0.113.{self.draw.below(254) + 1}"

    def later(self) -> tuple[str, str]:
        """Return a coming delivery week of the account: its Monday and its delivery date."""
        week = 1 + self.draw.below(5)
        return self.calendar.mondays[week], self.calendar.date(week, self.customer.weekday)
