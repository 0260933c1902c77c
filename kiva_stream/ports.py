"""What the stages need of the outside world. Adapters are these; fakes in the tests are too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date
from typing import Protocol

from kiva_stream.model import (
    AcceptedImport,
    Account,
    AcId,
    Asides,
    AskedLetter,
    Batch,
    Changes,
    Commit,
    Contact,
    ContactId,
    Customer,
    CustomerId,
    DeadLetter,
    Delivery,
    DesiredContact,
    DesiredOrder,
    Due,
    Email,
    Entry,
    HighWaterMark,
    IdGap,
    ImportReport,
    Linked,
    LoggedEvent,
    Need,
    OpenImport,
    Order,
    OrderId,
    Outcome,
    Position,
    Reason,
    SentOrder,
    ShownContact,
    ShownOrder,
    Span,
    Trouble,
    TroubleKind,
    WeekTag,
)


class Log(Protocol):
    """The system log of one site, in log order."""

    def pages(self, after: Position, mark: HighWaterMark) -> AsyncIterator[list[Entry] | Changes | Asides]:
        """Yield the entries above `after` up to the mark, a page at a time, changes and asides among them.

        No source transaction is open while a page is out.
        Raises SourceError when the source cannot be read for good.
        """
        ...


class Entries(Protocol):
    """Entries of the log by their positions."""

    async def entries(self, positions: Collection[Position]) -> list[Entry]:
        """Return those that are there, in log order, with their customers as they are now.

        Raises SourceError.
        """
        ...


class InGaps(Protocol):
    """What has appeared in the log where it was read past."""

    async def in_gaps(self, gaps: Sequence[IdGap], count: int) -> list[Entry]:
        """Return up to `count` entries in these gaps, in log order. Raises SourceError."""
        ...


class Gaps(Protocol):
    """The gaps of ids that the log was read past without a horizon. Every call raises CheckpointError."""

    async def keep(self, after: int, until: int, gaps: Sequence[IdGap]) -> None:
        """Have it say just these of the ids above `after` up to `until`, which have been read."""
        ...

    async def page(self, after: int, until: int, count: int) -> list[IdGap]:
        """Return up to `count` gaps above one id that end at or below another, by their ids."""
        ...

    async def fill(self, before: Sequence[IdGap], after: Sequence[IdGap], found: Sequence[Position]) -> None:
        """Put what is left of gaps in their place, and park what was found in them. All of it, or nothing."""
        ...

    async def forget(self, keep_s: float) -> None:
        """Forget the gaps that have been looked at for this long."""
        ...


class Customers(Protocol):
    """The site's customers, as they are now."""

    async def page(self, after: CustomerId, count: int) -> list[Customer]:
        """Return up to `count` customers with ids above `after`, by id. Raises SourceError."""
        ...

    async def accounts(self, ids: Collection[CustomerId]) -> list[Account]:
        """Return the accounts of these ids that exist. Raises SourceError."""
        ...


class Letters(Protocol):
    """Dead letters that a customer's new address may bring back to life."""

    async def of(self, customers: Collection[CustomerId]) -> dict[Position, Reason]:
        """Return the entries of these customers that died for want of a contact. Raises CheckpointError."""
        ...


class Asked(Protocol):
    """Dead letters that are to be replayed. Every call raises CheckpointError."""

    async def asked(self) -> dict[Position, AskedLetter]:
        """Return the entries that are, in log order."""
        ...

    async def asked_orders(self) -> list[OrderId]:
        """Return the refused orders that are to be sent again."""
        ...


class Orders(Protocol):
    """The site's orders, as they are now. Every call raises SourceError."""

    async def page(self, after: OrderId, count: int) -> list[Order]:
        """Return up to `count` paid orders with ids above `after`, by id."""
        ...

    async def orders(self, ids: Collection[OrderId]) -> list[Order]:
        """Return the orders of these ids that exist on this site, paid or not."""
        ...

    async def paid_by(self, customers: Collection[CustomerId]) -> list[OrderId]:
        """Return the ids of all paid orders of these customers."""
        ...


class Weeks(Protocol):
    """The delivery weeks of the site. Every call raises SourceError."""

    async def current(self) -> date:
        """Return the Monday of the current week: of the one opened last, else the calendar's."""
        ...

    async def statuses(self, customers: Collection[CustomerId], week: date) -> dict[CustomerId, set[str]]:
        """Return the statuses of these customers' orders of a week; without orders, nothing."""
        ...


class Links(Protocol):
    """Which customer is which contact, and how far each contact has come.

    Every call raises CheckpointError.
    """

    async def link(self, customers: Mapping[CustomerId, Email]) -> dict[CustomerId, Contact]:
        """Return these customers' contacts; a customer without a link joins the contact of its address.

        So does one whose address changed before ActiveCampaign confirmed the contact of the old one.
        """
        ...

    async def of(self, customers: Collection[CustomerId]) -> dict[CustomerId, Contact]:
        """Return the contacts of those of these customers who have one."""
        ...

    async def page(self, after: ContactId, count: int) -> list[Linked]:
        """Return up to `count` contacts with ids above `after`, by id."""
        ...

    async def contacts(self, ids: Collection[ContactId]) -> list[Linked]:
        """Return these contacts, with their customers."""
        ...

    async def open_imports(self) -> list[OpenImport]:
        """Return the imports that ActiveCampaign accepted and whose end is not known yet."""
        ...

    async def keep_import(self, started: OpenImport) -> None:
        """Remember an accepted import until its end is known."""
        ...

    async def close_import(self, ended: OpenImport, confirmed: Collection[ContactId]) -> None:
        """Forget an import; these contacts of it are linked as they were sent."""
        ...

    async def confirm(
        self, contact: ContactId, fingerprint: bytes, ac_id: AcId, *, unsubscribed: bool
    ) -> None:
        """Note that ActiveCampaign has this contact as it was sent; `unsubscribed` is of the list, by us."""
        ...

    async def on_list(self, contact: ContactId, *, unsubscribed: bool) -> None:
        """Note that ActiveCampaign has this contact on the list, or not any more."""
        ...

    async def give_tags(self, tags: Mapping[ContactId, WeekTag]) -> None:
        """Note which tag the import that creates these contacts puts on each, before it is sent."""
        ...

    async def known_to(self) -> AcId:
        """Return up to which id ActiveCampaign's contacts have been looked at."""
        ...

    async def at(self, email: Email) -> Linked | None:
        """Return the contact of an address, None when there is none."""
        ...

    async def learn(self, ids: Mapping[Email, AcId], known_to: AcId) -> None:
        """Note ActiveCampaign's ids of contacts by their address; addresses of no contact are passed over."""
        ...

    async def moved(self, contact: ContactId, email: Email) -> None:
        """Note that ActiveCampaign's contact has another address now."""
        ...

    async def join(self, customers: Collection[CustomerId], email: Email, ac_id: AcId | None) -> Contact:
        """Have these customers leave their contact for that of an address, which is new if there is none.

        `ac_id` is of the contact that ActiveCampaign has already, None when it has none or is not known to.
        """
        ...

    async def dissolve(self, contact: ContactId) -> None:
        """Note that a contact without customers is nobody's: its fields and its tag are taken off."""
        ...

    async def note_erased(self, contact: ContactId) -> None:
        """Note that a contact is still at ActiveCampaign whose customers the shop erased."""
        ...

    async def note(self, notes: Mapping[str, int]) -> None:
        """Add to the counts of what was odd."""
        ...

    async def reject(self, contact: ContactId, why: Reason) -> None:
        """Note that ActiveCampaign refuses this contact."""
        ...


class SentOrders(Protocol):
    """What ActiveCampaign has of the site's orders. Every call raises CheckpointError."""

    async def sent(self, ids: Collection[OrderId]) -> dict[OrderId, SentOrder]:
        """Return what was last sent of these orders; of those never sent, nothing."""
        ...

    async def between(self, after: OrderId, until: OrderId) -> list[OrderId]:
        """Return the ids of the orders sent that lie above one id, up to and including another."""
        ...

    async def keep(self, orders: Collection[SentOrder]) -> None:
        """Note what ActiveCampaign has now, or refused."""
        ...


class TagsDue(Protocol):
    """The contacts whose week tag may differ from what it should be. Every call raises CheckpointError."""

    async def week(self) -> date | None:
        """Return the week that the tags speak of; None before the first."""
        ...

    async def open_week(self, week: date) -> None:
        """Note that the tags are to speak of another week: every linked contact is due."""
        ...

    async def all_due(self) -> None:
        """Have every linked contact looked at."""
        ...

    async def add(self, contacts: Collection[ContactId]) -> None:
        """Have these contacts looked at."""
        ...

    async def page(self, after: ContactId, count: int) -> list[Due]:
        """Return up to `count` due contacts with ids above `after`, by id."""
        ...

    async def settled(self, due: Collection[Due]) -> None:
        """Note that these are as they should be; who became due again meanwhile stays due."""
        ...

    async def forget_tags(self, contacts: Collection[ContactId]) -> None:
        """Note, before it is changed, that a contact's tag is not known any more."""
        ...

    async def tagged(self, contact: ContactId, ac_id: AcId, tag: WeekTag, link: int) -> None:
        """Note which tag a contact has now, and the id of its link."""
        ...


class Ledger(Protocol):
    """The checkpoint and what goes with it. Every call raises CheckpointError."""

    async def commit(self, commit: Commit) -> None:
        """Save outcomes and watermark together."""
        ...

    async def settled(self, after: Position, until: Position) -> dict[Position, Outcome]:
        """Return the outcomes kept of entries between two positions, the second included; PARKED is one."""
        ...

    async def unresolved(
        self, positions: Collection[Position], letters: Collection[Position]
    ) -> Collection[Position]:
        """Return those of these entries that are not delivered, and, of the letters, still dead."""
        ...


class LookUp(Protocol):
    """Finds out whether an event arrived whose answer was lost."""

    async def has_arrived(self, contact: Contact, name: str, eventdata: str) -> bool | None:
        """Return whether ActiveCampaign shows this event of a contact; None when it cannot say.

        Raises AccountRefused, CheckpointError.
        """
        ...


class Outcomes(Protocol):
    """Where every entry that is read gets its one outcome: the checkpoint, as the stages see it."""

    async def track(self, last: Position, size: int) -> Span:
        """Take in the next entries in log order, when the window has room for them."""
        ...

    def settled(self, position: Position) -> Outcome | None:
        """Return the outcome that an earlier run kept of an entry above the watermark, once."""
        ...

    def comes_again(self, position: Position) -> bool:
        """Return whether an earlier run kept an outcome of an entry that is still to be read again."""
        ...

    def unless_drained(self) -> AbstractContextManager[None]:
        """Do in this block what may be given up at any moment. Raises DrainedError when a drain begins."""
        ...

    def takes(self, position: Position) -> bool:
        """Let an event go out at once if a commit has named it ahead of its turn; return whether it did."""
        ...

    async def may_send(self, position: Position, ahead: Callable[[int], Sequence[Position]]) -> bool:
        """Wait until a commit has named an event as one that may be out; False: none is sent any more.

        What the sender has `ahead`, up to a number, is named with it, as far as there are places.
        """
        ...

    def release(self, positions: Iterable[Position]) -> None:
        """Take in that these events are not sent soon, though they lay ahead."""
        ...

    def not_sent(self, position: Position) -> None:
        """Take in that an event that was named is surely not out, and that this run does not send it."""
        ...

    def may_revive(self, position: Position) -> bool:
        """Return whether a dead entry that comes again may get another outcome: not a discarded one."""
        ...

    def is_doubtful(self, position: Position) -> bool:
        """Return whether an event may have arrived that an earlier run sent."""
        ...

    async def unresolved(
        self, positions: Collection[Position], letters: Collection[Position]
    ) -> Collection[Position]:
        """Return those of these entries that may be resumed: not on their way, and without an outcome yet.

        Those of the `letters` have none as long as they are dead. Raises CheckpointError.
        """
        ...

    def delivered(self, delivery: Delivery, contact: ContactId, attempts: int) -> None:
        """Take in an event that ActiveCampaign has; its place is free when that is committed."""
        ...

    def rejected(self, delivery: Delivery, letter: DeadLetter) -> None:
        """Take in an event that ActiveCampaign refuses; its place is free when that is committed."""
        ...

    def buried(self, span: Span, letter: DeadLetter, notes: Iterable[str] = ()) -> None:
        """Take in a dead entry that was never sent."""
        ...

    def note(self, what: str) -> None:
        """Count something odd that was done about an entry; once, however often it is read again."""
        ...

    def touch(self, contact: ContactId) -> None:
        """Note that a contact's week tag may differ now."""
        ...

    async def has_letters(self, customer: CustomerId) -> bool:
        """Return whether entries of a customer died for want of a contact; asked once, it is forgotten.

        All of them are in the state by then.
        """
        ...

    def park(self, delivery: Delivery, contact: ContactId) -> Delivery | None:
        """Keep an entry that waits long in the state; return its delivery from now on, None: too many are."""
        ...

    def resume(
        self, position: Position, was_dead: Reason | None = None, *, is_parked: bool = False
    ) -> Span | None:
        """Take in an entry that gets its outcome outside the log's order; None: it is on its way to it."""
        ...

    def commit_soon(self) -> None:
        """See to it that a commit follows, where spans were resolved directly."""
        ...


class OrderArrivals(Protocol):
    """Brings orders to ActiveCampaign, as the shop has them now."""

    async def bring(self, ids: Collection[OrderId]) -> None:
        """Return when these orders are there, or refused, or none that belong there.

        Raises AccountRefused, SourceError, CheckpointError.
        """
        ...


class Arrivals(Protocol):
    """Brings contacts and their orders to ActiveCampaign, as the shop has them now.

    Every call raises AccountRefused, SourceError, CheckpointError.
    """

    def need(self, batch: Batch) -> Need | None:
        """Return what a batch must wait for before its events; None: nothing, all is there."""
        ...

    def doubt(self, contact: Contact, orders: Collection[OrderId]) -> None:
        """Have the contact and these orders looked at when its next batch comes, in any case."""
        ...

    async def ensure(self, need: Need) -> None:
        """Return when the contact is linked or rejected, and shows what its entries changed."""
        ...

    async def move(self, customers: Mapping[CustomerId, Email]) -> None:
        """Bring customers whose address changed to the contact they belong to now, and these contacts.

        No work of the contacts concerned may be at the sender meanwhile.
        """
        ...


class Events(Protocol):
    """Event tracking of one ActiveCampaign account."""

    async def send(self, email: Email, name: str, eventdata: str) -> None:
        """Record one event for the contact of `email`; return when ActiveCampaign said it has it.

        Waits out throttling, outages and what was surely not sent. Raises Rejected when ActiveCampaign
        refuses this event, UnknownOutcome when it may or may not have it, AccountRefused when it refuses
        the account.
        """
        ...


class Contacts(Protocol):
    """Contacts of one ActiveCampaign account. Every call waits out throttling and outages.

    Every call raises AccountRefused when ActiveCampaign refuses the key or the account.
    """

    async def start_import(
        self, contacts: Sequence[DesiredContact], *, exclude_automations: bool
    ) -> AcceptedImport:
        """Have up to 250 contacts imported, without starting automations or with.

        Raises RowsRejected with the rows that ActiveCampaign refuses: then nothing was imported.
        """
        ...

    async def import_report(self, import_id: str) -> ImportReport:
        """Return how far an import has come."""
        ...

    def fitting(self, contacts: Sequence[DesiredContact]) -> int:
        """Return how many of these, from the first, fit into one import; at least one of one or more."""
        ...

    async def find(self, email: Email) -> AcId | None:
        """Return the id of the contact of this address, None when there is none."""
        ...

    async def page(self, after: AcId) -> dict[Email, AcId]:
        """Return up to 100 contacts with ids above `after`, in the order of their ids."""
        ...

    async def sync(self, contact: DesiredContact) -> AcId:
        """Create or update one contact, leaving its lists alone. Raises Rejected when it is refused."""
        ...

    async def rename(self, contact: AcId, email: Email) -> None:
        """Give a contact another address.

        Raises AddressTaken when another contact has it, ContactGone when there is no contact of this id,
        Rejected when it is refused.
        """
        ...

    async def set_list(self, contact: AcId, *, subscribed: bool) -> None:
        """Subscribe a contact to the list `all customers`, or unsubscribe it; Rejected when it is refused."""
        ...

    async def disown(self, contact: AcId) -> None:
        """Clear the customer id of a contact. Raises ContactGone, or Rejected when it is refused."""
        ...


class WeekTags(Protocol):
    """The week tags of one ActiveCampaign account; these calls yield to all others in the budget, but `add`.

    Every call waits out throttling and outages, raises AccountRefused, and Rejected when it is refused.
    """

    async def on(self, contact: AcId) -> dict[WeekTag, int]:
        """Return the week tags on a contact, with the ids of their links.

        Raises ContactGone when there is no such contact.
        """
        ...

    async def add(self, contact: AcId, tag: WeekTag) -> int:
        """Put a tag on a contact; return the id of the link. Raises ContactGone."""
        ...

    async def remove(self, link: int) -> None:
        """Take a tag off a contact; one that is off already is done."""
        ...


class TrackingLogs(Protocol):
    """What ActiveCampaign has of a contact's events. Waits out throttling and outages."""

    async def of(self, contact: AcId, *, yields: bool = False) -> list[LoggedEvent]:
        """Return all events that a contact's log lists, in the order in which they arrived.

        `yields`: behind all other calls. Raises ContactGone when there is no such contact, AccountRefused,
        and Rejected when it is refused.
        """
        ...


class ReadBacks(Protocol):
    """What ActiveCampaign shows of contacts and orders; these calls yield to all others in the budget.

    Every call waits out throttling and outages, raises AccountRefused, and Rejected when it is refused.
    """

    async def contact(self, contact: AcId) -> ShownContact:
        """Return a contact. Raises ContactGone when there is no such contact."""
        ...

    async def orders(self, ids: Collection[OrderId]) -> dict[OrderId, ShownOrder]:
        """Return those of these orders of the shop that are there."""
        ...


class OrderUploads(Protocol):
    """Orders of one ActiveCampaign account. Waits out throttling and outages; raises AccountRefused."""

    async def upsert(self, orders: Sequence[DesiredOrder]) -> None:
        """Have orders written, which ActiveCampaign does some seconds after it accepted them.

        None of them is when this raises OrdersRejected, which names those at fault where ActiveCampaign did,
        or BatchTooLarge.
        """
        ...


class Troubles(Protocol):
    """What is wrong just now, told by whoever notices; `place` tells those apart who tell of one kind.

    Nothing waits here.
    """

    def begin(self, kind: TroubleKind, why: str, place: str = "") -> None:
        """Take in that something is wrong, or that it still is and why by now."""
        ...

    def end(self, kind: TroubleKind, place: str = "") -> None:
        """Take in that it is well again, or was all the time."""
        ...

    def all(self) -> list[Trouble]:
        """Return what is wrong just now."""
        ...


class TroubleRows(Protocol):
    """Where what is wrong just now is kept, for whoever looks."""

    async def keep(self, troubles: Collection[Trouble]) -> None:
        """Have it say just this. Raises CheckpointError."""
        ...


class Sleep(Protocol):
    """The seam through which time passes, so that tests of waiting take no time."""

    async def __call__(self, seconds: float, /) -> None:
        """Return after that long."""
