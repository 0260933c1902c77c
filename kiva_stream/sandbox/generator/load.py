"""Loads a history into an empty PostgreSQL database: schema, COPY, indexes, statistics."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib.resources import files

import asyncpg

from kiva_stream.errors import SettingsError
from kiva_stream.sandbox.generator.copy import COLUMNS

SCHEMA = "kiva"
QUEUED_CHUNKS = 4  # between the writer of rows and the database
_SEQUENCES = ("delivery_weeks", "recurring_products", "order_items", "system_log")

# A real shop has rows that break these rules: an item of another category, a box type without a row.
_LOOSEN = """
ALTER TABLE order_items DROP CONSTRAINT order_items_category_check;
ALTER TABLE customers DROP CONSTRAINT customers_box_type_id_fkey;
"""

Chunk = tuple[str, str]  # table, rows as COPY text


class Loader:
    """Copies rows into tables while the next ones are made; each chunk is a transaction of its own."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._chunks: asyncio.Queue[Chunk | None] = asyncio.Queue(QUEUED_CHUNKS)

    async def put(self, table: str, rows: str) -> None:
        """Queue some rows of a table. Waits while the queue is full."""
        if rows:
            await self._chunks.put((table, rows))

    async def put_all(self, table: str, rows: Iterable[str]) -> None:
        """Queue rows of a table that fit in memory together."""
        await self.put(table, "".join(rows))

    async def run(self) -> None:
        """Load until `finish` was called. Raises asyncpg's errors."""
        while chunk := await self._chunks.get():
            table, rows = chunk
            source, columns = io.BytesIO(rows.encode()), COLUMNS[table].split()
            await self._connection.copy_to_table(table, schema_name=SCHEMA, columns=columns, source=source)

    async def finish(self) -> None:
        """Let `run` return when it has loaded what is queued."""
        await self._chunks.put(None)


async def require_empty(connection: asyncpg.Connection) -> None:
    """Raise SettingsError when the schema exists."""
    if await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", SCHEMA):
        raise SettingsError(f"The database has a schema {SCHEMA!r} already: give the generator an empty one.")


@asynccontextmanager
async def loading(connection: asyncpg.Connection) -> AsyncIterator[Loader]:
    """Create the schema, load what the block puts, then create the indexes and analyse."""
    tables, indexes = _contract()
    await connection.execute("SET synchronous_commit = off")
    await connection.execute("".join(tables) + _LOOSEN)
    loader = Loader(connection)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(loader.run())
        yield loader
        await loader.finish()
    await connection.execute("".join(indexes))
    for table in _SEQUENCES:
        await connection.execute(
            f"SELECT setval(pg_get_serial_sequence('{SCHEMA}.{table}', 'id'),"
            f" (SELECT coalesce(max(id), 0) + 1 FROM {SCHEMA}.{table}), false)"
        )
    await connection.execute("ANALYZE")


def _contract() -> tuple[list[str], list[str]]:
    """Return the statements of `shop.sql`: those to run before the load, and those that create indexes."""
    text = files("kiva_stream.sandbox.generator").joinpath("shop.sql").read_text()
    code = "\n".join(line.split("--")[0] for line in text.splitlines())
    statements = [f"{statement.strip()};\n" for statement in code.split(";") if statement.strip()]
    indexes = [statement for statement in statements if statement.startswith("CREATE INDEX")]
    return [statement for statement in statements if statement not in indexes], indexes
