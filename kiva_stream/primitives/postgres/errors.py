"""Errors of a database: which of them may pass by themselves, and their text in one line."""

from __future__ import annotations

import asyncpg

# A restart, a failover, a cut or silent connection, a deadlock, a lock not free in time, a full disk.
# The classes are those of https://www.postgresql.org/docs/current/errcodes-appendix.html.
PASSING = (
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.IdleInTransactionSessionTimeoutError,  # 25P03
    asyncpg.TransactionTimeoutError,  # 25P04
    asyncpg.TransactionRollbackError,  # class 40: a deadlock, a failed serialization
    asyncpg.InsufficientResourcesError,  # class 53
    asyncpg.LockNotAvailableError,  # 55P03
    asyncpg.OperatorInterventionError,  # class 57: a shutdown, a cancelled statement
    asyncpg.SnapshotTooOldError,  # 72000
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # asyncpg raises it when an idle connection is being cut, and on a standby
    OSError,
    TimeoutError,
)


SHARED = (
    "a pooler gives each transaction another session, in which settings and prepared statements do not last: "
    "use a pool of its mode `session` (pgbouncer's pool_mode), or PostgreSQL itself."
)


class SharedSessionError(Exception):
    """A pooler gives each transaction another session."""

    def __init__(self) -> None:
        super().__init__(SHARED)


def text_of(error: BaseException) -> str:
    """Return the text of an error in one line."""
    return " ".join(str(error).split()) or type(error).__name__
