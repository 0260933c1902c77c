"""What the stages need of the outside world. Adapters are these; fakes in the tests are too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from kiva_stream.model import (
    AcceptedImport,
    Account,
    Commit,
    Contact,
    ContactId,
    Customer,
    CustomerId,
    DeadLetter,
    Delivery,
    DesiredContact,
    Email,
    Entry,
    HighWaterMark,
    ImportReport,
    Linked,
    OpenImport,
    Outcome,
    Position,
    Reason,
    Span,
)


class Log(Protocol):
    """The system log of one site, in log order."""

    def pages(self, after: Position, mark: HighWaterMark) -> AsyncIterator[list[Entry]]:
        """Yield the entries above `after` up to the mark, a page at a time.

        No source transaction is open while a page is out.
        Raises SourceError when the source cannot be read for good.
        """
        ...


class Customers(Protocol):
    """The site's customers, as they are now."""

    async def page(self, after: CustomerId, count: int) -> list[Customer]:
        """Return up to `count` customers with ids above `after`, by id. Raises SourceError."""
        ...

    async def accounts(self, ids: Collection[CustomerId]) -> list[Account]:
        """Return the accounts of these ids that exist. Raises SourceError."""
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

    async def confirm(self, contact: ContactId, fingerprint: bytes) -> None:
        """Note that ActiveCampaign has this contact as it was sent."""
        ...

    async def reject(self, contact: ContactId, why: Reason) -> None:
        """Note that ActiveCampaign refuses this contact."""
        ...


class Ledger(Protocol):
    """The checkpoint and what goes with it. Every call raises CheckpointError."""

    async def commit(self, commit: Commit) -> None:
        """Save outcomes and watermark together."""
        ...


class Outcomes(Protocol):
    """Where every entry that is read gets its one outcome: the checkpoint, as the stages see it."""

    async def track(self, last: Position, size: int) -> Span:
        """Take in the next entries in log order, when the window has room for them."""
        ...

    def settled(self, position: Position) -> Outcome | None:
        """Return the outcome that an earlier run kept of an entry above the watermark, once."""
        ...

    def unless_drained(self) -> AbstractContextManager[None]:
        """Do in this block what may be given up at any moment. Raises DrainedError when a drain begins."""
        ...

    async def slot(self) -> bool:
        """Wait until one more event may be in flight; False: none may any more, this is a drain."""
        ...

    def delivered(self, delivery: Delivery, contact: ContactId, attempts: int) -> None:
        """Take in an event that ActiveCampaign has; its slot is free when that is committed."""
        ...

    def rejected(self, delivery: Delivery, letter: DeadLetter) -> None:
        """Take in an event that ActiveCampaign refuses; its slot is free when that is committed."""
        ...

    def buried(self, span: Span, letter: DeadLetter, notes: Iterable[str] = ()) -> None:
        """Take in a dead entry that was never sent."""
        ...

    def commit_soon(self) -> None:
        """See to it that a commit follows, where spans were resolved directly."""
        ...


class Arrivals(Protocol):
    """Brings contacts to ActiveCampaign."""

    async def ensure(self, contact: Contact, newest: datetime) -> None:
        """Return when a contact is linked or rejected.

        `newest` is when the newest of the entries that wait for it was inserted.
        Raises AccountRefused, SourceError, CheckpointError.
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

    async def find(self, email: Email) -> bool:
        """Return whether there is a contact of this address."""
        ...

    async def sync(self, contact: DesiredContact) -> None:
        """Create or update one contact, leaving its lists alone. Raises Rejected when it is refused."""
        ...


class Sleep(Protocol):
    """The seam through which time passes, so that tests of waiting take no time."""

    async def __call__(self, seconds: float, /) -> None:
        """Return after that long."""
