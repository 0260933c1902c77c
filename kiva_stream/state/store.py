"""The state schema: its connections, version and migrations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files
from typing import TypeAlias

import asyncpg

from kiva_stream.errors import CheckpointError, HeldError, StateBusyError
from kiva_stream.primitives import sql_blocks
from kiva_stream.settings.dsn import reading_dsn
from kiva_stream.settings.sections import StateSettings

Connection: TypeAlias = asyncpg.Connection
VERSION = 3  # of the state schema; a migration a version: schema_1.sql, …
SQL_FILES = (
    *("store.sql", "leases.sql", "ledger.sql", "links.sql", "orders.sql", "tags.sql", "evidence.sql"),
    *("status.sql", "incidents.sql", "dead_letters.sql", "rewinds.sql", "tombstones.sql", "id_gaps.sql"),
)
LEASE_LOST = "KS001"  # the SQLSTATE of schema_2.sql's renew()

# May pass by itself: a restart, a failover, a cut connection, a full disk, a deadlock.
PASSING = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TransactionRollbackError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # asyncpg raises it when an idle connection is being cut
    OSError,
    TimeoutError,
)


class Store:
    """The state schema. Every call raises CheckpointError if it cannot be read or written."""

    def __init__(self, pool: asyncpg.Pool, schema: str) -> None:
        self._pool = pool
        self._schema = schema
        self.sql = sql_blocks.load("kiva_stream.state", schema, *SQL_FILES)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: StateSettings) -> AsyncIterator[Store]:
        """Connect; close the connections on leaving."""
        with translated(), reading_dsn("state.dsn", CheckpointError):
            pool = await asyncpg.create_pool(
                settings.dsn,
                min_size=1,
                max_size=3,
                server_settings={"application_name": "kiva_stream state"},
                reset=_nothing,  # no session is ever changed, and resetting costs a round trip a query
            )
        try:
            yield cls(pool, settings.schema)
        finally:
            pool.terminate()

    @classmethod
    @asynccontextmanager
    async def open_migrated(cls, settings: StateSettings) -> AsyncIterator[Store]:
        """Connect as `open`. Raises CheckpointError unless the schema is of this program's version."""
        async with cls.open(settings) as store:
            await store.require_version()
            yield store

    async def fetch(self, block: str, *args: object, timeout_s: float | None = None) -> list[asyncpg.Record]:
        """Return the rows of a query block. If it takes longer than `timeout_s`, StateBusyError is raised."""
        with translated():
            return await self._pool.fetch(  # type: ignore[no-any-return]
                self.sql[block], *args, timeout=timeout_s
            )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Yield a connection in a transaction, which is committed unless the block raises."""
        with translated():
            async with self._pool.acquire() as connection, connection.transaction():
                yield connection

    async def version(self) -> int:
        """Return the version of the schema, 0 when there is none."""
        with translated():
            table = f"{self._schema}.version"
            if await self._pool.fetchval("SELECT to_regclass($1)", table) is None:
                return 0
            return await self._pool.fetchval(self.sql["version"])  # type: ignore[no-any-return]

    async def require_version(self) -> None:
        """Raise CheckpointError unless the schema is of this program's version."""
        found = await self.version()
        if found > VERSION:
            raise CheckpointError(
                f"The state schema {self._schema} is of version {found}, newer than this kiva_stream knows "
                f"({VERSION}): use the newer kiva_stream."
            )
        if found < VERSION:
            raise CheckpointError(
                f"The state schema {self._schema} is missing or old: run `kiva-stream setup`."
            )

    async def migrate(self) -> bool:
        """Migrate the schema to this program's version; return whether it was older."""
        found = await self.version()
        if found >= VERSION:
            await self.require_version()
            return False
        async with self.transaction() as connection:
            if found == 0:
                await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{self._schema}"')
                await connection.execute(
                    f'CREATE TABLE "{self._schema}".version '
                    "(version int PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
                )
            for version in range(found + 1, VERSION + 1):
                await connection.execute(self._migration(version))
                await connection.execute(f'INSERT INTO "{self._schema}".version VALUES ($1)', version)
        return True

    def _migration(self, version: int) -> str:
        text = files("kiva_stream.state").joinpath(f"schema_{version}.sql").read_text("utf-8")
        return text.replace("{schema}", f'"{self._schema}"')


@contextmanager
def translated() -> Iterator[None]:
    """Turn asyncpg's errors into CheckpointError, those that may pass into StateBusyError."""
    try:
        yield
    except asyncpg.InsufficientPrivilegeError as error:
        raise CheckpointError(
            f"The role of state.dsn may not do this: {error}. It must own the state schema, or be allowed to "
            "create it: GRANT CREATE ON DATABASE … TO …."
        ) from error
    except PASSING as error:
        raise StateBusyError(_sentence(error)) from error
    except asyncpg.PostgresError as error:
        if error.sqlstate == LEASE_LOST:
            raise HeldError(f"{str(error).capitalize()}: nothing more is sent by this one.") from error
        raise CheckpointError(_sentence(error)) from error


async def _nothing(_connection: asyncpg.pool.PoolConnectionProxy) -> None:
    """Leave a session as it is: the pool's reset."""


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"The state database (state.dsn) cannot be used: {text}"


def columns(rows: Sequence[Sequence[object]], count: int) -> list[list[object]]:
    """Return rows as `count` columns, the arguments of unnest()."""
    return [[row[index] for row in rows] for index in range(count)]


def literals(rows: Collection[Sequence[int]], count: int) -> list[str]:
    """Return rows of numbers as `count` columns, each an array in PostgreSQL's text form.

    asyncpg takes 0.3 µs for each element of a list; this takes a tenth of that.
    """
    return [f"{{{','.join([str(row[index]) for row in rows])}}}" for index in range(count)]
