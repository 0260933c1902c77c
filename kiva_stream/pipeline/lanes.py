"""Lanes: per-contact FIFO queues; at most one batch of a contact is at the sender."""

from __future__ import annotations

from collections.abc import Callable, Collection

from kiva_stream.model.contacts import Contact
from kiva_stream.model.deliveries import Batch, Delivery
from kiva_stream.model.ids import ContactId
from kiva_stream.primitives.signal import Signal


class _Lane:
    """A contact's batch at the sender, and what gathered since."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.gathered: list[Delivery] = []
        self.parked_at: int | None = None  # how far the batch had come when all of the lane was parked

    @property
    def is_parked(self) -> bool:
        """Whether all of it is parked, and still waits for the same answer."""
        return self.parked_at == self.batch.done


Park = Callable[[Delivery, ContactId], Delivery | None]


class Lanes:
    """What waits, by contact, and which contacts have a batch at the sender.

    `park` keeps an entry in the state, None when there are too many.
    """

    def __init__(self, park: Park) -> None:
        self._park = park
        self._ready: dict[ContactId, Batch] = {}
        self._at_sender: dict[ContactId, _Lane] = {}
        self._emptied = Signal()

    def add(self, contact: Contact, delivery: Delivery) -> None:
        """Put a delivery at the end of its contact's lane."""
        if lane := self._at_sender.get(contact.id):
            if not delivery.is_entry and lane.gathered and not lane.gathered[-1].is_entry:
                lane.gathered.pop()  # one look does for both, or they would pile up in an outage
            lane.gathered.append(delivery)
            if lane.is_parked and not self._park_all(lane, lane.gathered, len(lane.gathered) - 1):
                lane.parked_at = None
        elif batch := self._ready.get(contact.id):
            batch.deliveries.append(delivery)
        else:
            self._ready[contact.id] = Batch(contact, [delivery])

    def ready(self) -> list[Batch]:
        """Return the batches that may go to the sender; their lanes are busy from now on."""
        batches = list(self._ready.values())
        self._ready.clear()
        for batch in batches:
            self._at_sender[batch.contact.id] = _Lane(batch)
        return batches

    def next(self, contact: Contact) -> Batch | None:
        """Return what gathered while the sender had a contact's batch; None: the lane is idle now."""
        lane = self._at_sender.pop(contact.id)
        if not lane.gathered:
            self._emptied.notify()
            return None
        batch = Batch(contact, lane.gathered)
        self._at_sender[contact.id] = _Lane(batch)
        return batch

    async def idle(self, contacts: Collection[ContactId]) -> None:
        """Return when no batch of these contacts is at the sender."""
        await self._emptied.wait_until(lambda: self._at_sender.keys().isdisjoint(contacts))

    def park_waiting(self, now: float) -> None:
        """Park the lanes whose batch waits longer for one answer than others should wait for it."""
        for lane in self._at_sender.values():
            is_waiting = lane.batch.park_at <= now and not lane.is_parked
            if is_waiting and self._park_all(lane, lane.batch.deliveries, lane.batch.done):
                is_whole = self._park_all(lane, lane.gathered, 0)
                lane.parked_at = lane.batch.done if is_whole else None

    def _park_all(self, lane: _Lane, deliveries: list[Delivery], first: int) -> bool:
        """Park deliveries of a lane from one on; False: there was no room for one, nor for what follows."""
        for index in range(first, len(deliveries)):
            parked = self._park(deliveries[index], lane.batch.contact.id)
            if parked is None:
                return False
            deliveries[index] = parked
        return True
