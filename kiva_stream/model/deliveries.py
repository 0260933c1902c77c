"""Deliveries, and the batches in which a contact gets them."""

from __future__ import annotations

import math
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
    """An entry whose contact must be at ActiveCampaign before it is done; most have an event to send too."""

    position: Position
    inserted_at: datetime
    span: Span
    customer: CustomerId
    event_line: EventLine | None  # None: sync-only
    eventdata: str = ""
    notes: tuple[str, ...] = ()
    order: OrderId | None = None  # the one it is about
    is_entry: bool = True  # False: a change, which is no entry of the log and has no outcome


class Need(NamedTuple):
    """What a batch waits for: a contact, and orders, as entries up to a position may have changed them."""

    contact: Contact
    position: Position
    inserted_at: datetime  # of the newest of them
    orders: frozenset[OrderId] = frozenset()
    resubscribes: bool = False  # one of them, young enough, says that the customer subscribed again


class Batch(msgspec.Struct):
    """Consecutive work of one contact, in log order, and how far the sender has come with it."""

    contact: Contact
    deliveries: list[Delivery]
    done: int = 0  # of the deliveries, from the first
    park_at: float = math.inf  # when it is parked, by the sender's clock; an answer may come before

    @property
    def current(self) -> Delivery | None:
        """The delivery that is worked on, None when all are done. It may be parked meanwhile."""
        return self.deliveries[self.done] if self.done < len(self.deliveries) else None

    def lookahead(self, count: int) -> list[Position]:
        """Return the positions of up to so many events after the current delivery."""
        rest = islice(self.deliveries, self.done + 1, None)
        return list(islice((each.position for each in rest if each.event_line is not None), count))

    def finish_current(self) -> None:
        """Go on to the next delivery."""
        self.done += 1
        self.park_at = math.inf

    def park_from(self, moment: float) -> None:
        """Have it parked at a moment, if it still waits then and is not to be parked before."""
        self.park_at = min(self.park_at, moment)

    def end_wait(self) -> None:
        """Have it parked no more: what it waited for is there."""
        self.park_at = math.inf
