"""Whether a pooler between gives a connection a session of its own, as pgbouncer does in its mode `session`.

In its modes `transaction` and `statement` a setting would not last, and would be left in the session of
another client: `default_transaction_read_only` would keep the shop from writing. So it is found out before
any setting is made.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import asyncpg

from kiva_stream.primitives.postgres.errors import SharedSessionError

ROUNDS = 10  # where others use the pooler too, two connections may get different sessions by chance
BESIDE_S = 2.0  # without a session for the second connection until then, the first one has kept its own
# pgbouncer before 1.21 prepares a statement in one session and executes it in another.
_LOST_STATEMENTS = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)

Connect = Callable[[], Coroutine[Any, Any, asyncpg.Connection]]


async def require_own_session(connection: asyncpg.Connection, connect: Connect) -> int:
    """Return the pid of a connection's session. Raises SharedSessionError unless that is its own.

    `connect` opens another one to the same place. Raises asyncpg's errors, TimeoutError, OSError.
    """
    try:
        pid = await _pid(connection)
        if pid == connection.get_server_pid():
            return pid  # it is PostgreSQL itself: a pooler makes up the pid that it gives a client
        with anyio.move_on_after(BESIDE_S) as patience:
            beside = await connect()
            try:
                await _require_different(connection, beside)
            finally:
                beside.terminate()
        if patience.cancelled_caught:
            await _require_kept(connection, pid)
    except _LOST_STATEMENTS as error:
        raise SharedSessionError from error
    return pid


async def _require_different(one: asyncpg.Connection, other: asyncpg.Connection) -> None:
    """Raise SharedSessionError unless each of two connections always has the same session, and only it.

    A pooler hands out the session that was released last, or longest ago. In the second case two connections
    that ask by turns may always get the same ones, so the other one asks twice.
    """
    first, second = await _pid(one), await _pid(other)
    for _ in range(ROUNDS):
        seen = [await _pid(one), await _pid(other), await _pid(other)]
        if first == second or seen != [first, second, second]:
            raise SharedSessionError


async def _require_kept(connection: asyncpg.Connection, pid: int) -> None:
    """Raise SharedSessionError or TimeoutError unless a connection still has its session, and no wait for it.

    No other connection gets one just now. Without a session of its own, this one would get none either.
    """
    with anyio.fail_after(BESIDE_S):
        for _ in range(ROUNDS):
            if await _pid(connection) != pid:
                raise SharedSessionError


async def _pid(connection: asyncpg.Connection) -> int:
    """Return the pid of the session in which a statement is executed."""
    return await connection.fetchval("SELECT pg_backend_pid()")  # type: ignore[no-any-return]
