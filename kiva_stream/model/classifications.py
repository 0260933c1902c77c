"""What the classifier makes of an entry: one of four."""

from __future__ import annotations

import msgspec

from kiva_stream.model.event_catalog import EventLine
from kiva_stream.model.ids import OrderId
from kiva_stream.model.outcomes import Reason


class Event(msgspec.Struct, frozen=True, gc=False):
    """Becomes an event of its contact."""

    event_line: EventLine
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


Classification = Event | SyncOnly | Noise | Reject
FOR_A_CONTACT = (Event, SyncOnly)  # those whose contact is needed
