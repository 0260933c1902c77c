"""The shop's database: a few connections that read, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import asyncpg

from kiva_stream import sql
from kiva_stream.errors import SourceError
from kiva_stream.ports import Sleep
from kiva_stream.settings import SourceSettings, reading_dsn

T = TypeVar("T")

# What may pass by itself: a restart, a failover, a cut connection, a statement that took too long once.
PASSING = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # so asyncpg says when an idle connection is just being cut
    OSError,
    TimeoutError,
)
WAITS_S = (1.0, 2.0, 4.0, 8.0)  # between attempts; then the operator is told


class Source:
    """A pool of at most `max_connections`, in sessions that can only read.

    Every call raises SourceError: at once for what stays wrong, after a few attempts for what may pass.
    """

    def __init__(self, pool: asyncpg.Pool, schema: str, sleep: Sleep = anyio.sleep) -> None:
        self._pool = pool
        self._sql = sql.load("kiva_stream.kiva", "queries.sql", schema)
        self._sleep = sleep

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: SourceSettings, sleep: Sleep = anyio.sleep) -> AsyncIterator[Source]:
        """Connect, and close what is open on leaving. Raises SourceError when the server is out of reach."""
        try:
            with reading_dsn("source.dsn", SourceError):
                pool = await asyncpg.create_pool(
                    settings.dsn,
                    min_size=1,
                    max_size=settings.max_connections,
                    server_settings={
                        "application_name": "kiva_stream source",
                        "default_transaction_read_only": "on",
                        "statement_timeout": str(round(settings.statement_timeout_s * 1000)),
                    },
                )
        except (*PASSING, asyncpg.PostgresError) as error:
            raise SourceError(f"Cannot reach the shop's database (source.dsn): {_text(error)}") from error
        try:
            yield cls(pool, settings.schema, sleep)
        finally:
            pool.terminate()

    async def fetch(self, block: str, *args: object) -> list[asyncpg.Record]:
        """Return the rows of a named query."""
        return await self.read(lambda connection: connection.fetch(self._sql[block], *args))

    async def fetch_if_quick(self, block: str, *args: object) -> list[asyncpg.Record] | None:
        """Return the rows of a named query; None when it takes longer than a statement may."""

        async def reading(connection: asyncpg.Connection) -> list[asyncpg.Record] | None:
            try:
                return await connection.fetch(self._sql[block], *args)  # type: ignore[no-any-return]
            except asyncpg.QueryCanceledError:
                return None

        return await self.read(reading)

    @asynccontextmanager
    async def cursor(
        self, connection: asyncpg.Connection, block: str, *args: object
    ) -> AsyncIterator[asyncpg.cursor.Cursor]:
        """Open a server-side cursor on a named query; its transaction ends with the block."""
        async with connection.transaction(readonly=True):
            yield await connection.cursor(self._sql[block], *args)

    async def read(self, reading: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Run `reading` on a connection of its own, again from its start when the trouble may pass."""
        for wait_s in WAITS_S:
            try:
                return await self._once(reading)
            except PASSING:
                await self._sleep(wait_s)
        try:
            return await self._once(reading)
        except PASSING as error:
            raise SourceError(f"The shop's database cannot be read (source.dsn): {_text(error)}") from error

    async def _once(self, reading: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        try:
            async with self._pool.acquire() as connection:
                return await reading(connection)
        except PASSING:
            raise
        except asyncpg.PostgresError as error:
            raise SourceError(f"The shop's database refuses a query; run `check`: {_text(error)}") from error


def _text(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
