"""Connections for tests on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg

from kiva_stream.sandbox.postgres import Server

# With characters in the password, or a port, that no PostgreSQL address has.
UNREADABLE_DSNS = (
    "postgresql://ro:s3cret/word@127.0.0.1/shop",
    "postgresql://ro:pass/s3cret@127.0.0.1/shop",
    "postgresql://ro:1?s3cret@127.0.0.1/shop",
    "postgresql://ro:s3cret#word@127.0.0.1/shop",
    "postgresql://ro:s3cret[word@127.0.0.1/shop",
    "postgresql://ro:s3cret@127.0.0.1:99999/shop",
    "postgresql://ro:s3cret@127.0.0.1/shop?sslmode=s3cret",
)


def as_role(dsn: str, role: str) -> str:
    """Return a DSN with another user, of the password `x`."""
    parts = urlsplit(dsn)
    return parts._replace(netloc=f"{role}:x@{parts.netloc.rpartition('@')[2]}").geturl()


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Open a connection, and close it on leaving."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def encoded_database(server: Server, encoding: str) -> AsyncIterator[str]:
    """Create an empty database of an encoding; drop it on leaving."""
    name = f"kiva_encoded_{uuid4().hex}"
    async with connected(server.dsn()) as connection:
        await connection.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        )
    yield server.dsn(name)
    await server.drop_database(name)


def database_name(dsn: str) -> str:
    """Return the name of the database of an address."""
    return urlsplit(dsn).path.removeprefix("/")
