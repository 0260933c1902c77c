"""What the stages need of each other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from kiva_stream.errors import RecordsHeld
from kiva_stream.model.contacts import Contact
from kiva_stream.model.dead_letters import DeadLetter
from kiva_stream.model.deliveries import Batch, Delivery, Need
from kiva_stream.model.ids import ContactId, CustomerId, Email, OrderId
from kiva_stream.model.outcomes import Span
from kiva_stream.model.positions import Position

Lookahead = Callable[[int], Sequence[Position]]  # returns up to so many events that the sender will send next


class DeliveryLookup(Protocol):
    """Finds out whether an event arrived whose answer was lost."""

    async def has_arrived(self, contact: Contact, name: str, eventdata: str) -> bool | None:
        """Return whether ActiveCampaign shows this event of a contact; None when it cannot say.

        Raises AccountRefused, CheckpointError.
        """


class Tracking(Protocol):
    """Where the producer registers what it reads."""

    async def track(self, last: Position, size: int) -> Span:
        """Wait until the window has room for the next `size` entries in log order; return their span.

        `last` is the position of the last of them. Raises CheckpointError.
        """

    async def room_to_reopen(self) -> None:
        """Wait until few enough entries are reopened for more of them to be kept in memory."""


class Outcomes(Protocol):
    """Where entries that are not sent get their outcome."""

    def record_dead(self, span: Span, dead_letter: DeadLetter, notes: Iterable[str] = ()) -> None:
        """Record the dead letter of an entry that was never sent, and give it this outcome in its span."""

    def request_commit(self) -> None:
        """Ask for a commit of outcomes that were recorded by `Span.resolve`, not by a method of this port."""


class EntryOutcomes(Outcomes, Protocol):
    """What the batcher asks of the checkpoint."""

    async def reopenable(
        self, positions: Collection[Position], dead_letters: Collection[Position]
    ) -> Collection[Position]:
        """Return those of these entries that may be reopened, so that none gets a second outcome.

        | the entry                | may be reopened                                                     |
        |--------------------------|---------------------------------------------------------------------|
        | is reopened already      | no                                                                  |
        | is one of `dead_letters` | if it is still dead: the new outcome replaces that one              |
        | is another one           | if it is still parked                                               |

        Raises CheckpointError.
        """


class EventOutcomes(Outcomes, Protocol):
    """What the sender asks of the checkpoint: which events are in doubt, and where their outcomes go."""

    def is_in_doubt(self, position: Position) -> bool:
        """Return whether an earlier run or try may have sent this event, and kept no outcome of it."""

    def record_delivered(self, delivery: Delivery, contact: ContactId, attempts: int) -> None:
        """Record that ActiveCampaign has an event; its permit is free when that is committed."""

    def record_rejected(self, delivery: Delivery, dead_letter: DeadLetter) -> None:
        """Record that ActiveCampaign refuses an event; its permit is free when that is committed."""

    def keep_in_doubt(self, position: Position) -> None:
        """Leave an event that may have arrived to a later try: it stays recorded, and its permit is free."""

    def count_note(self, what: str) -> None:
        """Add 1 to the count of something odd that was done about an entry.

        The count is saved with the next commit, even while the entry is above the watermark. If the entry is
        read again, what was done before is not counted a second time.
        """

    def mark_tag_due(self, contact: ContactId) -> None:
        """Note that a contact's week tag may differ now."""


class DeadLetterOutcomes(Protocol):
    """What revivals ask of the checkpoint."""

    async def take_dead_letter_customer(self, customer: CustomerId) -> bool:
        """Forget that a customer has dead letters with one of CONTACT_REASONS; return whether that was known.

        It is known again when another entry of theirs becomes such a dead letter. When true is returned, all
        of these dead letters are committed.
        """


class ParkedEntries(Protocol):
    """What another try of held contacts asks of the checkpoint."""

    async def parked_of(self, contacts: Collection[ContactId]) -> list[Position]:
        """Return the parked entries of contacts, and those without a contact, in log order.

        Raises CheckpointError.
        """


class Holds(Protocol):
    """Holds contacts, which the sender asks for: their entries are parked until a later try."""

    async def hold(self, contact: Contact, position: Position, error: RecordsHeld) -> bool:
        """Hold a contact whose batch is at the sender, for an error; return whether there was room.

        The deliveries of its lane are parked, and the lane ends. `position` is that of the delivery that
        could not be made. Raises CheckpointError.
        """

    @property
    def trying(self) -> Collection[ContactId]:
        """The held contacts whose records are tried again now."""

    def suspects(self) -> Collection[ContactId]:
        """Return the contacts with an event that is held because it got no answer."""

    def make_due(self) -> None:
        """Make the next try of all events that are held due now, but for those that only a replay tries."""

    def sent(self, contact: Contact, position: Position) -> int:
        """Return how often an event that is held was sent; 0: it is not held."""

    def has_room(self, contact: Contact) -> bool:
        """Return whether `hold` would find room for the deliveries of a contact."""

    async def delivered(self, contact: Contact) -> None:
        """End the try of a contact, whose batch is delivered. Raises CheckpointError."""

    def discarded(self, contact: Contact, position: Position) -> str | None:
        """Return the last reply to an event that a person discarded while it was held; None: it was not."""

    def bounded(self, contact: Contact) -> AbstractContextManager[None]:
        """Return the block of a wait for a contact; it raises RecordsHeld when the last tries end."""


class SendPermits(Protocol):
    """What the sender asks before it sends an event. `pipeline/send_intents.py` has the protocol."""

    def claim_prerecorded(self, position: Position) -> bool:
        """Return whether a commit has recorded the event ahead of its turn: it may be sent at once."""

    async def wait_recorded(self, position: Position, lookahead: Lookahead) -> bool:
        """Wait until a commit has recorded the event, so that it may be sent; False: a drain has begun.

        The events of `lookahead` are recorded with it, as far as there are permits.
        """

    def release_lookahead(self, positions: Iterable[Position]) -> None:
        """Free the permits of those of these events that are recorded and not claimed."""

    def withdraw(self, position: Position) -> None:
        """Free the permit of an event that was surely not sent, and that this run does not send."""


class OrderDelivery(Protocol):
    """Keeps ActiveCampaign's orders as the shop has them now."""

    async def upsert(self, ids: Collection[OrderId]) -> None:
        """Return when these orders are upserted, refused, or found not to belong to ActiveCampaign.

        Raises RecordsHeld with those that ActiveCampaign gives no answer for, when the others are done.
        Raises AccountRefused, SourceError, CheckpointError.
        """


class ContactDelivery(Protocol):
    """Keeps ActiveCampaign's contacts and their orders as the shop has them now.

    Its coroutines raise AccountRefused, SourceError, CheckpointError, HeldError, or ExceptionGroups of them.
    """

    def need(self, batch: Batch) -> Need | None:
        """Return what a batch must wait for before its events are sent; None: nothing."""

    def mark_dirty(self, contact: Contact, orders: Collection[OrderId]) -> None:
        """Mark a contact dirty, and these orders: its next batch waits for them, whatever its entries say."""

    @property
    def has_due(self) -> bool:
        """Whether contacts are to be tried now: see `take_due`."""

    def take_due(self) -> Collection[ContactId]:
        """Return the contacts that are to be tried now.

        ActiveCampaign accepted another one, or a probe is due while it accepts none. Those that turned out
        to be refused are among them.
        """

    async def retry_refused(self, contacts: Collection[Contact], *, is_asked: bool) -> None:
        """Have those of these contacts tried again that ActiveCampaign refused.

        These are the ones whose rows ask for another change by now; if it `is_asked`, all of them.
        """

    async def ensure(self, need: Need) -> None:
        """Return when the contact is rejected, or is linked and shows what its entries changed.

        Raises RecordsHeld if ActiveCampaign answers for others, but not for the contact or one of its orders.
        The contact is dirty then.
        """

    async def move(self, customers: Mapping[CustomerId, Email]) -> None:
        """Move customers whose address changed to a contact that has their new address.

        The contacts that they joined or left are upserted. A contact that got the new address itself is not:
        it is compared when a batch next needs it.

        No batch of the contacts concerned may be at the sender meanwhile.
        """
