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
WAITING = 4  # chunks between the writer of rows and the database
_SEQUENCES = ("delivery_weeks", "recurring_products", "order_items", "system_log")

# A shop's views give the types, not these rules (domain.md 6.5): another category, a box type that is gone.
_LOOSER = """
ALTER TABLE order_items DROP CONSTRAINT order_items_category_check;
ALTER TABLE customers DROP CONSTRAINT customers_box_type_id_fkey;
"""

Chunk = tuple[str, str]  # table, lines of COPY text


class Loader:
    """Takes lines of COPY text while the next ones are made; each chunk is a transaction of its own."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._chunks: asyncio.Queue[Chunk | None] = asyncio.Queue(WAITING)

    async def put(self, table: str, lines: str) -> None:
        """Hand over some lines of a table; waits while the database is behind."""
        if lines:
            await self._chunks.put((table, lines))

    async def put_all(self, table: str, lines: Iterable[str]) -> None:
        """Hand over a whole table that fits in memory."""
        await self.put(table, "".join(lines))

    async def run(self) -> None:
        """Load until `finish` was called. Raises what the database says."""
        while chunk := await self._chunks.get():
            table, lines = chunk
            source, columns = io.BytesIO(lines.encode()), COLUMNS[table].split()
            await self._connection.copy_to_table(table, schema_name=SCHEMA, columns=columns, source=source)

    async def finish(self) -> None:
        """Say that there is nothing more to load."""
        await self._chunks.put(None)


async def require_empty(connection: asyncpg.Connection) -> None:
    """Raise SettingsError when the schema is there already."""
    if await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", SCHEMA):
        raise SettingsError(f"The database has a schema {SCHEMA!r} already: give the generator an empty one.")


@asynccontextmanager
async def loading(connection: asyncpg.Connection) -> AsyncIterator[Loader]:
    """Create the schema, load what the block puts, then create the indexes and analyse."""
    tables, indexes = _contract()
    await connection.execute("SET synchronous_commit = off")
    await connection.execute("".join(tables) + _LOOSER)
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
    """Return the statements of `shop.sql`: those to run before the load, and the indexes."""
    text = files("kiva_stream.sandbox.generator").joinpath("shop.sql").read_text()
    code = "\n".join(line.split("--")[0] for line in text.splitlines())
    statements = [f"{statement.strip()};\n" for statement in code.split(";") if statement.strip()]
    indexes = [statement for statement in statements if statement.startswith("CREATE INDEX")]
    return [statement for statement in statements if statement not in indexes], indexes
