"""The state side of `rewind`: the checkpoint moved back, and what is kept above it, in one transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from typing import NamedTuple

import asyncpg

from kiva_stream.model.positions import Position
from kiva_stream.state.leases import Lease
from kiva_stream.state.store import Connection, Store, columns

PAGE_ROWS = 10_000

Txids = Callable[[Collection[int]], Awaitable[Mapping[int, int]]]  # of entries, by their ids in the log


class KeptCheckpoint(NamedTuple):
    """What is kept with the checkpoint."""

    account: str
    watermark: Position
    events_since: datetime | None
    horizon: bool  # whether the log was read below one; else positions are (0, id)
    pruned_to: Position | None  # up to here deliveries may be missing from the ledger; None: none is
    done_to_id: int  # without a horizon: each entry of an id up to here has its outcome


class NewStart(NamedTuple):
    """What is to be kept instead."""

    to: Position
    since: str
    events_since: datetime | None
    horizon: bool
    resend: bool  # also what the ledger holds, and what is dead


class KeptAbove(NamedTuple):
    """How much is kept above a position."""

    deliveries: int
    dead_letters: int


class SiteRewinds:
    """The checkpoint of one site, as far as a rewind looks at it. Every call raises CheckpointError."""

    def __init__(self, store: Store, site_id: int) -> None:
        self._store = store
        self._site_id = site_id

    async def checkpoint(self) -> KeptCheckpoint | None:
        """Return what is kept, None when the site has no checkpoint."""
        for row in await self._store.fetch("kept_start", self._site_id):
            return KeptCheckpoint(
                account=row["account"],
                watermark=Position(row["watermark_txid"], row["watermark_id"]),
                events_since=row["events_since"],
                horizon=row["horizon"],
                pruned_to=None
                if row["forgotten_id"] is None
                else Position(row["forgotten_txid"], row["forgotten_id"]),
                done_to_id=row["done_to_id"],
            )
        return None

    async def above(self, position: Position) -> KeptAbove:
        """Return how much is kept above a position."""
        (row,) = await self._store.fetch("above", self._site_id, *position)
        return KeptAbove(**row)

    async def move(self, lease: Lease, kept: KeptCheckpoint, start: NewStart, txids: Txids) -> KeptAbove:
        """Move the checkpoint back; return how much was kept above it. All of it, or nothing.

        Where positions change their meaning, what is kept gets its new ones. Raises HeldError when the lease
        was lost.
        """
        async with self._store.transaction() as connection:
            if kept.horizon and not start.horizon:
                await self._fetch(connection, "drop_txids")
            elif start.horizon and not kept.horizon:
                await self._set_txids(connection, txids)
            (row,) = await self._fetch(connection, "above", *start.to)
            await self._fetch(
                connection,
                "rewind",
                *start.to,
                start.resend,
                start.since,
                start.events_since,
                start.horizon,
                lease.token,
                lease.lease_s,
            )
            return KeptAbove(**row)

    async def _set_txids(self, connection: Connection, txids: Txids) -> None:
        """Give what is kept by id alone its transaction ids, a page at a time; what the log lost stays."""
        last = 0
        while rows := await self._fetch(connection, "keys_without_txid", last, PAGE_ROWS):
            found = await txids([row["log_id"] for row in rows])
            places = [(txid, log_id) for log_id, txid in found.items()]
            await self._fetch(connection, "set_txids", *columns(places, 2))
            last = rows[-1]["log_id"]
        (row,) = await self._fetch(connection, "kept_ids")
        found = await txids([*row["out_ids"], row["forgotten_id"] or 0])
        places = [(found.get(log_id, 0), log_id) for log_id in row["out_ids"]]
        await self._fetch(connection, "set_kept_txids", *columns(places, 2), found.get(row["forgotten_id"]))

    async def _fetch(self, connection: Connection, block: str, *args: object) -> list[asyncpg.Record]:
        return await connection.fetch(self._store.sql[block], self._site_id, *args)  # type: ignore[no-any-return]
