"""The shop's writer: 60 entries a second, over 150 customers, each in a transaction of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import asyncpg

from benchmarks.histories import SITE_ID

PER_SECOND = 60
DAY_S = 86_400
WRITTEN = "category = 'customer' AND action = 'logout' AND data ? 'n'"  # by it, in the log

_WRITE = """
INSERT INTO kiva.system_log (site_id, occurred_at, category, action, actor_type, message, customer_id, data)
SELECT site_id, clock_timestamp(), 'customer', 'logout', 'customer', 'Logged out', id,
       jsonb_build_object('n', $2::int)
FROM kiva.customers
WHERE site_id = $1 AND deleted_at IS NULL AND NOT is_test AND email LIKE '%_@_%._%'
ORDER BY id LIMIT 1 OFFSET $2::int % 150
"""


class Writer:
    """Writes entries at their moments; `written` says how many so far. All of them become events."""

    def __init__(self, shop: asyncpg.Connection) -> None:
        self._shop = shop
        self.written = 0

    async def write(self, entries: int) -> float:
        """Write so many; return the seconds it took."""
        began_at = anyio.current_time()
        for number in range(entries):
            await anyio.sleep(max(0.0, began_at + number / PER_SECOND - anyio.current_time()))
            await self._shop.execute(_WRITE, SITE_ID, number)
            self.written += 1
        return anyio.current_time() - began_at


@asynccontextmanager
async def writing(dsn: str) -> AsyncIterator[Writer]:
    """Write all the time in this block."""
    connection = await asyncpg.connect(dsn)
    try:
        async with anyio.create_task_group() as group:
            writer = Writer(connection)
            group.start_soon(writer.write, PER_SECOND * DAY_S)
            yield writer
            group.cancel_scope.cancel()
    finally:
        connection.terminate()
