"""Deliveries, and the batches in which a contact gets them."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from itertools import islice
from typing import NamedTuple

import msgspec

from kiva_stream.model.contacts import Contact
from kiva_stream.model.event_catalog import EventLine
from kiva_stream.model.ids import CustomerId, OrderId
from kiva_stream.model.outcomes import Span
from kiva_stream.model.positions import Position


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """What waits in a contact's lane: an entry, with its event if it has one, or a contact check.

    It is done when ActiveCampaign shows the contact and its orders as they are now, and has the event.
    """

    position: Position
    inserted_at: datetime
    span: Span
    customer: CustomerId
    event_line: EventLine | None  # None: no event
    eventdata: str = ""
    notes: tuple[str, ...] = ()
    order: OrderId | None = None  # the one it is about
    is_entry: bool = True  # False: a contact check, which is no entry of the log and has no outcome
    is_reopened: bool = False  # it was parked, dead or found late: it comes outside the log's order


def _is_current() -> bool:
    return False


class Need(NamedTuple):
    """What a batch waits for: a contact, and orders, as entries up to a position may have changed them."""

    contact: Contact
    position: Position
    inserted_at: datetime  # the latest that these entries have; not always that of the one at `position`
    orders: frozenset[OrderId] = frozenset()
    resubscribes: bool = False  # back to the list: an entry, young enough, asks for e-mails again
    is_late: Callable[[], bool] = _is_current  # whether each entry that asks for e-mails comes late by now


class Batch(msgspec.Struct):
    """Consecutive work of one contact, in log order, and how far the sender has come with it."""

    contact: Contact
    deliveries: list[Delivery]
    done: int = 0  # of the deliveries, from the first
    park_at: float = math.inf  # when its entries are parked if the sender still waits, by the sender's clock

    @property
    def current(self) -> Delivery:
        """The delivery that is worked on; there is one while `done` is less than the number of deliveries.

        Parking replaces a delivery by one with another span, so an outcome goes to the one that is current
        when it is recorded, not to the one that was current before an await.
        """
        return self.deliveries[self.done]

    def lookahead(self, count: int) -> list[Position]:
        """Return the positions of up to so many events after the current delivery."""
        rest = islice(self.deliveries, self.done + 1, None)
        return list(islice((each.position for each in rest if each.event_line is not None), count))

    def finish_current(self) -> None:
        """Go on to the next delivery."""
        self.done += 1
        self.park_at = math.inf

    def park_from(self, moment: float) -> None:
        """Have the batch parked at a moment, unless the wait ends before, or an earlier moment is set."""
        self.park_at = min(self.park_at, moment)

    def end_wait(self) -> None:
        """Cancel the moment of parking: what the batch waited for is there. What is parked stays so."""
        self.park_at = math.inf
