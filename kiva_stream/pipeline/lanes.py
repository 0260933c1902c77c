"""Lanes: per-contact FIFO queues; at most one batch of a contact is at the sender."""

from __future__ import annotations

from collections.abc import Callable, Collection

from kiva_stream.model.contacts import Contact
from kiva_stream.model.deliveries import Batch, Delivery
from kiva_stream.model.ids import ContactId
from kiva_stream.primitives.signal import Signal


class Lane:
    """A contact's batch at the sender, and the deliveries that gathered behind it."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.gathered: list[Delivery] = []
        self._done_when_parked: int | None = None  # `batch.done` when the whole lane was parked, if it was

    @property
    def is_parked(self) -> bool:
        """Whether the whole lane is parked because the delivery that is current now waits.

        The lane is not parked any more when this delivery is done, since `batch.done` is another number then.
        The entries that were parked stay so until each of them has its outcome, but what is added to the lane
        from then on is not parked at once.
        """
        return self._done_when_parked == self.batch.done

    def set_parked(self, *, is_whole: bool) -> None:
        """Note whether the whole lane is parked now, because the current delivery waits."""
        self._done_when_parked = self.batch.done if is_whole else None


class Lanes:
    """The lanes of all contacts that have deliveries.

    `park_behind` is called after each delivery that gathers behind a batch; it parks that delivery if the
    lane is parked. `leave` takes a delivery that goes to no lane, since its contact is held.
    """

    def __init__(
        self,
        park_behind: Callable[[Lane], None],
        leave: Callable[[Contact, Delivery], bool] = lambda _contact, _delivery: False,
    ) -> None:
        self._park_behind = park_behind
        self._leave = leave
        self._ready: dict[ContactId, Batch] = {}
        self._at_sender: dict[ContactId, Lane] = {}
        self._emptied = Signal()

    @property
    def at_sender(self) -> Collection[Lane]:
        """The lanes that have a batch at the sender."""
        return self._at_sender.values()

    def add(self, contact: Contact, delivery: Delivery) -> None:
        """Put a delivery at the end of its contact's lane."""
        if self._leave(contact, delivery):
            return
        if lane := self._at_sender.get(contact.id):
            if not delivery.is_entry and lane.gathered and not lane.gathered[-1].is_entry:
                lane.gathered.pop()  # one check does for both, or they would pile up in an outage
            lane.gathered.append(delivery)
            self._park_behind(lane)
        elif batch := self._ready.get(contact.id):
            batch.deliveries.append(delivery)
        else:
            self._ready[contact.id] = Batch(contact, [delivery])

    def ready(self) -> list[Batch]:
        """Return the batches that may go to the sender; their lanes are busy from now on."""
        batches = list(self._ready.values())
        self._ready.clear()
        for batch in batches:
            self._at_sender[batch.contact.id] = Lane(batch)
        return batches

    def next(self, contact: Contact) -> Batch | None:
        """Return what gathered while the sender had a contact's batch; None: the lane is idle now."""
        lane = self._at_sender.pop(contact.id)
        if not lane.gathered:
            self._emptied.notify()
            return None
        batch = Batch(contact, lane.gathered)
        self._at_sender[contact.id] = Lane(batch)
        return batch

    def rest(self, contact: Contact) -> list[Delivery]:
        """Return what the sender has not done of a contact's batch, then what gathered behind it."""
        lane = self._at_sender[contact.id]
        return lane.batch.deliveries[lane.batch.done :] + lane.gathered

    def is_busy(self, contact: ContactId) -> bool:
        """Return whether the sender has a batch of a contact."""
        return contact in self._at_sender

    def remove(self, contact: Contact) -> None:
        """Forget a lane whose deliveries are parked in the state."""
        del self._at_sender[contact.id]
        self._emptied.notify()

    async def idle(self, contacts: Collection[ContactId]) -> None:
        """Return when no batch of these contacts is at the sender."""
        await self._emptied.wait_until(lambda: self._at_sender.keys().isdisjoint(contacts))
