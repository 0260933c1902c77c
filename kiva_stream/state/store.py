"""The state schema: its connections, version and migrations."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from importlib.resources import files
from typing import TypeAlias, TypeVar

import asyncpg

from kiva_stream.errors import CheckpointError, HeldError, StateBusyError
from kiva_stream.observability.incidents import Incidents
from kiva_stream.primitives import sql_blocks
from kiva_stream.primitives.postgres import errors
from kiva_stream.primitives.postgres.connections import Connections
from kiva_stream.primitives.postgres.encodings import HOLD_EVERY_TEXT
from kiva_stream.primitives.postgres.errors import SharedSessionError, text_of
from kiva_stream.settings.dsn import reading_dsn
from kiva_stream.settings.sections import StateSettings

T = TypeVar("T")
Connection: TypeAlias = asyncpg.Connection
VERSION = 3  # of the state schema; a migration a version: schema_1.sql, …
SQL_FILES = (
    *("store.sql", "leases.sql", "ledger.sql", "links.sql", "orders.sql", "tags.sql", "evidence.sql"),
    *("status.sql", "incidents.sql", "dead_letters.sql", "rewinds.sql", "tombstones.sql", "id_gaps.sql"),
    *("answered_url.sql", "account_ids.sql", "held_records.sql"),
)
LEASE_LOST = "KS001"  # the SQLSTATE of schema_2.sql's renew()

PASSING = (
    *errors.PASSING,
    asyncpg.ReadOnlySQLTransactionError,  # a failover: the server is a standby now
)
SESSIONS = 3
LONG_S = 3600.0  # for a statement that rewrites large tables, or counts their rows
# These write, and a repetition changes nothing. So do those that only read.
REPEATABLE = frozenset(
    {
        *("begin_backfill", "begin_sweep", "set_phase", "set_caught_up", "bind_site", "set_contact_url"),
        *("confirm_contacts", "reject_contact", "set_ac_ids", "set_email", "set_erased", "set_unsubscribed"),
        *("set_import_tags", "set_tag", "clear_tags", "begin_week", "mark_all_due", "mark_due", "clear_due"),
        *("record_orders", "record_batch_limit", "withdraw_carried", "persist_incidents", "tally_contacts"),
        *("refuse_contact", "leave_out", "orphan_contact", "insert_import"),
        *("record_carried_contacts", "withdraw_carried_contacts", "expire_id_gaps", "prune_ledger"),
        *("unconfirm_contacts", "unconfirm_orders", "request_replay", "request_order_replay"),
        *("hash_key", "insert_tombstone", "insert_answered_url"),
        *("record_held", "move_held", "end_held", "try_held", "discard_held"),
    }
)
_READS = re.compile(r"(--.*\n)*SELECT\b")


class Store:
    """The state schema. Every call raises CheckpointError if it cannot be read or written.

    The incident `state` is open while an error that may pass lasts.
    """

    def __init__(self, connections: Connections, schema: str, incidents: Incidents | None = None) -> None:
        self._connections = connections
        self._schema = schema
        self._incidents = incidents
        self.sql = sql_blocks.load("kiva_stream.state", schema, *SQL_FILES)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: StateSettings, incidents: Incidents | None = None) -> AsyncIterator[Store]:
        """Connect; close the connections on leaving. A statement is waited for as long as a lease lasts.

        Raises CheckpointError also for a database that cannot hold every text.
        """
        async with AsyncExitStack() as stack:
            with translated(), reading_dsn("state.dsn", CheckpointError):
                connections = await stack.enter_async_context(_connections(settings).opened())
                _require_every_text(await connections.encoding())
            yield cls(connections, settings.schema, incidents)

    @classmethod
    @asynccontextmanager
    async def open_migrated(
        cls, settings: StateSettings, incidents: Incidents | None = None
    ) -> AsyncIterator[Store]:
        """Connect as `open`. Raises CheckpointError unless the schema is of this program's version."""
        async with cls.open(settings, incidents) as store:
            await store.require_version()
            yield store

    async def fetch(self, block: str, *args: object, timeout_s: float | None = None) -> list[asyncpg.Record]:
        """Return the rows of a query block. If it takes longer than `timeout_s`, StateBusyError is raised.

        A statement that may be repeated is sent once more, on a new connection, when its own has failed.
        """
        try:
            return await self._fetch(block, args, timeout_s)
        except StateBusyError:
            if not self._is_repeatable(block):
                raise
        return await self._fetch(block, args, timeout_s)

    async def _fetch(
        self, block: str, args: Sequence[object], timeout_s: float | None
    ) -> list[asyncpg.Record]:
        async with self._connection(block) as connection:
            return await connection.fetch(self.sql[block], *args, timeout=timeout_s)  # type: ignore[no-any-return]

    def _is_repeatable(self, block: str) -> bool:
        is_read = _READS.match(self.sql[block]) is not None and block != "renew_lease"
        return is_read or block in REPEATABLE

    async def write(self, writing: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `writing` in a transaction; do it once more, on a new connection, when the first has failed.

        The first may have been committed though its answer was lost, so a repetition must change nothing.
        """
        try:
            return await self._write(writing)
        except StateBusyError:
            return await self._write(writing)

    async def _write(self, writing: Callable[[Connection], Awaitable[T]]) -> T:
        async with self._transaction() as connection:
            return await writing(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Yield a connection in a transaction, which is committed unless the block raises.

        It is not repeated: a command whose transaction has failed for what may pass is to be run again.
        """
        try:
            async with self._transaction() as connection:
                yield connection
        except StateBusyError as error:
            raise StateBusyError(f"{error}: run the command again.") from error

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        async with (
            self._connection("transaction") as connection,
            self._connections.transaction(connection),
        ):
            yield connection

    @asynccontextmanager
    async def _connection(self, purpose: str) -> AsyncIterator[Connection]:
        """Yield a connection. The incident `state` is open for a purpose until the same succeeds."""
        try:
            with translated():
                async with self._connections.acquire() as connection:
                    yield connection
        except StateBusyError as error:
            if self._incidents is not None:
                self._incidents.open("state", str(error), purpose)
            raise
        if self._incidents is not None:
            self._incidents.resolve("state", purpose)

    async def version(self) -> int:
        """Return the version of the schema, 0 when there is none."""
        (row,) = await self.fetch("has_version")
        return (await self.fetch("version"))[0][0] if row[0] else 0

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
        return await self.write(self._migrate)

    async def _migrate(self, connection: Connection) -> bool:
        has_version = await connection.fetchval(self.sql["has_version"])
        found: int = await connection.fetchval(self.sql["version"]) if has_version else 0
        if found == 0:
            await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{self._schema}"')
            await connection.execute(
                f'CREATE TABLE "{self._schema}".version '
                "(version int PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
            )
        for version in range(found + 1, VERSION + 1):
            await connection.execute(self._migration(version), timeout=LONG_S)
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
    except SharedSessionError as error:
        raise CheckpointError(_sentence(error)) from error
    except asyncpg.PostgresError as error:
        if error.sqlstate == LEASE_LOST:
            raise HeldError(f"{str(error).capitalize()}: nothing more is sent by this one.") from error
        raise CheckpointError(_sentence(error)) from error


def _connections(settings: StateSettings) -> Connections:
    return Connections(
        settings.dsn,
        name="kiva_stream state",
        most=SESSIONS,
        answer_s=settings.lease_s,
        # A session whose client has become silent must not hold its locks for long.
        session={"idle_in_transaction_session_timeout": f"{round(settings.lease_s * 1000)}"},
    )


def _require_every_text(encoding: str) -> None:
    if encoding not in HOLD_EVERY_TEXT:
        raise CheckpointError(
            f"The state database (state.dsn) is of the encoding {encoding}, which lacks letters: the first "
            "address or text with one would stop the run. Create a database with ENCODING 'UTF8' TEMPLATE "
            "template0."
        )


def _sentence(error: BaseException) -> str:
    return f"The state database (state.dsn) cannot be used: {text_of(error)}"


def columns(rows: Sequence[Sequence[object]], count: int) -> list[list[object]]:
    """Return rows as `count` columns, the arguments of unnest()."""
    return [[row[index] for row in rows] for index in range(count)]


def literals(rows: Collection[Sequence[int]], count: int) -> list[str]:
    """Return rows of numbers as `count` columns, each an array in PostgreSQL's text form.

    asyncpg takes 0.3 µs for each element of a list; this takes a tenth of that.
    """
    return [f"{{{','.join([str(row[index]) for row in rows])}}}" for index in range(count)]
