"""The gaps of ids that the log was read past without a horizon: implements the port Gaps."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from kiva_stream.model.positions import IdGap, Position
from kiva_stream.state.leases import Lease
from kiva_stream.state.store import Connection, Store, columns


class SiteIdGaps:
    """The gaps of one site, which `lease` holds.

    Every call raises CheckpointError; what writes raises HeldError when the lease was lost.
    """

    def __init__(self, store: Store, lease: Lease, site_id: int) -> None:
        self._store = store
        self._lease = lease
        self._site_id = site_id

    async def record(self, after: int, until: int, gaps: Sequence[IdGap]) -> None:
        """Have the state say just these of the ids above `after` up to `until`, which have been read."""
        async with self._store.transaction() as connection:
            await self._require(connection)
            await self._fetch(connection, "drop_gaps", after, until)
            await self._fetch(connection, "cut_gap", after)
            await self._fetch(connection, "add_gaps", *columns(gaps, 3))

    async def page(self, after: int, until: int, count: int) -> list[IdGap]:
        """Return up to `count` gaps above one id that end at or below another, by their ids."""
        rows = await self._store.fetch("gaps", self._site_id, after, until, count)
        return [IdGap(*row) for row in rows]

    async def record_found(
        self, before: Sequence[IdGap], after: Sequence[IdGap], found: Sequence[Position]
    ) -> None:
        """Put what is left of gaps in their place, and park what was found in them. All of it, or nothing."""
        async with self._store.transaction() as connection:
            await self._require(connection)
            await self._fetch(connection, "close_gaps", [gap.first for gap in before])
            await self._fetch(connection, "add_gaps", *columns(after, 3))
            await self._fetch(connection, "park_late", *columns(found, 2))

    async def expire(self, keep_s: float) -> None:
        """Forget the gaps that have been looked at for this long."""
        await self._store.fetch("forget_gaps", self._site_id, keep_s)

    async def _require(self, connection: Connection) -> None:
        await self._fetch(connection, "renew", self._lease.token, self._lease.lease_s)

    async def _fetch(self, connection: Connection, block: str, *args: object) -> list[asyncpg.Record]:
        return await connection.fetch(self._store.sql[block], self._site_id, *args)  # type: ignore[no-any-return]
