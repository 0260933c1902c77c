"""A generated history that scenarios copy: its database, and the truth of its log."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from kiva_stream.sandbox.generator import Generated, generate
from kiva_stream.sandbox.postgres import Server


class History(NamedTuple):
    """The database of a generated shop, used as a template, and what must become of its log."""

    server: Server
    database: str
    truth: Path
    generated: Generated
    seed: int

    @classmethod
    async def write(cls, server: Server, folder: Path, *, entries: int, seed: int) -> History:
        """Generate one, with its truth file in the folder. Raises SourceError."""
        name = f"drill_{uuid4().hex}"
        dsn = await server.create_database(name)
        truth = folder / f"{name}.truth"
        generated = await generate(dsn, entries, seed, truth=truth)
        return cls(server=server, database=name, truth=truth, generated=generated, seed=seed)

    @property
    def arrivals(self) -> int:
        """The number of contacts, orders and events that must arrive."""
        made = self.generated
        return made.contacts + made.orders_expected + made.outcomes.get("delivered", 0)
