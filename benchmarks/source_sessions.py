"""Watches kiva_stream's sessions at the shop's server: how many, how long their transactions, what they cost.

Between two looks, 20 ms, a short transaction is missed, and a long one goes on a little longer than it was
seen to. The processor time of a session is that of its process, so the server must be on this machine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import asyncpg

LOOK_EVERY_S = 0.02

_LOOK = """
SELECT pid, coalesce(extract(epoch FROM clock_timestamp() - xact_start), 0)::float8
FROM pg_stat_activity WHERE application_name = 'kiva_stream source'
"""


class Sessions:
    """What was seen of them so far; parallel workers are seen too."""

    def __init__(self) -> None:
        self.most = 0
        self.longest_s = 0.0  # of their transactions
        self._cpu_ns: dict[int, int] = {}
        self._now = 0

    @property
    def cpu_s(self) -> float:
        """Processor time of all of them, each until it was last seen."""
        return sum(self._cpu_ns.values()) / 1e9

    async def look_on(self, connection: asyncpg.Connection) -> None:
        """Look again and again, until cancelled."""
        while True:
            rows = await connection.fetch(_LOOK)
            self._now = len(rows)
            self.most = max(self.most, self._now)
            for pid, transaction_s in rows:
                self.longest_s = max(self.longest_s, transaction_s)
                self._cpu_ns[pid] = _cpu_ns(pid) or self._cpu_ns.get(pid, 0)
            await anyio.sleep(LOOK_EVERY_S)

    async def gone(self) -> None:
        """Return when there is none: what a session did is told by the server when it ends."""
        while self._now:  # noqa: ASYNC110  it is the server's condition
            await anyio.sleep(LOOK_EVERY_S)


@asynccontextmanager
async def watched(dsn: str) -> AsyncIterator[Sessions]:
    """Watch the sessions of a server in this block, from any of its databases, until there is none."""
    connection, seen = await asyncpg.connect(dsn), Sessions()
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(seen.look_on, connection)
            yield seen
            await seen.gone()
            group.cancel_scope.cancel()
    finally:
        connection.terminate()


def _cpu_ns(pid: int) -> int:
    """Return the processor time of a process; 0 when it has ended. Raises OSError where that is not told."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        if Path(f"/proc/{pid}").exists():
            raise
        return 0
