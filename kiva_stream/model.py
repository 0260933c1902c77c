"""The words of the domain as types: positions, customers, entries, verdicts, outcomes, contacts."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from itertools import islice, pairwise
from types import MappingProxyType
from typing import Literal, NamedTuple, NewType

import msgspec

from kiva_stream.catalog import EventLine

CustomerId = NewType("CustomerId", int)
ContactId = NewType("ContactId", int)  # the id of a contact's link in the state schema, not ActiveCampaign's
AcId = NewType("AcId", int)  # ActiveCampaign's id of a contact
OrderId = NewType("OrderId", int)
Email = NewType("Email", str)  # normalised, see kiva_stream.addresses

_POSITION = re.compile(r"(\d{1,19}):(\d{1,19})")
_MAX_BIGINT = 2**63 - 1


class Position(NamedTuple):
    """Where an entry stands in the log: its writing transaction, then its id. Log order is position order."""

    txid: int
    id: int

    def __str__(self) -> str:
        return f"{self.txid}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read `TXID:ID`. Raises ValueError when it is not that, or no bigint."""
        written = _POSITION.fullmatch(text)
        position = cls(*map(int, written.groups())) if written else None
        if position is None or max(position) > _MAX_BIGINT:
            raise ValueError(f"{text!r} is not a position (TXID:ID)")
        return position


DAY1 = Position(0, 0)  # below every entry


class HighWaterMark(NamedTuple):
    """Where reading stops: at `position`, or before the first entry inserted at or after a moment."""

    position: Position
    inserted_before: datetime


class IdGap(NamedTuple):
    """Ids that no entry had when the log was read past them without a horizon."""

    first: int
    last: int
    seen_at: datetime  # by the clock of the shop's database

    def without(self, ids: Iterable[int]) -> list[IdGap]:
        """Return what is left of it when these ids, some of its own, are taken out."""
        edges = [self.first - 1, *sorted(ids), self.last + 1]
        return [IdGap(low + 1, high - 1, self.seen_at) for low, high in pairwise(edges) if high - low > 1]


class Site(msgspec.Struct, frozen=True):
    """One box company: a row of `sites`."""

    id: int
    name: str
    timezone: str
    currency: str
    admin_base_url: str
    launched_at: datetime  # midnight of `launched_on` in the site's timezone


class Customer(msgspec.Struct, frozen=True, gc=False):
    """What an entry needs to know of its customer: whose lane it takes, or why it takes none."""

    id: CustomerId
    site_id: int
    email: Email | None  # None: no usable address
    name: str  # "first last" as stored, single blanks; "" when there is none
    is_test: bool  # flagged, or an address of `skip_domains`
    erased: bool  # soft-deleted
    several_addresses: bool = False  # in its one e-mail field, of which the first valid one counts


class Account(msgspec.Struct, frozen=True):
    """A customer's row, as far as the contact at ActiveCampaign shows it."""

    customer: Customer
    first_name: str
    last_name: str
    phone: str
    status: str
    newest_order_at: datetime | None  # created_at of the newest order
    email_opt_in: bool
    email_blacklisted: bool
    next_delivery: date | None = None
    cancel_date: date | None = None  # of cancelled_at, in the site's timezone
    birthday: date | None = None  # year 1904: year unknown
    box_type: str | None = ""  # the box's name, "" without a box, None when its row is gone
    joined_at: datetime = datetime.min.replace(tzinfo=UTC)  # when the shop made the account


class OrderItem(msgspec.Struct, frozen=True):
    """A row of `order_items` that is not removed."""

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
        """Whether it belongs at ActiveCampaign at all, even if it was never sent."""
        return self.paid_at is not None or self.payment_status in {"completed", "refunded"}


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A row of the system log, with its customer."""

    position: Position
    occurred_at: datetime
    inserted_at: datetime
    action: str | None  # None: legacy free text
    actor_type: str | None
    admin_user: str | None
    message: str  # its first 2,000 characters
    data: str | None  # JSON text
    customer_id: CustomerId | None  # as the row says, else as its text or an address in it says
    customer: Customer | None  # None: no such customer
    notes: tuple[str, ...] = ()  # what was odd about it; counted, never a reason to stop


class Reason(StrEnum):
    """Why an entry was skipped or is dead: the closed lists of the glossary."""

    NOISE = "noise"
    DUPLICATE = "duplicate"
    TEST = "test"
    ERASED = "erased"
    NO_ACCOUNT = "no_account"
    STAFF_LOGIN = "staff_login"
    BEFORE_EVENTS_SINCE = "before_events_since"

    NO_EMAIL = "no_email"
    NO_CUSTOMER = "no_customer"
    NO_CONTACT = "no_contact"
    WRONG_SITE = "wrong_site"
    AC_REJECTED = "ac_rejected"
    ORDER_INVALID = "order_invalid"
    EVENT_REJECTED = "event_rejected"


# The reasons of dead letters: a closed list.
DEAD_REASONS = (
    *(Reason.NO_EMAIL, Reason.NO_CUSTOMER, Reason.NO_CONTACT, Reason.WRONG_SITE),
    *(Reason.AC_REJECTED, Reason.ORDER_INVALID, Reason.EVENT_REJECTED),
)

# What an entry dies of that may be delivered when its customer's address appears or changes.
FOR_WANT_OF_A_CONTACT = frozenset({Reason.NO_EMAIL, Reason.AC_REJECTED, Reason.NO_CONTACT})


class Event(msgspec.Struct, frozen=True, gc=False):
    """Becomes an event of its contact."""

    line: EventLine
    eventdata: str
    notes: tuple[str, ...] = ()
    order: OrderId | None = None  # the one it is about


class SyncOnly(msgspec.Struct, frozen=True, gc=False):
    """Tied to a customer, no event: only the contact, and an order, may have changed."""

    notes: tuple[str, ...] = ()
    order: OrderId | None = None  # the one it is about


class Noise(msgspec.Struct, frozen=True, gc=False):
    """Nothing for ActiveCampaign: skipped, with why."""

    why: Reason = Reason.NOISE
    notes: tuple[str, ...] = ()


class Reject(msgspec.Struct, frozen=True, gc=False):
    """Should have been delivered and cannot be: a dead letter, with why."""

    why: Reason
    notes: tuple[str, ...] = ()


Verdict = Event | SyncOnly | Noise | Reject


class Outcome(NamedTuple):
    """What became of an entry, exactly one each."""

    kind: str  # delivered | synced | skipped | dead
    why: str = ""  # of skipped and dead: a Reason

    def __str__(self) -> str:
        return f"{self.kind} {self.why}" if self.why else self.kind


DELIVERED = Outcome("delivered")
SYNCED = Outcome("synced")
PARKED = Outcome("parked")  # none yet: the entry is kept, and comes outside the log's order


class ContactStatus(StrEnum):
    """How far a contact has come."""

    NEW = "new"  # wanted, not yet confirmed at ActiveCampaign
    LINKED = "linked"  # ActiveCampaign confirmed it
    REJECTED = "rejected"  # ActiveCampaign refuses its address


class Contact(msgspec.Struct, weakref=True):
    """A contact's link: the ordering key. One object a contact in a process, so that all see it change."""

    id: ContactId
    email: Email  # the address last confirmed, or, while new, the one wanted
    status: ContactStatus
    why: str = ""  # of a rejected one: the Reason its entries die with
    synced_to: Position = Position(0, 0)  # what entries up to here changed is at ActiveCampaign

    @property
    def is_refused(self) -> bool:
        """Whether ActiveCampaign refuses it; one that nobody was left of may still come back."""
        return self.status is ContactStatus.REJECTED and self.why != Reason.NO_CONTACT


class Delivered(NamedTuple):
    """A row of the ledger: an event that ActiveCampaign has."""

    position: Position
    contact: ContactId
    line: int
    attempts: int


Tally = Mapping[tuple[str, str], int]  # how many, by (outcome | event | note, its name)
Counted = Outcome | int | str  # an outcome, the line of a delivered event, a note


def tally_of(counts: Mapping[Counted, int]) -> Counter[tuple[str, str]]:
    """Return counts by name, without those that came to nothing."""
    return Counter({_named(each): count for each, count in counts.items() if count})


def _named(counted: Counted) -> tuple[str, str]:
    if isinstance(counted, Outcome):
        return "outcome", str(counted)
    return ("event" if isinstance(counted, int) else "note"), str(counted)


class Span:
    """Consecutive entries of the log that the watermark passes together: a page's."""

    __slots__ = ("counts", "last", "pending", "size")

    def __init__(self, last: Position, size: int) -> None:
        self.last = last
        self.size = size
        self.pending = size  # without an outcome yet
        self.counts: Counter[Counted] = Counter()

    def resolve(self, outcome: Outcome, *, line: int | None = None, notes: Iterable[str] = ()) -> None:
        """Give one entry its one outcome; `line` is that of a delivered event."""
        self.pending -= 1
        self.counts[outcome] += 1
        if line is not None:
            self.counts[line] += 1
        for note in notes:
            self.counts[note] += 1

    def part_with(self) -> None:
        """Have one entry get its outcome outside of this span."""
        self.pending -= 1


class Change(NamedTuple):
    """A customer whose row, or whose orders, the shop changed; no entry need say so."""

    customer: Customer
    changed_at: datetime
    orders: frozenset[OrderId] = frozenset()


class Changes(NamedTuple):
    """Changes that were found together."""

    changes: list[Change]


class Asides(NamedTuple):
    """Entries outside the log's order, in theirs: parked before, dead and to be replayed, or found late.

    Those of the positions that are among no entries are not in the log any more.
    """

    positions: Collection[Position]
    entries: list[Entry]
    letters: Mapping[Position, Reason] = MappingProxyType({})  # what those of them died of that are dead
    are_parked: bool = False  # since they were found


class Page(NamedTuple):
    """Consecutive entries, in log order; or changes, or asides, which have no place in it."""

    span: Span
    entries: list[Entry]
    changes: Sequence[Change] = ()
    asides: Asides | None = None  # then `entries` are theirs


class ClassifiedPage(NamedTuple):
    """A page with the verdict on each of its entries."""

    span: Span
    verdicts: list[tuple[Entry, Verdict]]
    changes: Sequence[Change] = ()
    asides: Asides | None = None


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """An entry whose contact must be at ActiveCampaign before it is done; most have an event to send too."""

    position: Position
    inserted_at: datetime
    span: Span
    customer: CustomerId
    line: EventLine | None  # None: sync-only
    eventdata: str = ""
    notes: tuple[str, ...] = ()
    order: OrderId | None = None  # the one it is about
    is_entry: bool = True  # False: a change, which is no entry of the log and has no outcome


class Need(NamedTuple):
    """What waits for a contact: entries up to a position, that may have changed it and these orders."""

    contact: Contact
    position: Position
    inserted_at: datetime  # of the newest of them
    orders: frozenset[OrderId] = frozenset()
    resubscribes: bool = False  # one of them, young enough, says that the customer wants e-mails again


class Batch(msgspec.Struct):
    """Consecutive work of one contact, in log order, and how far the sender has come with it."""

    contact: Contact
    deliveries: list[Delivery]
    done: int = 0  # of the deliveries, from the first
    park_at: float = math.inf  # when it is parked, by the sender's clock; an answer may come before

    def ahead(self, count: int) -> list[Position]:
        """Return the positions of up to so many events after the current delivery."""
        rest = islice(self.deliveries, self.done + 1, None)
        return list(islice((each.position for each in rest if each.line is not None), count))

    @property
    def current(self) -> Delivery | None:
        """The delivery that is worked on, None when all are done. It may be parked meanwhile."""
        return self.deliveries[self.done] if self.done < len(self.deliveries) else None


class DeadLetter(NamedTuple):
    """What could not be delivered, and why."""

    position: Position
    why: Reason
    customer: CustomerId | None
    attempts: int = 0  # 0: nothing was sent
    reply: str = ""  # what ActiveCampaign said, without secrets and addresses


class Commit(NamedTuple):
    """What moves together in the state schema, or not at all."""

    watermark: Position
    pending: int  # entries read, without an outcome yet
    delivered: list[Delivered]
    dead: list[DeadLetter]
    passed: Tally  # of the entries that the watermark passed since the last commit
    ahead: Tally = MappingProxyType({})  # of all entries above it that have their outcome
    touched: frozenset[ContactId] = frozenset()  # whose entries got their outcome: their week tag is due
    revived: tuple[tuple[Position, Reason], ...] = ()  # dead letters that got another outcome, with the old
    out: frozenset[Position] = frozenset()  # events that may have arrived, or may be sent after this commit
    parked: tuple[tuple[Position, ContactId], ...] = ()
    unparked: tuple[Position, ...] = ()  # that got their outcome


class Left(NamedTuple):
    """What earlier runs left for the next one, besides the watermark."""

    settled_to: Position = DAY1  # entries up to here may have their outcome, though above the watermark
    letters: frozenset[CustomerId] = frozenset()  # customers whose entries died for want of a contact
    parked: frozenset[Position] = frozenset()
    doubts: frozenset[Position] = frozenset()  # events that may have arrived
    counted_from: Position = Position(-1, 0)  # what lies at or below it is not among the counts
    discarded: frozenset[Position] = frozenset()  # dead letters that nobody revives


class AskedLetter(NamedTuple):
    """A dead letter that is to be replayed: what it died of, and when it was asked for."""

    why: Reason
    asked_at: datetime


class SavedCheckpoint(msgspec.Struct, frozen=True):
    """Where a site stands, as the state schema has it."""

    account: str
    since: str
    events_since: datetime | None
    counted_from: Position
    watermark: Position
    horizon: bool = True  # how the log is read: without one, positions are (0, id)


class WeekTag(StrEnum):
    """Exactly one of these is on every contact, by its orders of the current week."""

    OPEN = "open order"
    CLOSED = "closed order"
    NONE = "no order"


class Linked(msgspec.Struct, frozen=True):
    """A contact, its customers, and what is known of it at ActiveCampaign."""

    contact: Contact
    customers: tuple[CustomerId, ...]
    fingerprint: bytes | None  # of what ActiveCampaign last confirmed
    ac_id: AcId | None = None  # None: not known, or not there
    tag: WeekTag | None = None  # the one it has there, or is just being given; None: not known
    tag_link: int | None = None  # ActiveCampaign's id of that tag on this contact; None: not known
    unsubscribed: bool = False  # from the list, by us


class Due(NamedTuple):
    """A contact whose week tag may differ; `mark` changes whenever it becomes due again."""

    linked: Linked
    mark: int


class AcceptedImport(NamedTuple):
    """What ActiveCampaign said of an import it accepted."""

    id: str
    is_short: bool  # fewer contacts were queued than were sent, and it does not say which


class OpenImport(msgspec.Struct, frozen=True):
    """An import that ActiveCampaign accepted: its contacts, each with the fingerprint of what was sent."""

    id: str
    fingerprints: dict[ContactId, bytes]
    is_short: bool  # see AcceptedImport
    unsubscribed: frozenset[ContactId] = frozenset()  # those whom it takes off the list


class ListStatus(StrEnum):
    """What a contact's membership of the list `all customers` is to become."""

    SUBSCRIBE = "subscribe"
    UNSUBSCRIBE = "unsubscribe"
    LEAVE = "leave"  # say nothing about it


class DesiredContact(msgspec.Struct, frozen=True):
    """A contact as ActiveCampaign should show it; clean text, ready to be sent."""

    email: Email
    first_name: str
    last_name: str
    phone: str
    customer_id: str  # the field `Kiva Customer ID`: the best account's
    list_status: ListStatus
    status: str = ""  # this and the following are fields too; "" clears one
    next_delivery: str = ""  # YYYY-MM-DD, as are the other dates
    cancel_date: str = ""
    birthday: str = ""
    box_type: str | None = ""  # None: not sent
    tag: WeekTag | None = None  # put on it by the import that first creates it
    notes: tuple[str, ...] = ()  # what was odd about its rows; counted, not sent


class ImportState(StrEnum):
    """How far an accepted bulk import has come."""

    RUNNING = "running"
    COMPLETED = "completed"
    LOST = "lost"  # failed, interrupted or forgotten: to be sent again


class ImportReport(msgspec.Struct, frozen=True):
    """What ActiveCampaign says of an accepted bulk import."""

    state: ImportState
    failures: frozenset[str] = frozenset()  # lower-case addresses that did not make it


class LoggedEvent(NamedTuple):
    """An event as the tracking log of its contact at ActiveCampaign lists it."""

    name: str
    eventdata: str
    at: datetime | None  # when ActiveCampaign received it; None: it does not say


class ShownContact(msgspec.Struct, frozen=True):
    """A contact as ActiveCampaign shows it."""

    email: Email
    first_name: str
    last_name: str
    phone: str
    fields: Mapping[str, str]  # by the attribute of DesiredContact; one without a value is not among them
    is_subscribed: bool  # to the list `all customers`


class OrderSource(StrEnum):
    """Whether automations may start on an order; decided at its first sending, and kept."""

    HISTORICAL = "HISTORICAL"
    REAL_TIME = "REAL_TIME"


class OrderLine(msgspec.Struct, frozen=True):
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
    lines: tuple[OrderLine, ...] = ()
    notes: tuple[str, ...] = ()  # what was odd about its rows; counted, not sent


class ShownOrder(msgspec.Struct, frozen=True):
    """An order as ActiveCampaign shows it; "" for what it does not say."""

    customer_id: str
    created_at: str  # as it was sent
    normalized_status: str
    store_status: str
    currency: str
    total_cents: Decimal
    discounts_cents: Decimal
    source: str
    lines: tuple[tuple[str, str, str, str, int, Decimal], ...]  # as an OrderLine, the price in cents


class SentOrder(msgspec.Struct, frozen=True):
    """What ActiveCampaign last accepted, or refused, of an order."""

    id: OrderId
    source: OrderSource
    fingerprint: bytes
    accepted_at: datetime
    refused: str = ""  # what ActiveCampaign said against it; "": it was accepted


TroubleKind = Literal["activecampaign", "events", "key", "source", "horizon", "state"]


class Trouble(msgspec.Struct, frozen=True):
    """Something that is wrong just now."""

    kind: TroubleKind
    since: datetime
    why: str
