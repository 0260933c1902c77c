"""A log that is read by id, without a horizon, from a real PostgreSQL; what appears late in it; its gaps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import asyncpg
import pytest

from kiva_stream.model.positions import DAY1, IdGap, Position
from kiva_stream.pipeline.late_arrivals import LateArrivals
from kiva_stream.primitives import sql_blocks
from kiva_stream.source.contract import check_contract
from kiva_stream.source.source import Source
from kiva_stream.state.id_gaps import SiteIdGaps
from kiva_stream.state.leases import hold
from kiva_stream.state.store import Store
from tests.support.postgres import connected
from tests.support.shop_rows import OpenedLog, ShopRows, opened_log, read
from tests.support.state_schema import migrated_store

NOW = datetime.now(UTC)
KEEP_S = 3600.0


class Reading(NamedTuple):
    """A log without a horizon, whose gaps are kept in a state schema of the same database."""

    shop: ShopRows
    opened: OpenedLog
    gaps: SiteIdGaps
    store: Store

    async def late(self, until: int = 2**62, keep_s: float = KEEP_S) -> list[int]:
        found = LateArrivals(self.opened.log, self.gaps, keep_s).pages(Position(0, until))
        return [entry.position.id async for page in found for entry in page.entries]

    async def kept(self) -> list[tuple[int, int]]:
        return [gap[:2] for gap in await self.gaps.page(0, 2**62, 1000)]

    async def parked(self) -> list[int]:
        rows = await self.store.fetch("parked_page", 1, 0, 0, 0, 2**62, 1000)
        return [row["log_id"] for row in rows]

    async def read(self, after: int = 0) -> list[int]:
        return [entry.position.id for entry in await read(self.opened, Position(0, after))]

    async def entry(self, site_id: int = 1, inserted_at: datetime = NOW) -> int:
        """Write an entry of this hour: the gaps before it are young."""
        return (await self.shop.entry(site_id=site_id, inserted_at=inserted_at)).id

    async def skip(self, ids: int) -> None:
        """Take ids that nothing is written with."""
        await self.shop.connection.execute(
            "SELECT nextval('kiva.system_log_id_seq') FROM generate_series(1, $1)", ids
        )


@asynccontextmanager
async def open_reading(shop: ShopRows, dsn: str) -> AsyncIterator[Reading]:
    async with (
        migrated_store(dsn) as store,
        hold(store, 1, "an account", lease_s=30) as lease,
        opened_log(dsn, id_gaps=SiteIdGaps(store, lease, 1), horizon=False) as opened,
    ):
        yield Reading(shop, opened, SiteIdGaps(store, lease, 1), store)


@pytest.fixture
async def reading(database: str) -> AsyncIterator[Reading]:
    async with ShopRows.create(database) as shop, open_reading(shop, database) as opened:
        yield opened


async def test_positions_are_ids_whatever_the_transactions_were(reading: Reading) -> None:
    shop, opened = reading.shop, reading.opened
    ids = [(await shop.entry(txid)).id for txid in (2**40, 10, 30)]
    entries = await read(opened)
    assert [entry.position for entry in entries] == [Position(0, each) for each in ids]
    first, _, last = (entry.position for entry in entries)
    assert (await opened.horizon.high_water_mark()).position == last
    assert await opened.positions.before(last, 2) == first
    assert await opened.positions.count_or_distance(first, last) == 2
    assert await opened.positions.first_since(datetime(2000, 1, 1, tzinfo=UTC)) == first
    assert [entry.position for entry in await opened.log.entries([last, first])] == [first, last]
    assert await opened.horizon.obstacle(DAY1) is None
    assert await opened.horizon.obstacle(last) is None


async def test_a_log_without_a_txid_is_to_contract_and_can_be_read(database: str) -> None:
    async with ShopRows.create(database) as shop:
        written = (await shop.entry(10)).id
        await shop.connection.execute("ALTER TABLE kiva.system_log DROP COLUMN txid CASCADE")
        assert "no column txid" in (await check_contract(shop.connection, "kiva", 1))[0].text
        assert await check_contract(shop.connection, "kiva", 1, horizon=False) == []
        async with open_reading(shop, database) as reading:
            assert await reading.read() == [written]
            assert (await reading.opened.log.sample(DAY1, Position(0, written)))[0].position.id == written


async def test_an_entry_whose_commit_is_late_is_found_in_its_gap_once(
    reading: Reading, database: str
) -> None:
    await reading.entry()
    async with connected(database) as other:
        slow = other.transaction()
        await slow.start()
        late = (await ShopRows(other).entry(inserted_at=NOW)).id
        last = await reading.entry()
        assert late not in await reading.read()
        assert await reading.kept() == [(late, late)]
        assert await reading.late() == []
        await slow.commit()
    assert await reading.late(until=last) == [late]
    assert [*await reading.parked()] == [late]
    assert await reading.kept() == []
    assert await reading.late() == []
    assert await reading.read(last) == []


async def test_a_gap_is_recorded_before_the_entries_behind_it_are_yielded(reading: Reading) -> None:
    first = await reading.entry()
    await reading.skip(3)
    last = await reading.entry()
    kept = []
    async for page in reading.opened.log.pages(DAY1, await reading.opened.horizon.high_water_mark()):
        kept.append(await reading.kept())
        assert page[-1].position.id == last
    assert kept == [[(first + 1, last - 1)]]


async def test_an_entry_committed_between_reading_rows_and_gaps_is_still_in_a_gap(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await reading.entry()
    await reading.skip(1)
    await reading.entry()
    look_for_gaps = Source.fetch_beside

    async def after_a_late_commit(source: Source, *args: Any) -> list[asyncpg.Record]:  # noqa: ANN401
        when = {"occurred_at": NOW, "inserted_at": NOW}
        await reading.shop.insert("system_log", id=first + 1, site_id=1, message="x", **when)
        return await look_for_gaps(source, *args)

    monkeypatch.setattr(Source, "fetch_beside", after_a_late_commit)
    assert await reading.read() == [first, first + 2]
    assert await reading.late() == [first + 1]


async def test_ids_of_other_sites_are_no_gaps(reading: Reading) -> None:
    await reading.entry()
    await reading.entry(site_id=2)
    await reading.entry()
    await reading.read()
    assert await reading.kept() == []


async def test_gaps_of_long_ago_are_not_looked_for(reading: Reading) -> None:
    await reading.entry(inserted_at=NOW - timedelta(days=9))
    await reading.skip(2)
    await reading.entry(inserted_at=NOW - timedelta(days=8))
    await reading.skip(2)
    last = await reading.entry()
    await reading.read()
    assert await reading.kept() == [(last - 2, last - 1)]


async def test_an_entry_that_is_read_again_is_not_found_again_in_its_gap(reading: Reading) -> None:
    """As after a crash before the watermark passed the gap: by then the entry comes in its place."""
    first = await reading.entry()
    await reading.skip(1)
    last = await reading.entry()
    await reading.read(first)
    assert await reading.kept() == [(first + 1, first + 1)]
    await reading.shop.insert(
        "system_log", id=first + 1, site_id=1, occurred_at=NOW, inserted_at=NOW, message="x"
    )
    assert await reading.late(until=first) == []
    assert await reading.read(first) == [first + 1, last]
    assert await reading.kept() == []
    assert await reading.late() == []


async def test_a_gap_that_contains_a_rewinds_position_ends_there(reading: Reading) -> None:
    await reading.entry()
    await reading.skip(10)
    last = await reading.entry()
    await reading.read()
    await reading.read(last - 5)
    assert await reading.kept() == [(last - 10, last - 5), (last - 4, last - 1)]


async def test_gaps_are_forgotten_after_a_while(reading: Reading) -> None:
    await reading.gaps.record(0, 20, [IdGap(2, 3, NOW - timedelta(hours=2)), IdGap(7, 9, NOW)])
    assert await reading.late() == []
    assert await reading.kept() == [(7, 9)]


@pytest.fixture
async def filled(database: str) -> AsyncIterator[asyncpg.Connection]:
    async with ShopRows.create(database) as rows:
        await rows.connection.execute(
            "INSERT INTO kiva.system_log (site_id, occurred_at, inserted_at, message)"
            " SELECT 1 + i % 2, now(), now(), 'x' FROM generate_series(1, 20000) i; ANALYZE kiva.system_log"
        )
        yield rows.connection


async def test_a_log_is_read_by_id_along_its_index(filled: asyncpg.Connection) -> None:
    queries = sql_blocks.load("kiva_stream.source", "kiva", "queries.sql", "queries_by_id.sql")
    for block, arguments in (
        ("page_range", "1, 0, 500, 0, 9000, 100"),
        ("high_water_mark", "1, 600"),
        ("id_gaps", "500, 600, 3600"),
        ("entries_in_id_gaps", "1, '{500,700}', '{510,701}', 100"),
        ("entries", "1, '{0}', '{700}'"),
    ):
        await filled.execute(f"PREPARE {block}_plan AS {queries[block]}")
        rows = await filled.fetch(f"EXPLAIN EXECUTE {block}_plan ({arguments})")
        plan = "\n".join(row[0] for row in rows)
        assert "Index Scan" in plan, plan
        assert "Seq Scan on system_log" not in plan, plan
