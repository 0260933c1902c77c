"""What the stages need of each other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from kiva_stream.model.contacts import Contact
from kiva_stream.model.dead_letters import DeadLetter
from kiva_stream.model.deliveries import Batch, Delivery, Need
from kiva_stream.model.ids import ContactId, CustomerId, Email, OrderId
from kiva_stream.model.outcomes import Outcome, Reason, Span
from kiva_stream.model.positions import Position


class DeliveryLookup(Protocol):
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

    def earlier_outcome(self, position: Position) -> Outcome | None:
        """Return the outcome that an earlier run kept of an entry above the watermark, once."""
        ...

    def will_be_reread(self, position: Position) -> bool:
        """Return whether an earlier run kept an outcome of an entry that is still to be read again."""
        ...

    def unless_drained(self) -> AbstractContextManager[None]:
        """Do in this block what may be given up at any moment. Raises DrainedError when a drain begins."""
        ...

    def claim_prerecorded(self, position: Position) -> bool:
        """Let an event go out at once if a commit has named it ahead of its turn; return whether it did."""
        ...

    async def wait_recorded(self, position: Position, ahead: Callable[[int], Sequence[Position]]) -> bool:
        """Wait until a commit has named an event as one that may be out; False: none is sent any more.

        What the sender has `ahead`, up to a number, is named with it, as far as there are places.
        """
        ...

    def release_lookahead(self, positions: Iterable[Position]) -> None:
        """Take in that these events are not sent soon, though they lay ahead."""
        ...

    def withdraw(self, position: Position) -> None:
        """Take in that an event that was named is surely not out, and that this run does not send it."""
        ...

    def may_reopen(self, position: Position) -> bool:
        """Return whether a dead entry that comes again may get another outcome: not a discarded one."""
        ...

    def is_in_doubt(self, position: Position) -> bool:
        """Return whether an event may have arrived that an earlier run sent."""
        ...

    async def unresolved(
        self, positions: Collection[Position], dead_letters: Collection[Position]
    ) -> Collection[Position]:
        """Return those of these entries that may be resumed: not on their way, and without an outcome yet.

        Those of the `dead_letters` have none as long as they are dead. Raises CheckpointError.
        """
        ...

    def record_delivered(self, delivery: Delivery, contact: ContactId, attempts: int) -> None:
        """Take in an event that ActiveCampaign has; its place is free when that is committed."""
        ...

    def record_rejected(self, delivery: Delivery, dead_letter: DeadLetter) -> None:
        """Take in an event that ActiveCampaign refuses; its place is free when that is committed."""
        ...

    def record_dead(self, span: Span, dead_letter: DeadLetter, notes: Iterable[str] = ()) -> None:
        """Take in a dead entry that was never sent."""
        ...

    def count_note(self, what: str) -> None:
        """Count something odd that was done about an entry; once, however often it is read again."""
        ...

    def mark_tag_due(self, contact: ContactId) -> None:
        """Note that a contact's week tag may differ now."""
        ...

    async def has_dead_letters(self, customer: CustomerId) -> bool:
        """Return whether entries of a customer died for want of a contact; asked once, it is forgotten.

        All of them are in the state by then.
        """
        ...

    def park(self, delivery: Delivery, contact: ContactId) -> Delivery | None:
        """Keep an entry that waits long in the state; return its delivery from now on, None: too many are."""
        ...

    def reopen(
        self, position: Position, was_dead: Reason | None = None, *, is_parked: bool = False
    ) -> Span | None:
        """Take in an entry that gets its outcome outside the log's order; None: it is on its way to it."""
        ...

    def request_commit(self) -> None:
        """See to it that a commit follows, where spans were resolved directly."""
        ...


class OrderDelivery(Protocol):
    """Brings orders to ActiveCampaign, as the shop has them now."""

    async def upsert(self, ids: Collection[OrderId]) -> None:
        """Return when these orders are there, or refused, or none that belong there.

        Raises AccountRefused, SourceError, CheckpointError.
        """
        ...


class ContactDelivery(Protocol):
    """Brings contacts and their orders to ActiveCampaign, as the shop has them now.

    Every call raises AccountRefused, SourceError, CheckpointError.
    """

    def need(self, batch: Batch) -> Need | None:
        """Return what a batch must wait for before its events; None: nothing, all is there."""
        ...

    def mark_dirty(self, contact: Contact, orders: Collection[OrderId]) -> None:
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
