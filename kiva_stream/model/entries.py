"""Log entries and changed rows, as they are read from the shop."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec

from kiva_stream.model.customers import Customer
from kiva_stream.model.ids import CustomerId, OrderId
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import Position


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A row of the system log, with its customer."""

    position: Position
    occurred_at: datetime
    inserted_at: datetime
    action: str | None  # None: legacy free text
    actor_type: str | None
    admin_user: str | None
    message: str  # its first 2,000 characters
    data: str | None  # JSON text
    customer_id: CustomerId | None  # as the row says, else as its text or an address in it says
    customer: Customer | None  # None: no such customer
    notes: tuple[str, ...] = ()  # what was odd about it; counted, never a reason to stop


class Change(NamedTuple):
    """A customer whose row, or whose orders, the shop changed; no entry need say so."""

    customer: Customer
    changed_at: datetime
    orders: frozenset[OrderId] = frozenset()


class Changes(NamedTuple):
    """Changes that were found together."""

    changes: list[Change]


class ReopenedEntries(NamedTuple):
    """Entries to be reopened: parked ones, dead letters to be replayed, or late arrivals."""

    to_reopen: Mapping[Position, Reason | None]  # all positions; with the reason, if it is a dead letter
    entries: list[Entry]  # in log order; an entry that the log has lost is missing
    are_late: bool = False  # found late by this run, which parked them
