"""The held records of a site (the table `held`)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

import msgspec

from kiva_stream.model.held_records import HeldKey, HeldKind, HeldRecord
from kiva_stream.model.ids import ContactId, CustomerId, OrderId
from kiva_stream.model.positions import Position
from kiva_stream.state.store import Store, columns

OLDEST_FIRST, NEWEST_FIRST = 1, -1


class ListedHeld(msgspec.Struct, frozen=True):
    """A held record, as it is listed."""

    key: HeldKey
    customers: list[CustomerId]  # of its contact
    since: datetime
    attempts: int
    next_try: datetime | None  # None: a replay alone tries it
    reply: str
    parked: int  # entries of the contact


class ListedParked(msgspec.Struct, frozen=True):
    """A parked entry, with what is held longest of its contact, if anything is."""

    position: Position
    customers: list[CustomerId]
    parked_at: datetime
    key: HeldKey | None
    attempts: int | None
    next_try: datetime | None
    reply: str


class HeldFilter(NamedTuple):
    """Selects held records by each of its fields."""

    is_all: bool = False
    customers: Collection[CustomerId] = ()  # those of their contacts
    orders: Collection[OrderId] = ()
    positions: Collection[Position] = ()  # those of contacts with entries parked there


class StoredHeldRecords:
    """Implements the port HeldRows for one site."""

    def __init__(self, store: Store, site_id: int) -> None:
        self._store = store
        self._site_id = site_id

    async def read(self, *, is_due: bool = False) -> list[HeldRecord]:
        """Return the rows of the site: all, or those whose next try is due."""
        return [
            HeldRecord(
                HeldKey(HeldKind(row["kind"]), row["id"]),
                contact=row["contact_id"],
                fingerprint=row["fingerprint"],
                reply=row["reply"],
                attempts=row["attempts"],
                due_in_s=row["due_in_s"],
                is_suspect=row["suspect"],
                is_discarded=row["is_discarded"],
                sent=row["sent"],
            )
            for row in await self._store.fetch("held_records", self._site_id, is_due)
        ]

    async def record(self, held: Collection[HeldRecord]) -> None:
        """Write the rows in one statement."""
        rows = [
            (
                *(*each.key, each.contact, each.fingerprint),
                *(each.reply, each.attempts, each.is_suspect, each.due_in_s, each.sent),
            )
            for each in held
        ]
        await self._store.fetch("record_held", self._site_id, *columns(rows, 9))

    async def move(self, key: HeldKey, contact: ContactId) -> None:
        """Set whose entries wait for a record."""
        await self._store.fetch("move_held", self._site_id, *key, contact)

    async def end(self, keys: Collection[HeldKey]) -> None:
        """Delete the rows."""
        await self._store.fetch("end_held", self._site_id, *columns(list(keys), 2))

    # --- for a person ---

    async def listed(self) -> list[ListedHeld]:
        """Return what is held, the oldest first."""
        return [
            ListedHeld(
                HeldKey(HeldKind(row["kind"]), row["id"]),
                customers=row["customers"],
                since=row["since"],
                attempts=row["attempts"],
                next_try=row["next_try"],
                reply=row["reply"],
                parked=row["parked"],
            )
            for row in await self._store.fetch("listed_held", self._site_id)
        ]

    async def parked(
        self, customers: Collection[CustomerId] | None, count: int, *, oldest_first: bool
    ) -> tuple[int, list[ListedParked]]:
        """Return how many entries are parked, of these customers or all (None), and up to `count` of them."""
        whose = None if customers is None else list(customers)
        (total,) = await self._store.fetch("count_parked", self._site_id, whose)
        direction = OLDEST_FIRST if oldest_first else NEWEST_FIRST
        rows = await self._store.fetch("listed_parked", self._site_id, whose, direction, count)
        return total["count"], [
            ListedParked(
                Position(row["txid"], row["log_id"]),
                customers=row["customers"],
                parked_at=row["parked_at"],
                key=HeldKey(HeldKind(row["kind"]), row["id"]) if row["kind"] else None,
                attempts=row["attempts"],
                next_try=row["next_try"],
                reply=row["reply"] or "",
            )
            for row in rows
        ]

    async def places(
        self, positions: Collection[Position], orders: Collection[OrderId]
    ) -> set[Position | OrderId]:
        """Return at which of these positions an entry is parked, and which of these orders are held."""
        txids_and_ids = columns(list(positions), 2)
        rows = await self._store.fetch("held_places", self._site_id, *txids_and_ids, list(orders))
        return {
            OrderId(row["log_id"]) if row["txid"] is None else Position(row["txid"], row["log_id"])
            for row in rows
        }

    async def ask(self, selected: HeldFilter) -> int:
        """Make the next try of the selected records due now; return how many there are."""
        (row,) = await self._store.fetch("try_held", self._site_id, *_arguments(selected))
        return row["count"]  # type: ignore[no-any-return]  # bigint

    async def count_undiscarded(self, selected: HeldFilter) -> int:
        """Return how many records `discard` would discard."""
        (row,) = await self._store.fetch("count_undiscarded_held", self._site_id, *_arguments(selected))
        return row["count"]  # type: ignore[no-any-return]  # bigint

    async def discard(self, selected: HeldFilter) -> int:
        """Have the selected records refused by the next try; return how many were not discarded before."""
        (row,) = await self._store.fetch("discard_held", self._site_id, *_arguments(selected))
        return row["count"]  # type: ignore[no-any-return]  # bigint


def _arguments(selected: HeldFilter) -> tuple[object, ...]:
    positions = columns(list(selected.positions), 2)
    return selected.is_all, list(selected.customers), list(selected.orders), *positions
