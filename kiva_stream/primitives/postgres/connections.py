"""A pool of connections to a database. Every statement has a deadline, after which its connection is dropped.

The server's own time-outs do not reach a client whose connection has become silent, because a firewall forgot
it or a host is gone. asyncpg's `command_timeout` bounds every statement, each fetch of a cursor among them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from weakref import WeakValueDictionary

import anyio
import asyncpg

from kiva_stream.primitives.postgres.encodings import encoding_of, read_any_bytes
from kiva_stream.primitives.postgres.poolers import require_own_session

CONNECT_S = 10.0  # to connect, and again to set the session up
CLOSE_S, CLOSE_SHARE = 1.0, 0.1  # of `answer_s`, for the server to confirm that it cancelled the statement
SILENT = "a statement was not answered in time, and its connection was dropped"
_END_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = ANY($1::int[]) AND usename = current_user AND datname = current_database()
"""
UNREACHED = "no connection in time"


class Connections:
    """At most `most` connections to a database, whose sessions all have this name and these settings.

    A statement that is not answered within `answer_s` raises TimeoutError. No session is changed once it has
    begun, so none is reset when it is released, which would cost a round trip for each query.
    """

    def __init__(
        self,
        dsn: str,
        *,
        name: str,
        most: int,
        answer_s: float,
        session: Mapping[str, str],
        target: str = "any",
        reads_any_bytes: bool = False,  # where nothing is written
    ) -> None:
        self._session = session
        self._reads_any_bytes = reads_any_bytes
        self._close_s = min(CLOSE_S, CLOSE_SHARE * answer_s)
        self._all: WeakValueDictionary[int, asyncpg.Connection] = WeakValueDictionary()  # by pid
        self._sessions: dict[int, int] = {}  # the pid at the server, which differs by way of a pooler
        self._left: set[int] = set()  # pids at the server of connections that were dropped
        self._in_use: set[int] = set()
        self._connect = partial(
            asyncpg.connect,
            dsn,
            timeout=CONNECT_S,
            command_timeout=answer_s,
            target_session_attrs=target,
            server_settings={"application_name": name},
        )
        self._pool = asyncpg.create_pool(
            *self._connect.args,
            min_size=1,
            max_size=most,
            init=self._begin_session,
            reset=_nothing,
            **self._connect.keywords,
        )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Connections]:
        """Connect; close the connections on leaving. Raises asyncpg's errors, TimeoutError, OSError."""
        try:
            await self._pool
        except TimeoutError as error:
            raise TimeoutError(UNREACHED) from error
        try:
            yield self
        finally:
            self._pool.terminate()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[asyncpg.Connection]:
        """Yield a connection. Raises asyncpg's errors, TimeoutError, OSError.

        When a statement of the block is not answered in time, its connection is dropped, and so are those
        that are idle, since what silenced one has silenced all. The next block gets a new connection.
        """
        connection = await self._acquired()
        pid = connection.get_server_pid()
        self._in_use.add(pid)
        try:
            yield connection
        except TimeoutError as error:
            await self._drop(connection)
            self._drop_idle()
            raise TimeoutError(SILENT) from error
        finally:
            self._in_use.discard(pid)
            await self._pool.release(connection)

    @asynccontextmanager
    async def transaction(
        self, connection: asyncpg.Connection, *, isolation: str | None = None, readonly: bool = False
    ) -> AsyncIterator[None]:
        """Run the block in a transaction, which is committed unless the block raises.

        On a connection that gave no answer, no ROLLBACK is sent: it would have to be waited for as well.
        """
        begun = connection.transaction(isolation=isolation, readonly=readonly)
        await begun.start()
        try:
            yield
        except TimeoutError:
            await self._drop(connection)
            raise
        except BaseException:
            if not connection.is_closed():
                await begun.rollback()
            raise
        await begun.commit()

    async def encoding(self) -> str:
        """Return the encoding of the database. Raises as `acquire`."""
        async with self.acquire() as connection:
            return await encoding_of(connection)

    async def expire(self) -> None:
        """Have every connection replaced before it is used again."""
        await self._pool.expire_connections()

    async def _acquired(self) -> asyncpg.Connection:
        try:
            return await self._pool.acquire()
        except TimeoutError as error:
            raise TimeoutError(UNREACHED) from error

    async def _begin_session(self, connection: asyncpg.Connection) -> None:
        """Set up the session of a new connection within CONNECT_S; close it if that fails.

        Raises SharedSessionError if a pooler gives it no session of its own, TimeoutError, asyncpg's errors.
        """
        try:
            with anyio.fail_after(CONNECT_S):
                await self._set_up(connection)
        except BaseException:
            connection.terminate()  # else the pool asks the server, which is waited for as long as an answer
            raise

    async def _set_up(self, connection: asyncpg.Connection) -> None:
        """Set up a session by statements: a pooler may drop or refuse settings in its start-up."""
        pid = await require_own_session(connection, self._connect)
        if self._session:
            await connection.execute(
                "".join(f"SET {key} = '{value}';" for key, value in self._session.items())
            )
        if self._reads_any_bytes:
            await read_any_bytes(connection)
        self._all[connection.get_server_pid()] = connection
        kept = {key: each for key, each in self._sessions.items() if key in self._all}
        self._sessions = {**kept, connection.get_server_pid(): pid}
        await self._end_left(connection)

    async def _end_left(self, connection: asyncpg.Connection) -> None:
        """End the sessions of connections that were dropped.

        The server may not know. A session that waits for the rest of a statement keeps its locks and its
        snapshot, and no time-out of PostgreSQL ends that.
        """
        left = self._left.difference(self._sessions.values())
        self._left.clear()
        if left:
            await connection.fetch(_END_SESSIONS, list(left))

    async def _drop(self, connection: asyncpg.Connection) -> None:
        """Have the server cancel the statement if it can be reached by another connection; close this one."""
        with suppress(asyncpg.InterfaceError, OSError, TimeoutError):  # it may be dropped already
            if (pid := self._sessions.pop(connection.get_server_pid(), None)) is not None:
                self._left.add(pid)
            await connection.close(timeout=self._close_s)

    def _drop_idle(self) -> None:
        for pid, connection in list(self._all.items()):
            if pid not in self._in_use:
                connection.terminate()


async def _nothing(_connection: asyncpg.pool.PoolConnectionProxy) -> None:
    """Leave a session as it is: the pool's reset."""
