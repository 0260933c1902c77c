"""Databases of tests: each is emptied for the next test, since a new one takes several times as long."""

from __future__ import annotations

from uuid import uuid4

import anyio
import asyncpg

from kiva_stream.sandbox.postgres import Server
from tests.support.postgres import connected, database_name

_END_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_FIRST_OID = 16384  # of what users create
_SCHEMAS = f"SELECT nspname FROM pg_namespace WHERE oid >= {_FIRST_OID} AND nspname NOT LIKE 'pg\\_%'"
_CATALOGS = (
    "pg_cast",
    "pg_class",
    "pg_collation",
    "pg_default_acl",
    "pg_event_trigger",
    "pg_extension",
    "pg_language",
    "pg_largeobject_metadata",
    "pg_operator",
    "pg_proc",
    "pg_publication",
    "pg_type",
)
_TOLD_APART = f"""
SELECT concat_ws(
    ' / ',
    (SELECT row(datdba, datallowconn, datconnlimit, datacl) FROM pg_database WHERE oid = own),
    (SELECT array_agg(row(setrole, setconfig)) FROM pg_db_role_setting WHERE setdatabase = own),
    (SELECT array_agg(row(nspname, nspowner, nspacl) ORDER BY nspname)
     FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%'),
    (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()),
    {", ".join(f"(SELECT count(*) FROM {catalog} WHERE oid >= {_FIRST_OID})" for catalog in _CATALOGS)}
) FROM (SELECT oid AS own FROM pg_database WHERE datname = current_database()) AS current
"""


class ReusedDatabases:
    """Empty databases of a server, each for one test at a time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._empty: list[str] = []
        self._as_new: dict[str, str] = {}  # by DSN

    async def lend(self) -> str:
        """Return the DSN of an empty database."""
        if self._empty:
            return self._empty.pop()
        dsn = await self._server.create_database(f"kiva_test_{uuid4().hex}")
        async with connected(dsn) as connection:
            self._as_new[dsn] = await connection.fetchval(_TOLD_APART)
        return dsn

    async def take_back(self, dsn: str) -> None:
        """Empty a database; drop it if something is left that a new one has not."""
        try:
            async with connected(dsn) as connection:
                while await connection.fetch(_END_OTHERS):  # noqa: ASYNC110  it is the server's condition
                    await anyio.sleep(0.005)
                for row in await connection.fetch(_SCHEMAS):
                    await connection.execute(f'DROP SCHEMA "{row["nspname"]}" CASCADE')
                is_as_new = await connection.fetchval(_TOLD_APART) == self._as_new[dsn]
        except (asyncpg.PostgresError, OSError):
            is_as_new = False  # the test has dropped it, or it accepts no connections
        if is_as_new:
            self._empty.append(dsn)
        else:
            await self._server.drop_database(database_name(dsn))
