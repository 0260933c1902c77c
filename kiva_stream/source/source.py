"""The shop's database: a pool of connections that can only read, and the repetition of failed reads."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import asyncpg

from kiva_stream.errors import SourceError
from kiva_stream.observability.incidents import Incidents
from kiva_stream.primitives import sql_blocks
from kiva_stream.primitives.clock import Sleep
from kiva_stream.settings.dsn import reading_dsn
from kiva_stream.settings.sections import SourceSettings

T = TypeVar("T")

# May pass by itself: a restart, a failover, a cut connection, a statement that took too long once.
PASSING = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # asyncpg raises it when an idle connection is being cut, and on a standby
    asyncpg.InvalidCachedStatementError,  # a column has another type than when the statement was prepared
    OSError,
    TimeoutError,
)
WAITS_S = (1.0, 2.0, 4.0, 8.0)  # between attempts; then SourceError
FOLLOWING_WAITS_S = (*WAITS_S, *[15.0] * 19)  # five minutes; then systemd restarts the process
CONNECT_S = 10.0
QUICK_S = 5.0  # so short a transaction does not disturb the shop
STANDBY = (
    "The shop's database is a standby, or still in recovery: set source.dsn to the primary, or wait "
    "until the recovery has ended."
)


class Source:
    """A pool of at most `max_connections`, in sessions that can only read.

    Every call raises SourceError. An error that stays is raised at once. One that may pass is raised after
    some attempts, which are `waits_s` apart, and within the sum of these. An incident is open meanwhile.
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        settings: SourceSettings,
        sleep: Sleep = anyio.sleep,
        *,
        waits_s: Sequence[float] = WAITS_S,
        incidents: Incidents | None = None,
    ) -> None:
        self._pool = pool
        replaced = () if settings.horizon else ("queries_by_id.sql",)
        self._sql = sql_blocks.load("kiva_stream.source", settings.schema, "queries.sql", *replaced)
        self._statement_s = settings.statement_timeout_s
        self._sleep = sleep
        self._waits_s = waits_s
        self._incidents = incidents

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: SourceSettings,
        sleep: Sleep = anyio.sleep,
        *,
        waits_s: Sequence[float] = WAITS_S,
        incidents: Incidents | None = None,
    ) -> AsyncIterator[Source]:
        """Connect to a primary; close the connections on leaving.

        Raises SourceError if the server is out of reach.
        """
        try:
            with reading_dsn("source.dsn", SourceError):
                pool = await asyncpg.create_pool(
                    settings.dsn,
                    min_size=1,
                    max_size=settings.max_connections,
                    timeout=CONNECT_S,
                    target_session_attrs="primary",  # also after a failover
                    server_settings={
                        "application_name": "kiva_stream source",
                        "default_transaction_read_only": "on",
                        # Parallel workers would be processes beside those that max_connections allows.
                        "max_parallel_workers_per_gather": "0",
                        # PostgreSQL refuses a query from which a policy would hide rows.
                        "row_security": "off",
                        "statement_timeout": str(round(settings.statement_timeout_s * 1000)),
                    },
                )
        except asyncpg.TargetServerAttributeNotMatched as error:
            raise SourceError(STANDBY) from error
        except (*PASSING, asyncpg.PostgresError) as error:
            raise SourceError(f"Cannot reach the shop's database (source.dsn): {_text(error)}") from error
        try:
            yield cls(pool, settings, sleep, waits_s=waits_s, incidents=incidents)
        finally:
            pool.terminate()

    async def fetch(self, block: str, *args: object) -> list[asyncpg.Record]:
        """Return the rows of a query block."""
        return await self.read(lambda connection: connection.fetch(self._sql[block], *args))

    async def fetch_if_quick(
        self, block: str, *args: object, within_s: float | None = None
    ) -> list[asyncpg.Record] | None:
        """Return the rows of a query block, None if it takes longer than `within_s` or `statement_timeout_s`.

        `within_s` is QUICK_S by default. The query uses an index if there is one: else, to count the rows of
        a table that was not vacuumed lately, PostgreSQL would scan all of it.
        """
        longest_s = min(self._statement_s, within_s or QUICK_S)

        async def reading(connection: asyncpg.Connection) -> list[asyncpg.Record] | None:
            try:
                async with connection.transaction():
                    await connection.execute(f"SET LOCAL statement_timeout = {round(longest_s * 1000)}")
                    await connection.execute("SET LOCAL enable_seqscan = off")
                    return await connection.fetch(self._sql[block], *args)  # type: ignore[no-any-return]
            except asyncpg.QueryCanceledError:
                return None

        return await self.read(reading)

    @asynccontextmanager
    async def cursor(
        self, connection: asyncpg.Connection, block: str, *args: object
    ) -> AsyncIterator[asyncpg.cursor.Cursor]:
        """Open a server-side cursor on a query block; its transaction ends with the context.

        All rows are of one snapshot.
        """
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield await connection.cursor(self._sql[block], *args)

    async def fetch_beside(
        self, connection: asyncpg.Connection, block: str, *args: object
    ) -> list[asyncpg.Record]:
        """Return the rows of a query block, in the transaction of an open cursor."""
        return await connection.fetch(self._sql[block], *args)  # type: ignore[no-any-return]

    async def read(self, reading: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Run `reading` on a connection; repeat it from its start after an error that may pass."""
        ends_at = time.monotonic() + sum(self._waits_s)
        for wait_s in self._waits_s:
            try:
                return await self._once(reading)
            except PASSING as error:
                self._begin_incident(error)
                if time.monotonic() >= ends_at:
                    break
                await self._sleep(wait_s)
        try:
            return await self._once(reading)
        except asyncpg.TargetServerAttributeNotMatched as error:
            raise SourceError(STANDBY) from error
        except PASSING as error:
            raise SourceError(_unreadable(error)) from error

    def _begin_incident(self, error: BaseException) -> None:
        if self._incidents is not None:
            is_standby = isinstance(error, asyncpg.TargetServerAttributeNotMatched)
            self._incidents.open("source", STANDBY if is_standby else _unreadable(error))

    async def _once(self, reading: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        try:
            async with self._pool.acquire() as connection:
                found = await reading(connection)
            if self._incidents is not None:
                self._incidents.resolve("source")
            return found  # noqa: TRY300  what follows is of the reading alone
        except asyncpg.InvalidCachedStatementError:
            await self._pool.expire_connections()  # every connection has the old statement prepared
            raise
        except PASSING:
            raise
        except asyncpg.PostgresError as error:
            raise SourceError(f"The shop's database refuses a query; run `check`: {_text(error)}") from error


def _text(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _unreadable(error: BaseException) -> str:
    return f"The shop's database cannot be read (source.dsn): {_text(error)}"
