"""A shop's database on a real PostgreSQL, whose rows a test writes one by one, and its log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, NamedTuple

import anyio.lowlevel
import asyncpg
from msgspec.structs import replace

from kiva_stream.model.entries import Entry
from kiva_stream.model.positions import DAY1, HighWaterMark, Position
from kiva_stream.ports.state import IdGaps
from kiva_stream.primitives.clock import Sleep
from kiva_stream.settings.sections import SourceSettings
from kiva_stream.source.customers import ShopCustomers
from kiva_stream.source.horizon import Horizon
from kiva_stream.source.log import SystemLog
from kiva_stream.source.log_positions import LogPositions
from kiva_stream.source.source import Source
from tests.support.postgres import connected

SHOP = files("kiva_stream.sandbox.generator").joinpath("shop.sql").read_text("utf-8")
LONG_AGO = "2018-03-04 17:02:10Z"


class Sleeps:
    """Implements Sleep without time: lets other tasks run, and keeps how long each sleep was to be."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def __call__(self, seconds: float, /) -> None:
        self.waits.append(seconds)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()


class ShopRows:
    """The tables of the source contract, with the sites 1 (Denver) and 2, and a connection of a writer."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection

    @classmethod
    @asynccontextmanager
    async def create(cls, dsn: str) -> AsyncIterator[ShopRows]:
        """Fill an empty database."""
        async with connected(dsn) as connection:
            await connection.execute(SHOP + "RESET search_path;")
            rows = cls(connection)
            for site_id, timezone in ((1, "America/Denver"), (2, "Europe/London")):
                await rows.insert(
                    "sites",
                    id=site_id,
                    name="Green Box",
                    timezone=timezone,
                    admin_base_url="https://box.example",
                    launched_on="2018-01-01",
                )
            yield rows

    async def insert(self, table: str, returning: str = "id", /, **columns: object) -> asyncpg.Record:
        """Write a row, its values as text that PostgreSQL reads; return some columns as they are stored."""
        texts = (text_or_none(value) for value in columns.values())
        values = ", ".join("NULL" if text is None else quoted(text) for text in texts)
        return await self.connection.fetchrow(
            f"INSERT INTO kiva.{table} ({', '.join(columns)}) VALUES ({values}) RETURNING {returning}"
        )

    async def entry(self, txid: int | None = None, **columns: object) -> Position:
        """Write a log row of site 1, by default an old one; return its position.

        Without a `txid` it is that of the writing transaction. Low ones lie below any horizon.
        """
        own = {} if txid is None else {"txid": txid}
        columns = {"site_id": 1, "occurred_at": LONG_AGO, "inserted_at": LONG_AGO, "message": "x"} | columns
        row = await self.insert("system_log", "txid, id", **columns | own)
        return Position(row["txid"], row["id"])

    async def customer(self, customer_id: int, email: str | None = None, **columns: object) -> None:
        """Write a customer of site 1."""
        columns = {"site_id": 1, "created_at": LONG_AGO, "updated_at": LONG_AGO} | columns
        await self.insert("customers", id=customer_id, email=email, **columns)


def text_or_none(value: object) -> str | None:
    """Return a value as the text PostgreSQL reads it from; None stays None."""
    return None if value is None else str(value)


def quoted(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def source_settings(dsn: str, **settings: Any) -> SourceSettings:  # noqa: ANN401  settings are of any type
    """Return settings for site 1; by default the delay cuts nothing off."""
    return replace(SourceSettings(dsn=dsn, site_id=1, delay_s=0), **settings)


class OpenedLog(NamedTuple):
    """The log of site 1, its horizon and its positions, read from one pool."""

    pool: Source
    log: SystemLog
    horizon: Horizon
    positions: LogPositions


@asynccontextmanager
async def opened_log(
    dsn: str,
    sleep: Sleep | None = None,
    id_gaps: IdGaps | None = None,
    **settings: Any,  # noqa: ANN401  settings are of any type
) -> AsyncIterator[OpenedLog]:
    """Open the log of site 1."""
    chosen, sleep = source_settings(dsn, **settings), sleep or Sleeps()
    async with Source.open(chosen, sleep) as pool:
        log = SystemLog(
            pool, chosen, ShopCustomers(pool, 1, chosen.skip_domains), sleep=sleep, id_gaps=id_gaps
        )
        horizon = Horizon(pool, chosen)
        yield OpenedLog(pool, log, horizon, LogPositions(pool, 1, horizon))


async def read(opened: OpenedLog, after: Position = DAY1, mark: HighWaterMark | None = None) -> list[Entry]:
    """Return all that the log gives from a position up to a mark, by default to the newest safe position."""
    mark = mark or await opened.horizon.high_water_mark()
    return [entry async for page in opened.log.pages(after, mark) for entry in page]


def positions(entries: list[Entry]) -> list[Position]:
    """Return the positions of entries, in their order."""
    return [entry.position for entry in entries]
