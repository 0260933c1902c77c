"""Log entries and changed rows, as they are read from the shop."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from types import MappingProxyType
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
    """Entries that are parked, dead letters to be replayed, or late, sorted by position.

    A position without an entry is of one that the log has lost.
    """

    positions: Collection[Position]
    entries: list[Entry]
    dead_letters: Mapping[Position, Reason] = MappingProxyType(
        {}
    )  # the reasons of those that are dead letters
    are_parked: bool = False  # in the state, since they were found late
