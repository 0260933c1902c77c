"""The scene of an entry: what its text is made from."""

from __future__ import annotations

from typing import NamedTuple

from kiva_stream.sandbox.generator.clock import Calendar
from kiva_stream.sandbox.generator.draw import Draw
from kiva_stream.sandbox.generator.orders import NO_ORDER, Order
from kiva_stream.sandbox.generator.population import NO_CUSTOMER, CustomerAccount


class Text(NamedTuple):
    """The text of a structured row, and the pairs of it that must arrive."""

    action: str
    message: str
    data: str = "{}"  # JSON
    pairs: str = ""  # `key=value; ` each, in the order of the event catalog; values need no cleaning
    actor: str = ""  # when it is not the usual one of the kind
    stack: str | None = None  # a stack trace


class Scene:
    """The customer, the order and the moment of an entry. One scene is reused for all entries of a week."""

    __slots__ = ("calendar", "currency", "customer", "draw", "now_ms", "order")

    def __init__(self, draw: Draw, currency: str, calendar: Calendar) -> None:
        self.draw = draw
        self.currency = currency
        self.calendar = calendar
        self.customer: CustomerAccount = NO_CUSTOMER
        self.order: Order = NO_ORDER
        self.now_ms = 0

    def begin(self, customer: CustomerAccount, order: Order, now_ms: int) -> None:
        """Change to the scene of another entry."""
        self.customer, self.order, self.now_ms = customer, order, now_ms

    @property
    def mail(self) -> str:
        """The customer's address as JSON; for a visitor, an address that no customer has."""
        if self.customer is NO_CUSTOMER:
            return f'"visitor{self.draw.below(1_000_000)}@visitors.example"'
        key = self.customer.address.key
        return f'"{key}"' if key else "null"

    @property
    def ip(self) -> str:
        """An address of the documentation ranges (RFC 5737)."""
        return f"203.0.113.{self.draw.below(254) + 1}"

    def coming_delivery(self) -> tuple[str, str]:
        """Return a coming delivery week of the customer: its Monday and its delivery date."""
        week = 1 + self.draw.below(5)
        return self.calendar.mondays[week], self.calendar.date(week, self.customer.weekday)
