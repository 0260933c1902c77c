"""Parking: entries that wait long leave the log's order, so that the watermark passes them.

An entry that waits for an answer holds the watermark, and with it the window: reading would stop for all
contacts. So it becomes a row of the state and leaves the span of its page: its delivery is replaced by a copy
with a span of its own. The sender goes on where it is. What is parked, and when:

| an entry                           | is parked                                                         |
|------------------------------------|-------------------------------------------------------------------|
| waits for its contact and orders   | `CONTACT_WAIT_S` after the sender began to wait                   |
| may have arrived, and waits to be  | `ANSWER_WAIT_S` after the first of these waits began              |
| looked up or sent again            |                                                                   |
| is behind such an entry in its     | with it, or as soon as it is added, while the lane still waits    |
| lane                               | for the same answer                                               |
| is behind one that found no room   | not before that one: a lane is parked in log order                |
| waits while the account is down    | when the account has been up for `UP_FOR_S`, if it still waits:   |
|                                    | in an outage all contacts wait for the same                       |

While `parked_max` entries are parked, reading pauses (`parked_bound.py`), and no more are parked here.
Neither are they while `MOST_IN_MEMORY` entries have a lane outside the log's order: they stay in their spans,
and reading stops at the window. Late arrivals (`late_arrivals.py`) and entries behind a held contact
(`held_contacts.py`) that had been read when reading paused are parked whatever their number.

When a parked entry returns to its lane:

| it gets its outcome                 | it returns                                                       |
|-------------------------------------|------------------------------------------------------------------|
| in the run that parked it           | never: its lane has had it all the time                          |
| in a later run that starts at or    | first of all, before the log is read (`leftovers.py`)            |
| above it                            |                                                                  |
| in a later run that starts below it | where the log is read again, so its lane stays in log order      |

Its outcome is counted outside the log's order, and its row goes with the same commit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import anyio

from kiva_stream.model.deliveries import Batch, Delivery
from kiva_stream.model.ids import ContactId
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import Position
from kiva_stream.pipeline.lanes import Lane, Lanes
from kiva_stream.pipeline.reopened_spans import MOST_IN_MEMORY, ReopenedSpans

CONTACT_WAIT_S = 30.0  # a contact and its orders take longer only when something is wrong with them
ANSWER_WAIT_S = 5.0  # other contacts wait no longer for the look-up of an event
POLL_S = 1.0
UP_FOR_S = 5.0  # soon after an outage most get their answers: until then nothing is parked


def began_waiting_for_contact(batch: Batch, now: float) -> None:
    """Note that a batch waits for its contact and orders."""
    batch.park_from(now + CONTACT_WAIT_S)


def began_waiting_for_answer(batch: Batch, now: float) -> None:
    """Note that a batch waits for an answer about an event; of many such waits the first counts."""
    batch.park_from(now + ANSWER_WAIT_S)


class Parking:
    """Parks entries of lanes that wait long; `reopened` stores what is parked.

    Nothing is parked while `parked_max` entries are.
    """

    def __init__(
        self, reopened: ReopenedSpans, parked_max: int, is_down: Callable[[], bool] = lambda: False
    ) -> None:
        self._reopened = reopened
        self._parked_max = parked_max
        self._is_down = is_down

    async def run(self, lanes: Lanes) -> None:
        """Look at the lanes again and again, until cancelled."""
        up_since = anyio.current_time()
        while True:
            await anyio.sleep(POLL_S)
            now = anyio.current_time()
            if self._is_down():
                up_since = now
            elif now - up_since >= UP_FOR_S:
                self.park_waiting(lanes, now)

    def park_waiting(self, lanes: Lanes, now: float) -> None:
        """Park the lanes whose batch still waits at its `park_at`, so that reading goes on for others.

        If there is no room for a whole lane, the next call parks more of it.
        """
        for lane in lanes.at_sender:
            batch = lane.batch
            if batch.park_at <= now and not lane.is_parked:
                lane.set_parked(
                    is_whole=self._park_entries(batch.done, batch.deliveries, batch.contact.id)
                    and self._park_entries(0, lane.gathered, batch.contact.id)
                )

    def park_behind(self, lane: Lane) -> None:
        """Park the newest delivery of a lane that is parked, since it waits for the same answer."""
        if lane.is_parked:
            newest = len(lane.gathered) - 1
            lane.set_parked(is_whole=self._park_entries(newest, lane.gathered, lane.batch.contact.id))

    def has_room(self, deliveries: Collection[Delivery]) -> bool:
        """Return whether all of these deliveries can be parked."""
        return self._reopened.parked_count + len(self._new(deliveries)) <= self._parked_max

    def leave(
        self, deliveries: Collection[Delivery], contact: ContactId, *, beyond_max: bool = False
    ) -> dict[Position, Reason] | None:
        """Park deliveries and leave them to the state; return the dead letters among them, which stay dead.

        None: there is no room, and none is parked. Contact checks are dropped: the contact is dirty, so that
        its next batch does the same.
        """
        if not (beyond_max or self.has_room(deliveries)):
            return None
        entries = [each for each in deliveries if each.is_entry]
        for each in self._new(entries):
            self._reopened.park(each, contact)
        left = {each.position: self._reopened.leave(each.position, contact) for each in entries}
        return {position: why for position, why in left.items() if why is not None}

    def _new(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        return [each for each in deliveries if each.is_entry and each.position not in self._reopened]

    def has_room_in_memory(self) -> bool:
        """Return whether more entries may have a lane outside the log's order."""
        return len(self._reopened.positions) < MOST_IN_MEMORY

    def _park_entries(self, first: int, deliveries: list[Delivery], contact: ContactId) -> bool:
        """Park the deliveries from the index `first` on, while there is room; return whether all are parked.

        Contact checks are in no page, and reopened entries have left theirs: both are left as they are. So
        nothing is parked twice when a lane is looked at again.
        """
        for index in range(first, len(deliveries)):
            delivery = deliveries[index]
            if delivery.is_entry and delivery.position not in self._reopened:
                if self._reopened.parked_count >= self._parked_max or not self.has_room_in_memory():
                    return False
                deliveries[index] = self._reopened.park(delivery, contact)
        return True
