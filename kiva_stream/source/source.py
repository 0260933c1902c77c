"""The shop's database: a pool of connections that can only read, and the repetition of failed reads."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TypeVar

import anyio
import asyncpg

from kiva_stream.errors import SourceError
from kiva_stream.observability.incidents import Incidents
from kiva_stream.primitives import sql_blocks
from kiva_stream.primitives.clock import Sleep
from kiva_stream.primitives.postgres import errors
from kiva_stream.primitives.postgres.connections import Connections
from kiva_stream.primitives.postgres.errors import SharedSessionError, text_of
from kiva_stream.settings.dsn import reading_dsn
from kiva_stream.settings.sections import SourceSettings

T = TypeVar("T")

PASSING = (
    *errors.PASSING,
    asyncpg.InvalidCachedStatementError,  # a column has another type than when the statement was prepared
)
WAITS_S = (1.0, 2.0, 4.0, 8.0)  # between attempts; then SourceError
FOLLOWING_WAITS_S = (*WAITS_S, *[15.0] * 19)  # five minutes; then systemd restarts the process
ANSWER_S = 5.0  # beyond statement_timeout_s: the server's own time-out comes first, if its answer arrives
QUICK_S = 5.0  # so short a transaction does not disturb the shop
STANDBY = (
    "The shop's database is a standby, or still in recovery: set source.dsn to the primary, or wait "
    "until the recovery has ended."
)


class Source:
    """At most `max_connections` connections, in sessions that can only read.

    Every call raises SourceError. An error that stays is raised at once. One that may pass is raised after
    some attempts, which are `waits_s` apart, and within the sum of these. An incident is open meanwhile.
    """

    def __init__(self, connections: Connections, settings: SourceSettings, attempts: _Attempts) -> None:
        self._connections = connections
        replaced = () if settings.horizon else ("queries_by_id.sql",)
        self._sql = sql_blocks.load("kiva_stream.source", settings.schema, "queries.sql", *replaced)
        self._statement_s = settings.statement_timeout_s
        self._attempts = attempts

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: SourceSettings,
        sleep: Sleep = anyio.sleep,
        *,
        waits_s: Sequence[float] = WAITS_S,
        incidents: Incidents | None = None,
        is_patient: bool = False,
    ) -> AsyncIterator[Source]:
        """Connect to a primary; close the connections on leaving.

        Raises SourceError if the server is out of reach; with `is_patient`, not before the last attempt.
        """
        attempts = _Attempts(waits_s, sleep, incidents)
        async with AsyncExitStack() as stack:

            async def connect() -> Connections:
                with reading_dsn("source.dsn", SourceError):
                    return await stack.enter_async_context(_connections(settings).opened())

            try:
                connections = await (attempts.repeat(connect) if is_patient else connect())
            except asyncpg.TargetServerAttributeNotMatched as error:
                raise SourceError(STANDBY) from error
            except SharedSessionError as error:
                raise SourceError(_unreadable(error)) from error
            except (*PASSING, asyncpg.PostgresError) as error:
                raise SourceError(
                    f"Cannot reach the shop's database (source.dsn): {text_of(error)}"
                ) from error
            yield cls(connections, settings, attempts)

    async def fetch(self, block: str, *args: object) -> list[asyncpg.Record]:
        """Return the rows of a query block."""
        return await self.read(lambda connection: connection.fetch(self._sql[block], *args))

    async def look_up(self, block: str, site: int, texts: Sequence[str]) -> list[asyncpg.Record]:
        """Return the rows of a query block that looks texts up. What the database cannot hold finds none."""

        async def reading(connection: asyncpg.Connection) -> list[asyncpg.Record]:
            try:
                return await connection.fetch(self._sql[block], site, texts)  # type: ignore[no-any-return]
            except asyncpg.DataError:
                found: list[asyncpg.Record] = []
                for text in texts:
                    with suppress(asyncpg.DataError):
                        found += await connection.fetch(self._sql[block], site, [text])
                return found

        return await self.read(reading)

    async def accepts(self, block: str, *args: object) -> bool:
        """Return whether the database accepts the values of a query block's arguments."""

        async def reading(connection: asyncpg.Connection) -> bool:
            try:
                await connection.fetch(self._sql[block], *args)
            except asyncpg.DataError:
                return False
            return True

        return await self.read(reading)

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
                async with self._connections.transaction(connection):
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
        async with self._connections.transaction(connection, isolation="repeatable_read", readonly=True):
            yield await connection.cursor(self._sql[block], *args)

    async def fetch_beside(
        self, connection: asyncpg.Connection, block: str, *args: object
    ) -> list[asyncpg.Record]:
        """Return the rows of a query block, in the transaction of an open cursor."""
        return await connection.fetch(self._sql[block], *args)  # type: ignore[no-any-return]

    async def read(self, reading: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Run `reading` on a connection; repeat it from its start after an error that may pass."""
        try:
            return await self._attempts.repeat(lambda: self._once(reading))
        except asyncpg.TargetServerAttributeNotMatched as error:
            raise SourceError(STANDBY) from error
        except PASSING as error:
            raise SourceError(_unreadable(error)) from error

    async def _once(self, reading: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        try:
            async with self._connections.acquire() as connection:
                return await reading(connection)
        except asyncpg.InvalidCachedStatementError:
            await self._connections.expire()  # every connection has the old statement prepared
            raise
        except PASSING:
            raise
        except SharedSessionError as error:
            raise SourceError(_unreadable(error)) from error
        except asyncpg.PostgresError as error:
            raise SourceError(
                f"The shop's database refuses a query; run `check`: {text_of(error)}"
            ) from error


class _Attempts:
    """Attempts at a call, `waits_s` apart, until one succeeds. The incident `source` is open meanwhile."""

    def __init__(self, waits_s: Sequence[float], sleep: Sleep, incidents: Incidents | None) -> None:
        self._waits_s = waits_s
        self._sleep = sleep
        self._incidents = incidents

    async def repeat(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Attempt a call until it succeeds. Raises the error of the last attempt if it may pass."""
        ends_at = time.monotonic() + sum(self._waits_s)
        for wait_s in self._waits_s:
            try:
                return self._succeeded(await attempt())
            except PASSING as error:
                self._begin_incident(error)
                if time.monotonic() >= ends_at:
                    break
                await self._sleep(wait_s)
        return self._succeeded(await attempt())

    def _begin_incident(self, error: BaseException) -> None:
        if self._incidents is not None:
            is_standby = isinstance(error, asyncpg.TargetServerAttributeNotMatched)
            self._incidents.open("source", STANDBY if is_standby else _unreadable(error))

    def _succeeded(self, found: T) -> T:
        if self._incidents is not None:
            self._incidents.resolve("source")
        return found


def _connections(settings: SourceSettings) -> Connections:
    answer_s = settings.statement_timeout_s + ANSWER_S
    return Connections(
        settings.dsn,
        name="kiva_stream source",
        most=settings.max_connections,
        answer_s=answer_s,
        session={
            "default_transaction_read_only": "on",
            # Parallel workers would be processes beside those that max_connections allows.
            "max_parallel_workers_per_gather": "0",
            "row_security": "off",  # PostgreSQL refuses a query from which a policy would hide rows
            "statement_timeout": f"{round(settings.statement_timeout_s * 1000)}",
            # A session whose client has become silent must not hold its snapshot for long.
            "idle_in_transaction_session_timeout": f"{round(answer_s * 1000)}",
        },
        target="primary",  # also after a failover
        reads_any_bytes=True,
    )


def _unreadable(error: BaseException) -> str:
    return f"The shop's database cannot be read (source.dsn): {text_of(error)}"
