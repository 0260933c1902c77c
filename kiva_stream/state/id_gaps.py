"""The id gaps of a log that is read without a horizon (the table `gap`)."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from kiva_stream.model.positions import IdGap, Position
from kiva_stream.state.leases import Lease
from kiva_stream.state.store import Connection, Store, columns


class SiteIdGaps:
    """Implements the port IdGaps for the site that `lease` holds."""

    def __init__(self, store: Store, lease: Lease, site_id: int) -> None:
        self._store = store
        self._lease = lease
        self._site_id = site_id

    async def record(self, after: int, until: int, gaps: Sequence[IdGap]) -> None:
        """Store gaps in one transaction, which renews the lease first."""

        async def writing(connection: Connection) -> None:
            await self._renew(connection)
            await self._fetch(connection, "delete_id_gaps", after, until)
            await self._fetch(connection, "end_id_gap", after)
            await self._fetch(connection, "insert_id_gaps", *columns(gaps, 3))

        await self._store.write(writing)

    async def page(self, after: int, until: int, count: int) -> list[IdGap]:
        """Return gaps by their first id."""
        rows = await self._store.fetch("id_gaps", self._site_id, after, until, count)
        return [IdGap(*row) for row in rows]

    async def record_found(
        self, before: Sequence[IdGap], after: Sequence[IdGap], found: Sequence[Position]
    ) -> None:
        """Replace gaps and park entries in one transaction, which renews the lease first."""
        firsts = [gap.first for gap in (*before, *after)]  # those after are there when this is repeated

        async def writing(connection: Connection) -> None:
            await self._renew(connection)
            await self._fetch(connection, "delete_id_gaps_by_first", firsts)
            await self._fetch(connection, "insert_id_gaps", *columns(after, 3))
            await self._fetch(connection, "park_late_entries", *columns(found, 2))

        await self._store.write(writing)

    async def expire(self, keep_s: float) -> None:
        """Delete old gaps, by the clock of the state database."""
        await self._store.fetch("expire_id_gaps", self._site_id, keep_s)

    async def _renew(self, connection: Connection) -> None:
        await self._fetch(connection, "renew_lease", self._lease.token, self._lease.lease_s)

    async def _fetch(self, connection: Connection, block: str, *args: object) -> list[asyncpg.Record]:
        return await connection.fetch(self._store.sql[block], self._site_id, *args)  # type: ignore[no-any-return]
