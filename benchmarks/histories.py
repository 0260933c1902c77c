"""Histories: generated shops, each generated once and copied for whoever changes it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import anyio
import asyncpg

from kiva_stream.sandbox.generator import generate
from kiva_stream.sandbox.postgres import Server

SEED = 1
SITE_ID = 1


class History(NamedTuple):
    """A generated shop: its database, and what must become of its log."""

    dsn: str
    truth: Path
    entries: int


class Histories:
    """The histories of a server."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._generated: dict[int, tuple[str, Path]] = {}  # by entries: the name of a database, and the truth
        self._made: dict[str, History] = {}
        self._making = anyio.Lock()  # two may ask for the same side by side

    async def of(self, entries: int, kind: str = "shop", *, only: str | None = None) -> History:
        """Return a history of that many entries, dirt included. One of another kind is another database.

        `only` keeps the entries of one outcome in the log; the truth still tells of all.
        """
        name = "_".join(filter(None, (kind, only, str(entries))))
        async with self._making:
            if name not in self._made:
                self._made[name] = await self._copy(name, entries, only)
        return self._made[name]

    async def _copy(self, name: str, entries: int, only: str | None) -> History:
        if entries not in self._generated:
            self._generated[entries] = await self._generate(entries)
        template, truth = self._generated[entries]
        dsn = await self._server.create_database(name, template)
        return History(dsn, truth, entries if only is None else await _keep(dsn, truth, only))

    async def _generate(self, entries: int) -> tuple[str, Path]:
        """Generate a history into a database that only copies are made of."""
        name, truth = f"generated_{entries}", self._folder / f"{entries}.truth"
        await generate(await self._server.create_database(name), entries, SEED, truth=truth)
        return name, truth


async def execute(dsn: str, statements: str) -> None:
    """Change a shop."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


async def _keep(dsn: str, truth: Path, outcome: str) -> int:
    """Remove the entries that have another outcome from the log; return how many are left."""
    query = "SELECT log_id FROM entry WHERE site_id = ? AND outcome = ?"
    with closing(sqlite3.connect(truth)) as database:
        ids = [log_id for (log_id,) in database.execute(query, (SITE_ID, outcome))]
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("DELETE FROM kiva.system_log WHERE id <> ALL($1::bigint[])", ids)
        await connection.execute("VACUUM ANALYZE kiva.system_log")
    finally:
        await connection.close()
    return len(ids)
