"""The state side of `rewind`: moves the checkpoint back, in one transaction with what is stored above it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from typing import NamedTuple

import asyncpg

from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import Position
from kiva_stream.state.leases import Lease
from kiva_stream.state.store import LONG_S, Connection, Store, columns

PAGE_ROWS = 10_000

Txids = Callable[[Collection[int]], Awaitable[Mapping[int, int]]]  # of entries, by their ids in the log


class KeptCheckpoint(NamedTuple):
    """What a rewind needs of the checkpoint."""

    account: str
    watermark: Position
    events_since: datetime | None
    horizon: bool  # whether the log was read with one; else positions are (0, id)
    pruned_to: Position | None  # up to here the ledger was pruned; None: it was not
    done_to_id: int  # without a horizon: every entry with an id up to here has its outcome


class NewStart(NamedTuple):
    """What the checkpoint becomes."""

    to: Position
    since: str
    events_since: datetime | None
    horizon: bool
    resend: bool  # deliver again what the ledger holds, and what is dead


class KeptAbove(NamedTuple):
    """How much is stored above a position."""

    deliveries: int
    dead_letters: int


class SiteRewinds:
    """The rewinds of one site. Every call raises CheckpointError."""

    def __init__(self, store: Store, site_id: int) -> None:
        self._store = store
        self._site_id = site_id

    async def checkpoint(self) -> KeptCheckpoint | None:
        """Return the checkpoint, None when the site has none."""
        for row in await self._store.fetch("checkpoint_to_rewind", self._site_id):
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
        """Return how much is stored above a position."""
        (row,) = await self._store.fetch("count_above", self._site_id, *position, timeout_s=LONG_S)
        return KeptAbove(**row)

    async def move(self, lease: Lease, kept: KeptCheckpoint, start: NewStart, *, txids: Txids) -> KeptAbove:
        """Move the checkpoint back in one transaction; return how much was stored above it.

        If the horizon is switched on or off, positions change their form, and stored ones are rewritten.
        Raises HeldError if the lease was lost.
        """
        async with self._store.transaction() as connection:
            # Meanwhile the shop's database is asked for transaction ids, for as long as that takes.
            await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            if kept.horizon and not start.horizon:
                await self._fetch(connection, "drop_txids")
            elif start.horizon and not kept.horizon:
                await self._set_txids(connection, txids)
            (row,) = await self._fetch(connection, "count_above", *start.to)
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
                Reason.AC_REJECTED,
            )
            return KeptAbove(**row)

    async def _set_txids(self, connection: Connection, txids: Txids) -> None:
        """Write the transaction ids of rows that have none, a page at a time. One not in the log keeps 0."""
        last = 0
        while rows := await self._fetch(connection, "ids_without_txid", last, PAGE_ROWS):
            found = await txids([row["log_id"] for row in rows])
            positions = [(txid, log_id) for log_id, txid in found.items()]
            await self._fetch(connection, "set_txids", *columns(positions, 2))
            last = rows[-1]["log_id"]
        (row,) = await self._fetch(connection, "checkpoint_ids")
        found = await txids([*row["out_ids"], row["forgotten_id"] or 0])
        intents = [(found.get(log_id, 0), log_id) for log_id in row["out_ids"]]
        await self._fetch(
            connection, "set_checkpoint_txids", *columns(intents, 2), found.get(row["forgotten_id"])
        )

    async def _fetch(self, connection: Connection, block: str, *args: object) -> list[asyncpg.Record]:
        return await connection.fetch(  # type: ignore[no-any-return]
            self._store.sql[block], self._site_id, *args, timeout=LONG_S
        )
