"""Ann, a customer, with her site, her account, and entries about her: for tests of the pure parts."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from msgspec.structs import replace

from kiva_stream.events.classifier import Classifier
from kiva_stream.model.classifications import Classification, Event
from kiva_stream.model.customers import Customer, CustomerAccount
from kiva_stream.model.entries import Entry
from kiva_stream.model.event_catalog import CATALOG
from kiva_stream.model.ids import CustomerId, Email
from kiva_stream.model.positions import Position
from kiva_stream.model.site import Site

SITE = Site(
    id=1,
    name="Green Box",
    timezone="America/Chicago",
    currency="USD",
    admin_base_url="https://shop.example.com/admin",
    launched_at=datetime(2017, 12, 1, 6, tzinfo=UTC),
)
ANN = Customer(
    id=CustomerId(5123),
    site_id=SITE.id,
    email=Email("ann@example.com"),
    name="Ann Lee",
    is_test=False,
    erased=False,
)
MOMENT = datetime(2018, 11, 23, 19, 25, 30, 987_654, tzinfo=UTC)  # 143 minutes after line 3's sent_at
LOG_ID = 12345
TAIL = "at=2018-11-23T19:25:30Z; log=12345"
LINES = {line.number: line for line in CATALOG.events}


def customer(**changes: object) -> Customer:
    """Return Ann, but for the changes."""
    return replace(ANN, **changes)


def entry(**changes: object) -> Entry:
    """Return an empty entry about Ann with these changes. `data` that is no text is encoded."""
    if not isinstance(changes.get("data"), str | None):
        changes["data"] = msgspec.json.encode(changes["data"]).decode()
    who = changes.get("customer")
    if isinstance(who, Customer):
        changes.setdefault("customer_id", who.id)
    return replace(_EMPTY, **changes)


def legacy(message: str, **changes: object) -> Entry:
    """Return a legacy entry about Ann: free text."""
    return entry(message=message, **changes)


def structured(action: str, data: object = None, **changes: object) -> Entry:
    """Return a structured entry about Ann, of which she is the actor, with these changes."""
    return entry(action=action, data=data, **({"actor_type": "customer"} | changes))


def classify(row: Entry, events_since: datetime | None = None) -> Classification:
    """Return the classification of the site's classifier."""
    return Classifier(SITE, events_since).classify(row)


def event(row: Entry) -> Event:
    """Return the classification of an entry that has to be an event."""
    classification = classify(row)
    assert isinstance(classification, Event), classification
    return classification


def account(**changes: object) -> CustomerAccount:
    """Return Ann's account, but for the changes; those of a customer's fields go into its customer."""
    own = {key: changes.pop(key) for key in list(changes) if key in Customer.__struct_fields__}
    return replace(_ACCOUNT, customer=customer(**own), **changes)


_EMPTY = Entry(
    position=Position(700, LOG_ID),
    occurred_at=MOMENT,
    inserted_at=MOMENT,
    action=None,
    actor_type=None,
    admin_user=None,
    message="",
    data=None,
    customer_id=ANN.id,
    customer=ANN,
)
_ACCOUNT = CustomerAccount(
    customer=ANN,
    first_name="Ann",
    last_name="Lee",
    phone="+1 555 0100",
    status="active",
    newest_order_at=None,
    email_opt_in=True,
    email_blacklisted=False,
)
