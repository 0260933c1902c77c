"""Entries of a log, and what they become, by their place in the log (1, 2, 3 …).

The transaction of an entry grows with its place and its id falls, so that a test fails if ids are taken for
an order.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from kiva_stream.model.classifications import Event
from kiva_stream.model.contacts import Contact, ContactStatus
from kiva_stream.model.customers import Customer, CustomerAccount
from kiva_stream.model.deliveries import Batch, Delivery
from kiva_stream.model.entries import Entry
from kiva_stream.model.event_catalog import CATALOG
from kiva_stream.model.ids import ContactId, CustomerId, Email
from kiva_stream.model.outcomes import Span
from kiva_stream.model.positions import HighWaterMark, Position
from kiva_stream.model.site import Site

SITE = Site(
    id=1,
    name="Green Box",
    timezone="America/Chicago",
    currency="USD",
    admin_base_url="https://shop.example.com/admin",
    launched_at=datetime(2017, 12, 1, tzinfo=UTC),
)
FIRST_MOMENT = datetime(2018, 3, 4, 17, tzinfo=UTC)
HIGHEST_ID = 10_000
LOGGED_OUT = next(line for line in CATALOG.events if line.actions == ("logout",))
EVENT, SYNC_ONLY, NOISE = "logout", "order.closed", "email.menu"  # an action of each class


def position(place: int) -> Position:
    """Return the position of the entry at a place of the log: its id falls while its transaction grows."""
    return Position(place, HIGHEST_ID - place)


def place_of(where: Position) -> int:
    """Return the place in the log of a position."""
    return where.txid


def moment(second: float) -> datetime:
    """Return a moment, so many seconds after the first."""
    return FIRST_MOMENT + timedelta(seconds=second)


def customer(number: int, **changes: object) -> Customer:
    """Return a customer with an address of their own, but for the changes."""
    email = Email(f"customer{number}@example.org")
    return replace(Customer(CustomerId(number), SITE.id, email, f"Ann {number}", False, False), **changes)


def account(who: Customer, **changes: object) -> CustomerAccount:
    """Return a customer's account, active and opted in, but for the changes."""
    return replace(CustomerAccount(who, "Ann", str(who.id), "", "active", None, True, False), **changes)


def entry(place: int, who: Customer, **changes: object) -> Entry:
    """Return the entry at a place of the log: an event, a second after the entry before, with these changes.

    No two entries have the same message, so that none is a duplicate.
    """
    when = moment(place)
    row = Entry(position(place), when, when, EVENT, "customer", None, f"entry {place}", None, who.id, who)
    return replace(row, **changes)


def event(place: int, **changes: object) -> Event:
    """Return the classification that the entry at a place is an event."""
    return replace(Event(LOGGED_OUT, eventdata(place)), **changes)


def eventdata(place: int) -> str:
    """Return the eventdata of an event at a place."""
    return f"at=2018-03-04T17:00:00Z; log={HIGHEST_ID - place}"


def place_in(data: str) -> int:
    """Return the place that is named in eventdata."""
    return HIGHEST_ID - int(data.rpartition("log=")[2])


def contact(number: int = 1, status: ContactStatus = ContactStatus.LINKED, why: str = "") -> Contact:
    """Return a contact, linked unless said otherwise."""
    return Contact(ContactId(number), Email(f"customer{number}@example.org"), status, why)


def delivery(place: int, span: Span, *, is_event: bool = True, notes: tuple[str, ...] = ()) -> Delivery:
    """Return the delivery of the entry at a place: an event, or sync-only."""
    line = LOGGED_OUT if is_event else None
    data = eventdata(place) if is_event else ""
    return Delivery(position(place), moment(place), span, CustomerId(1), line, data, notes)


def batch(whose: Contact, *deliveries: Delivery) -> Batch:
    """Return a batch."""
    return Batch(whose, list(deliveries))


def up_to(place: int) -> HighWaterMark:
    """Return the mark that ends with the entry at a place."""
    return HighWaterMark(position(place), moment(1e6))
