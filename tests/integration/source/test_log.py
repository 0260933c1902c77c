"""Reading a shop's log from a real PostgreSQL: what is read, when, in which order, and how gently."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from traceback import format_exception
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import anyio
import asyncpg
import pytest

from kiva_stream.errors import SourceError
from kiva_stream.model.entries import Entry
from kiva_stream.model.ids import CustomerId, Email
from kiva_stream.model.positions import DAY1, HighWaterMark, Position
from kiva_stream.primitives import sql_blocks
from kiva_stream.sandbox.postgres import own_postgres
from kiva_stream.source.customers import ShopCustomers
from kiva_stream.source.site import read_site
from kiva_stream.source.source import WAITS_S, Source
from tests.support.postgres import UNREADABLE_DSNS, as_role, connected
from tests.support.shop_rows import OpenedLog, ShopRows, Sleeps, opened_log, read, source_settings

FOREVER = datetime.max.replace(tzinfo=UTC)
END = HighWaterMark(Position(2**62, 2**62), FOREVER)  # above everything there can be
HOUR = timedelta(hours=1)


@pytest.fixture
async def shop(database: str) -> AsyncIterator[ShopRows]:
    async with ShopRows.create(database) as rows:
        yield rows


@pytest.fixture
async def role(shop: ShopRows) -> AsyncIterator[str]:
    """A role that may look at the shop's tables, and nothing else."""
    name = f"kiva_test_{uuid4().hex}"
    await shop.connection.execute(
        f"CREATE ROLE {name} LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA kiva TO {name};"
        f"GRANT SELECT ON ALL TABLES IN SCHEMA kiva TO {name}"
    )
    yield name
    await shop.connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def positions(entries: list[Entry]) -> list[Position]:
    return [entry.position for entry in entries]


async def until(is_so: Callable[[], Awaitable[object]]) -> None:
    """Return when a condition holds; fail when it does not within ten seconds."""
    with anyio.fail_after(10):
        while not await is_so():  # noqa: ASYNC110  it is the server's condition
            await anyio.sleep(0.005)


async def sessions(shop: ShopRows, more: str = "true") -> list[asyncpg.Record]:
    """Return the source's sessions on the server."""
    return await shop.connection.fetch(  # type: ignore[no-any-return]
        "SELECT pid, state, xact_start FROM pg_stat_activity WHERE datname = current_database() "
        f"AND application_name = 'kiva_stream source' AND {more}"
    )


async def cut(shop: ShopRows) -> int:
    """End the source's sessions, as a restart or a failover does; return how many there were."""
    pids = [row["pid"] for row in await sessions(shop)]
    await shop.connection.execute("SELECT pg_terminate_backend(p) FROM unnest($1::int[]) p", pids)
    await until(lambda: gone(shop, pids))
    return len(pids)


async def gone(shop: ShopRows, pids: list[int]) -> bool:
    return not {row["pid"] for row in await sessions(shop)} & set(pids)


# Order


async def test_rows_come_in_order_of_transaction_then_id(database: str, shop: ShopRows) -> None:
    late = await shop.entry(30)  # the lowest id, committed last
    written = [await shop.entry(txid) for txid in (20, 10, 20, 10)]
    async with opened_log(database) as opened:
        assert positions(await read(opened)) == [*sorted(written), late]
        assert late.id < min(written).id


async def test_rows_of_other_sites_are_not_read(database: str, shop: ShopRows) -> None:
    mine = await shop.entry(10)
    await shop.entry(11, site_id=2)
    async with opened_log(database) as opened:
        assert positions(await read(opened, mark=END)) == [mine]
        assert (await opened.horizon.high_water_mark()).position == mine
        assert await opened.positions.count_or_distance(DAY1, END.position) == 1
        assert await opened.positions.before(END.position, 0) == mine
        assert positions(await opened.log.sample(DAY1, END.position._replace(id=3))) == [mine]
        assert await opened.positions.first_since(datetime(2000, 1, 1, tzinfo=UTC)) == mine


async def test_reading_goes_on_after_a_position_and_ends_at_the_marks(database: str, shop: ShopRows) -> None:
    a, b, c, d = [await shop.entry(txid) for txid in (10, 10, 11, 11)]
    async with opened_log(database) as opened:
        assert positions(await read(opened, a, HighWaterMark(c, FOREVER))) == [b, c]
        assert positions(await read(opened, c, HighWaterMark(d, FOREVER))) == [d]
        assert await read(opened, d, HighWaterMark(d, FOREVER)) == []
        assert await opened.positions.count_or_distance(a, c) == 2


async def test_an_empty_log_has_nothing_to_read(database: str, shop: ShopRows) -> None:
    async with opened_log(database) as opened:
        assert (await opened.horizon.high_water_mark()).position == DAY1
        assert await read(opened) == []
        assert await read(opened, mark=END) == []
        assert await opened.positions.first_since(datetime(2000, 1, 1, tzinfo=UTC)) is None


# Horizon


async def test_nothing_is_read_that_an_open_transaction_could_still_precede(
    database: str, shop: ShopRows
) -> None:
    async with connected(database) as other, opened_log(database) as opened:
        slow = other.transaction()
        await slow.start()
        old = await ShopRows(other).entry()
        young = await shop.entry()
        assert (await opened.horizon.high_water_mark()).position == DAY1
        assert await read(opened, mark=END) == []
        assert await opened.positions.first_since(datetime(2000, 1, 1, tzinfo=UTC)) is None
        await slow.commit()
        await until(lambda: reaches(opened, young))
        assert positions(await read(opened)) == [old, young]


async def reaches(opened: OpenedLog, position: Position) -> bool:
    return (await opened.horizon.high_water_mark()).position >= position


async def test_a_row_written_late_by_an_old_transaction_is_not_lost(database: str, shop: ShopRows) -> None:
    async with connected(database) as other, opened_log(database) as opened:
        slow = other.transaction()
        await slow.start()
        await other.execute("SELECT pg_current_xact_id()")
        young = await shop.entry()
        seen = await read(opened)
        late = await ShopRows(other).entry()
        await slow.commit()
        await until(lambda: reaches(opened, young))
        seen += await read(opened, seen[-1].position if seen else DAY1)
        assert positions(seen) == [late, young]
        assert late.id > young.id


async def test_writers_that_overtake_each_other_lose_and_repeat_nothing(
    database: str, shop: ShopRows
) -> None:
    """Six writers, each a row behind the other; the log is polled after every step."""
    written: list[Position] = []
    seen: list[Entry] = []
    async with opened_log(database) as opened, AsyncExitStack() as stack:
        writers = [await stack.enter_async_context(connected(database)) for _ in range(6)]
        open_ones: list[tuple[ShopRows, asyncpg.transaction.Transaction]] = []
        for step in range(24):
            if len(open_ones) == len(writers):
                _, transaction = open_ones.pop(step * 5 % len(open_ones))
                await transaction.commit()
            busy = {id(rows.connection) for rows, _ in open_ones}
            free = next(writer for writer in writers if id(writer) not in busy)
            transaction = free.transaction()
            await transaction.start()
            open_ones.append((ShopRows(free), transaction))
            written += [await rows.entry() for rows, _ in reversed(open_ones)]
            seen += await read(opened, seen[-1].position if seen else DAY1)
        for _, transaction in open_ones:
            await transaction.commit()
        await until(lambda: reaches(opened, max(written)))
        seen += await read(opened, seen[-1].position if seen else DAY1)
    assert positions(seen) == sorted(written)


async def test_rows_that_were_rolled_back_stop_nothing(database: str, shop: ShopRows) -> None:
    first = await shop.entry(10)
    undone = shop.connection.transaction()
    await undone.start()
    await shop.entry(11)
    await undone.rollback()
    last = await shop.entry(12)
    async with opened_log(database) as opened:
        assert positions(await read(opened)) == [first, last]
        assert last.id == first.id + 2


# Delay


async def test_the_delay_is_a_cut_and_not_a_filter(database: str, shop: ShopRows) -> None:
    now = datetime.now(UTC)
    old = [await shop.entry(txid) for txid in (10, 20)]
    young = await shop.entry(20, inserted_at=now)
    after_it = [await shop.entry(txid) for txid in (20, 30)]
    async with opened_log(database, delay_s=600, page_rows=2) as opened:
        seen = await read(opened)
        assert positions(seen) == old
        later = HighWaterMark(after_it[-1], now + HOUR)
        assert positions(await read(opened, seen[-1].position, later)) == [young, *after_it]


async def test_an_obstacle_to_reading_the_log_is_a_sentence(database: str, shop: ShopRows) -> None:
    now = datetime.now(UTC)
    read_so_far = await shop.entry(10)
    async with connected(database) as other, opened_log(database, delay_s=600) as opened:
        assert await opened.horizon.obstacle(read_so_far) is None
        young = await shop.entry(20, inserted_at=now)
        assert await opened.horizon.obstacle(read_so_far) is None
        future = await shop.entry(30, inserted_at=now + HOUR)
        assert f"before the entry {future}: its inserted_at" in str(await opened.horizon.obstacle(young))
        async with other.transaction():
            await ShopRows(other).entry()
            held_up = await shop.entry(inserted_at=now - HOUR)
            assert f"before the entry {held_up}: a writing transaction" in str(
                await opened.horizon.obstacle(future)
            )


async def test_the_mark_is_the_newest_position_and_the_moment_of_the_delay(
    database: str, shop: ShopRows
) -> None:
    newest = max([await shop.entry(10), await shop.entry(12), await shop.entry(11)])
    async with opened_log(database, delay_s=600) as opened:
        before = await shop.connection.fetchval("SELECT clock_timestamp()")
        mark = await opened.horizon.high_water_mark()
        after = await shop.connection.fetchval("SELECT clock_timestamp()")
    assert mark.position == newest
    assert before - timedelta(seconds=600) <= mark.inserted_before <= after - timedelta(seconds=600)


async def test_a_row_as_young_as_the_delay_is_not_read(database: str, shop: ShopRows) -> None:
    row = await shop.entry(10, inserted_at="2018-03-04 17:00:00Z")
    moment = datetime(2018, 3, 4, 17, tzinfo=UTC)
    async with opened_log(database) as opened:
        assert await read(opened, mark=HighWaterMark(row, moment)) == []
        assert len(await read(opened, mark=HighWaterMark(row, moment + timedelta(microseconds=1)))) == 1


# Who holds the horizon back


async def held_by(opened: OpenedLog, words: str) -> str:
    """Return the sentence about who holds the horizon back, when it has these words.

    Before, it may be somebody else on the server for a moment.
    """

    async def is_it() -> bool:
        return words in str(await opened.horizon.oldest_writer())

    await until(is_it)
    return str(await opened.horizon.oldest_writer())


async def test_the_session_that_holds_the_horizon_back_is_named(database: str, shop: ShopRows) -> None:
    async with connected(database) as other, connected(database) as reader, opened_log(database) as opened:
        await reader.execute("BEGIN; SELECT 1")  # reads for long, and holds nothing up
        await other.execute("SET application_name = 'month end'; BEGIN")
        await ShopRows(other).entry()
        entry = await shop.entry(inserted_at=datetime.now(UTC) - HOUR)
        place = f"the session with pid {other.get_server_pid()} in the database {shop_name(database)}"
        sentence = await held_by(opened, place)
        assert re.search(r" \(month end\), for \d+ s$", sentence)
        obstacle = str(await opened.horizon.obstacle(DAY1))
    assert f"{entry}: a writing transaction that could still precede it is open: the session" in obstacle


def shop_name(dsn: str) -> str:
    return urlsplit(dsn).path.removeprefix("/")


async def test_a_plain_role_sees_the_oldest_writer_but_not_since_when(
    database: str, shop: ShopRows, role: str
) -> None:
    async with (
        connected(database) as other,
        opened_log(as_role(database, role)) as opened,
        other.transaction(),
    ):
        await ShopRows(other).entry()
        sentence = await held_by(opened, f"pid {other.get_server_pid()} ")
        assert " s" not in sentence.rpartition("database")[2]


async def test_a_prepared_transaction_that_holds_the_horizon_back_is_named() -> None:
    with own_postgres(settings={"max_prepared_transactions": "2"}) as server:
        database = await server.create_database("prepared")
        async with ShopRows.create(database) as shop, opened_log(database) as opened:
            await shop.connection.execute("BEGIN")
            await shop.entry()
            await shop.connection.execute("PREPARE TRANSACTION 'month end'")
            sentence = await held_by(
                opened, "the prepared transaction month end in the database prepared, for "
            )
            assert sentence.endswith(" s")
            await shop.connection.execute("ROLLBACK PREPARED 'month end'")


async def test_there_is_no_oldest_writer_without_writing_transactions(database: str, shop: ShopRows) -> None:
    async with opened_log(database) as opened:

        async def is_free() -> bool:
            return await opened.horizon.oldest_writer() is None

        await until(is_free)


async def test_a_log_of_another_server_says_so(database: str, shop: ShopRows) -> None:
    foreign = await shop.entry(2**40)
    async with opened_log(database) as opened:
        assert f"before the entry {foreign}: no transaction of this server has its txid yet" in (
            str(await opened.horizon.obstacle(DAY1))
        )


# Single entries


async def test_entries_come_by_their_positions_in_log_order(database: str, shop: ShopRows) -> None:
    *asked, not_asked = [await shop.entry(txid) for txid in range(30, 10, -1)]
    foreign = await shop.entry(10, site_id=2)
    gone = not_asked._replace(txid=31)
    async with opened_log(database) as opened:
        found = positions(await opened.log.entries([*asked, gone, foreign, asked[0]]))
        assert found == sorted(asked)
        assert await opened.log.entries([]) == []


async def test_entries_by_position_have_their_customers_as_they_are_now(
    database: str, shop: ShopRows
) -> None:
    await shop.customer(5, "n/a")
    position = await shop.entry(10, customer_id=5)
    async with opened_log(database) as opened:
        await read(opened)
        await shop.connection.execute("UPDATE kiva.customers SET email = 'ann@example.com'")
        (entry,) = await opened.log.entries([position])
    assert entry.customer is not None
    assert entry.customer.email == "ann@example.com"


# Ranges


async def test_ranges_end_by_rows_and_the_next_goes_on_without_gap_or_repeat(
    database: str, shop: ShopRows
) -> None:
    written = [await shop.entry(10 + n // 4) for n in range(11)]
    async with opened_log(database, page_rows=2, range_rows=3) as opened:
        pages = [positions(page) async for page in opened.log.pages(DAY1, END)]
    assert [len(page) for page in pages] == [2, 1, 2, 1, 2, 1, 2]
    assert [position for page in pages for position in page] == written


@pytest.mark.parametrize(
    ("limit", "rows_in_a_range"),
    [
        ({}, 6),
        ({"range_rows": 4}, 4),
        ({"range_bytes": 10}, 3),  # a row has 4, without its data
        ({"range_max_s": 1e-9}, 1),
    ],
)
async def test_a_range_ends_by_rows_by_bytes_or_by_time(
    database: str, shop: ShopRows, limit: dict[str, Any], rows_in_a_range: int
) -> None:
    """What is changed while the first page is out shows in the rows that its range had not read."""
    for _ in range(6):
        await shop.entry(10, message="once")
    async with opened_log(database, page_rows=1, **limit) as opened:
        messages = []
        async for (entry,) in opened.log.pages(DAY1, END):
            messages.append(entry.message)
            await shop.connection.execute("UPDATE kiva.system_log SET message = 'then'")
    assert messages == ["once"] * rows_in_a_range + ["then"] * (6 - rows_in_a_range)


async def test_data_counts_among_the_bytes_of_a_range(database: str, shop: ShopRows) -> None:
    for _ in range(2):
        await shop.entry(10, message="once", data=json.dumps("d" * 20))
    async with opened_log(database, page_rows=1, range_bytes=20) as opened:
        messages = []
        async for (entry,) in opened.log.pages(DAY1, END):
            messages.append(entry.message)
            await shop.connection.execute("UPDATE kiva.system_log SET message = 'then'")
    assert messages == ["once", "then"]


async def test_no_transaction_is_open_on_the_source_while_a_page_is_out(
    database: str, shop: ShopRows
) -> None:
    for _ in range(6):
        await shop.entry(10)
    async with opened_log(database, page_rows=2, range_rows=4) as opened:
        states = []
        async for _ in opened.log.pages(DAY1, END):
            states += [(row["state"], row["xact_start"]) for row in await sessions(shop)]
    assert states == [("idle", None)] * 3


async def test_no_transaction_is_open_on_the_source_while_a_slow_pace_is_kept(
    database: str, shop: ShopRows
) -> None:
    for _ in range(6):
        await shop.entry(10)
    waits: list[int] = []
    states: list[tuple[str, object]] = []

    async def sleep(seconds: float) -> None:
        waits.append(round(seconds))
        states.extend((row["state"], row["xact_start"]) for row in await sessions(shop))

    async with opened_log(database, sleep, page_rows=2, range_rows=4, max_rows_per_s=1) as opened:
        assert len(await read(opened, mark=END)) == 6
    assert waits == [0, 2, 4]  # in no time: each page from the end of the one before
    assert states == [("idle", None)] * 3


@pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])
async def test_the_log_is_read_along_the_index_of_positions(shop: ShopRows, plans: str) -> None:
    """A statement that a session repeats gets a plan without its parameters: that one counts too."""
    await shop.connection.execute(
        "INSERT INTO kiva.system_log (site_id, txid, occurred_at, inserted_at, message)"
        "SELECT 1 + n % 2, (n / 70)::text::xid8, now(), now(), repeat('x', 200)"
        f"FROM generate_series(1, 20000) n; ANALYZE kiva.system_log; SET plan_cache_mode = {plans}"
    )
    queries = sql_blocks.load("kiva_stream.source", "kiva", "queries.sql")
    for block, arguments in {
        "page_range": "1, '30', 2000, '1000000', 1, 1000",
        "before": "1, '30', 2000, 100",
        "high_water_mark": "1, 600",
        "next_entry": "1, '30', 2000, 600",
        "entries": f"1, '{{{','.join(['30'] * 1000)}}}', '{{{','.join(map(str, range(2000, 3000)))}}}'",
    }.items():
        await shop.connection.execute(f"PREPARE {block} AS {queries[block]}")
        explained = await shop.connection.fetch(f"EXPLAIN EXECUTE {block} ({arguments})")
        plan = "\n".join(row[0] for row in explained)
        assert re.search("Index .*using system_log_commit", plan), plan
        assert "Seq Scan" not in plan
        assert block == "entries" or "Sort" not in plan  # they are few, and asked for in any order


@pytest.mark.parametrize("settings", [{}, {"horizon": False}], ids=["by position", "by id"])
async def test_a_count_of_the_log_scans_it_along_an_index_and_a_query_takes_no_helpers(
    database: str, shop: ShopRows, settings: dict[str, Any]
) -> None:
    """What PostgreSQL would do with a large table that was not vacuumed: read all of it, with two helpers."""
    await shop.connection.execute(
        "INSERT INTO kiva.system_log (site_id, txid, occurred_at, inserted_at, message)"
        "SELECT 1, '10', now(), now(), repeat('x', 200) FROM generate_series(1, 20000);"
        "ANALYZE kiva.system_log; ALTER DATABASE "
        + shop_name(database)
        + " SET min_parallel_table_scan_size = 0;"
        "ALTER DATABASE " + shop_name(database) + " SET parallel_setup_cost = 0"
    )
    before = await scans(shop)
    async with opened_log(database, **settings) as opened:
        assert (
            await opened.positions.count_or_distance(DAY1, Position(10, 20_000))
            == await opened.positions.count(DAY1, END.position)
            == 20_000
        )

    async def all_is_told() -> bool:
        return not await sessions(shop)

    await until(all_is_told)
    assert await scans(shop) == before
    async with Source.open(source_settings(database)) as source:
        plan = await source.read(lambda found: found.fetch("EXPLAIN SELECT count(*) FROM kiva.system_log"))
    assert "Gather" not in str(plan)


async def scans(shop: ShopRows) -> int:
    """Return how often all of the log was read. What the connection itself did is told now, not later."""
    if shop.connection.get_server_version().major >= 15:
        await shop.connection.execute("SELECT pg_stat_force_next_flush()")
    return await shop.connection.fetchval(  # type: ignore[no-any-return]
        "SELECT seq_scan FROM pg_stat_user_tables WHERE relid = 'kiva.system_log'::regclass"
    )


# The last rows, dates, counts


async def test_after_the_position_before_lie_the_last_rows_up_to_another(
    database: str, shop: ShopRows
) -> None:
    late = await shop.entry(30)
    a, b, c = [await shop.entry(txid) for txid in (10, 11, 12)]
    async with opened_log(database) as opened:
        assert await opened.positions.before(c, 2) == a
        assert await opened.positions.before(late, 2) == b
        assert positions(await read(opened, b, HighWaterMark(late, FOREVER))) == [c, late]
        assert await opened.positions.before(late, 4) == await opened.positions.before(late, 9) == DAY1
        assert await opened.positions.before(DAY1, 9) == DAY1


async def test_first_since_is_the_lowest_position_not_the_earliest_row(database: str, shop: ShopRows) -> None:
    await shop.entry(10, inserted_at="2018-03-04 11:00Z")
    lowest = await shop.entry(11, inserted_at="2018-03-04 12:30Z")
    earliest = await shop.entry(12, inserted_at="2018-03-04 12:00Z")
    async with opened_log(database) as opened:
        assert await opened.positions.first_since(datetime(2018, 3, 4, 12, tzinfo=UTC)) == lowest
        assert await opened.positions.first_since(datetime(2018, 3, 4, 13, tzinfo=UTC)) is None
        assert earliest > lowest


@pytest.mark.parametrize(
    ("quick_s", "statement_timeout_s"), [(5, 0.1), (0.1, 30)], ids=["for a statement", "for a transaction"]
)
async def test_a_count_that_takes_too_long_is_the_distance_of_the_ids(
    database: str, shop: ShopRows, monkeypatch: pytest.MonkeyPatch, quick_s: float, statement_timeout_s: float
) -> None:
    monkeypatch.setattr("kiva_stream.source.source.QUICK_S", quick_s)
    first, *_, last = [await shop.entry(10) for _ in range(3)]
    sleep = Sleeps()
    async with opened_log(database, sleep, statement_timeout_s=statement_timeout_s) as opened:
        assert await opened.positions.count_or_distance(first, last) == 2
        async with shop.connection.transaction():
            await shop.connection.execute("LOCK TABLE kiva.system_log")
            with anyio.fail_after(10):
                assert (
                    await opened.positions.count_or_distance(first, last._replace(id=1_000_000))
                    == 1_000_000 - first.id
                )
                assert await opened.positions.count_or_distance(last, first._replace(txid=11)) == 0
    assert sleep.waits == []


async def test_an_exact_count_may_take_longer_than_one_that_has_another_way(
    database: str, shop: ShopRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kiva_stream.source.source.QUICK_S", 0.1)
    first, *_, last = [await shop.entry(10) for _ in range(3)]
    async with opened_log(database) as opened:
        async with shop.connection.transaction():
            await shop.connection.execute("LOCK TABLE kiva.system_log")
            exact = asyncio.create_task(opened.positions.count(first, last))
            for _ in range(2):  # the first may have begun before it; both are given up
                assert await opened.positions.count_or_distance(first, last) == last.id - first.id
        assert await exact == 2


@pytest.mark.parametrize(
    ("day", "hour"), [(date(2018, 3, 11), 7), (date(2018, 3, 12), 6)]
)  # the night from the 11th to the 12th is the first of summer time
async def test_a_day_begins_at_midnight_in_the_sites_timezone(
    database: str, shop: ShopRows, day: date, hour: int
) -> None:
    async with opened_log(database) as opened:
        assert await opened.positions.midnight(day) == datetime(
            day.year, day.month, day.day, hour, tzinfo=UTC
        )


async def test_row_36_the_site_is_read_with_its_currency_trimmed_and_upper_case(
    database: str, shop: ShopRows
) -> None:
    await shop.connection.execute("UPDATE kiva.sites SET currency = ' zr'")
    async with opened_log(database) as opened:
        site = await read_site(opened.pool, 1)
    assert (site.id, site.name, site.timezone, site.currency) == (1, "Green Box", "America/Denver", "ZR")
    assert site.launched_at == datetime(2018, 1, 1, 7, tzinfo=UTC)


async def test_a_site_that_does_not_exist_is_one_sentence(database: str, shop: ShopRows) -> None:
    async with opened_log(database) as opened:
        with pytest.raises(SourceError, match=r"^There is no site 9 .* set source\.site_id"):
            await read_site(opened.pool, 9)


async def test_a_sample_comes_from_all_over_the_stretch(database: str, shop: ShopRows) -> None:
    await shop.connection.execute(
        "INSERT INTO kiva.system_log (site_id, txid, occurred_at, inserted_at, message)"
        "SELECT 1, '10', now(), now(), 'x' FROM generate_series(1, 20000)"
    )
    async with opened_log(database) as opened:
        ids = {entry.position.id for entry in await opened.log.sample(Position(0, 0), Position(10, 20_000))}
    assert len(ids) == 2000
    assert max(b - a for a, b in pairwise(sorted(ids))) <= 100


# Gentle


async def test_a_role_with_nothing_but_select_can_read_everything(
    database: str, shop: ShopRows, role: str
) -> None:
    await shop.customer(5, "ann@example.com")
    row = await shop.entry(10, customer_id=5)
    dsn = as_role(database, role)
    async with opened_log(dsn) as opened, Source.open(source_settings(dsn)) as source:
        assert (await read_site(opened.pool, 1)).id == 1
        assert positions(await read(opened)) == [row]
        assert await opened.positions.before(row, 0) == row
        assert positions(await opened.log.sample(DAY1, row)) == [row]
        assert await opened.positions.first_since(datetime(2000, 1, 1, tzinfo=UTC)) == row
        assert await opened.positions.midnight(date(2018, 1, 1)) == datetime(2018, 1, 1, 7, tzinfo=UTC)
        customers = ShopCustomers(source, 1, [])
        assert len(await customers.by_email([Email("ann@example.com")])) == 1
        assert len(await customers.page(CustomerId(0), 10)) == 1
        assert len(await customers.accounts([CustomerId(5)])) == 1
        assert await customers.count_reachable() == 1


async def test_a_session_refuses_to_write_whatever_the_role_may(database: str, shop: ShopRows) -> None:
    async with Source.open(source_settings(database)) as source:
        with pytest.raises(SourceError, match="read-only transaction"):
            await source.read(lambda connection: connection.execute("DELETE FROM kiva.sites"))
        assert len(await source.fetch("site", 1)) == 1


async def test_connections_are_at_most_as_many_as_allowed(database: str, shop: ShopRows) -> None:
    async with Source.open(source_settings(database, max_connections=2)) as source:

        async def pid(connection: asyncpg.Connection) -> int:
            await connection.execute("SELECT pg_sleep(0.001)")
            return int(await connection.fetchval("SELECT pg_backend_pid()"))

        pids = await asyncio.gather(*(source.read(pid) for _ in range(12)))
        assert len(set(pids)) == 2
        assert len(await sessions(shop)) == 2


async def test_a_statement_is_stopped_when_it_takes_too_long(database: str, shop: ShopRows) -> None:
    async with Source.open(source_settings(database, statement_timeout_s=0.02), Sleeps()) as source:
        with pytest.raises(SourceError, match=r"cannot be read \(source\.dsn\): canceling statement"):
            await source.read(lambda connection: connection.execute("SELECT pg_sleep(5)"))


# Trouble


async def test_connections_cut_between_pages_lose_and_repeat_nothing(database: str, shop: ShopRows) -> None:
    written = [await shop.entry(10) for _ in range(9)]
    async with opened_log(database, page_rows=2, range_rows=3) as opened:
        seen, sessions_cut = [], 0
        async for page in opened.log.pages(DAY1, END):
            seen += positions(page)
            sessions_cut += await cut(shop)
    assert seen == written
    assert sessions_cut >= 3  # one a range


@asynccontextmanager
async def held_at(shop: ShopRows, dsn: str, log_id: int) -> AsyncIterator[None]:
    """Make whoever reads one row of the log wait there until the end."""
    await shop.connection.execute(
        "ALTER TABLE kiva.system_log RENAME TO journal;"
        "CREATE FUNCTION kiva.held(text) RETURNS text STABLE COST 100000 LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN $1; END';"
        "CREATE VIEW kiva.system_log AS SELECT id, site_id, txid, occurred_at, inserted_at, action,"
        f" actor_type, admin_user, CASE id WHEN {log_id} THEN kiva.held(message) ELSE message END AS message,"
        " data, customer_id FROM kiva.journal"
    )
    async with connected(dsn) as holder:
        await holder.execute("SELECT pg_advisory_lock(1)")
        yield


async def test_a_connection_cut_in_the_middle_of_a_page_loses_and_repeats_nothing(
    database: str, shop: ShopRows
) -> None:
    written = [await shop.entry(10) for _ in range(9)]
    pages: list[list[Position]] = []
    sleep = Sleeps()
    async with opened_log(database, sleep, page_rows=2, range_rows=6) as opened:

        async def collect() -> None:
            pages.extend([positions(page) async for page in opened.log.pages(DAY1, END)])

        async with anyio.create_task_group() as group, held_at(shop, database, written[3].id):
            group.start_soon(collect)
            await until(lambda: sessions(shop, "wait_event = 'advisory'"))
            assert await cut(shop) == 1
    assert sleep.waits[:1] == [WAITS_S[0]]
    assert [len(page) for page in pages] == [2, 2, 2, 2, 1]
    assert [position for page in pages for position in page] == written


async def test_a_failure_is_raised_after_a_few_attempts(database: str, shop: ShopRows, role: str) -> None:
    sleep = Sleeps()
    async with opened_log(as_role(database, role), sleep) as opened:
        await shop.connection.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0")
        await cut(shop)
        with pytest.raises(
            SourceError, match=r"^The shop's database cannot be read \(source\.dsn\): too many"
        ):
            await read_site(opened.pool, 1)
        assert sleep.waits == list(WAITS_S)
        await shop.connection.execute(f"ALTER ROLE {role} CONNECTION LIMIT -1")
        assert (await read_site(opened.pool, 1)).id == 1


async def test_a_server_out_of_reach_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(SourceError, match=r"^Cannot reach the shop's database \(source\.dsn\): .*[Cc]onnect"):
        async with Source.open(source_settings(f"postgresql://ro@127.0.0.1:{port}/shop")):
            pass


async def test_a_wrong_password_is_one_sentence() -> None:
    """The local servers trust whoever reaches them, so this one only says what such a server says."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        startup = await reader.readexactly(int.from_bytes(await reader.readexactly(4)) - 4)
        if startup == (80877103).to_bytes(4):  # SSLRequest
            writer.write(b"N")
            await reader.readexactly(int.from_bytes(await reader.readexactly(4)) - 4)
        fields = b'SFATAL\0C28P01\0Mpassword authentication failed for user "ro"\0\0'
        writer.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(SourceError, match=r"^Cannot reach .* password authentication failed"):
            async with Source.open(source_settings(f"postgresql://ro:wrong@127.0.0.1:{port}/shop")):
                pass


@pytest.mark.parametrize("dsn", UNREADABLE_DSNS)
async def test_an_address_that_cannot_be_read_is_one_sentence_without_it(dsn: str) -> None:
    with pytest.raises(SourceError, match=r"^source\.dsn cannot be read as a PostgreSQL address") as caught:
        async with Source.open(source_settings(dsn)):
            pass
    assert "s3cret" not in "".join(format_exception(caught.value))


async def test_a_database_or_a_role_that_does_not_exist_is_one_sentence(database: str) -> None:
    nowhere = urlsplit(database)._replace(path="/kiva_test_nowhere").geturl()
    for dsn in (nowhere, as_role(database, "kiva_test_nobody")):
        with pytest.raises(SourceError, match=r"^Cannot reach the shop's database .* does not exist"):
            async with Source.open(source_settings(dsn)):
                pass


async def test_a_missing_table_is_one_sentence_and_not_tried_again(database: str, shop: ShopRows) -> None:
    await shop.connection.execute("DROP TABLE kiva.system_log")

    async def sleep(seconds: float, /) -> None:
        pytest.fail("a missing table does not pass by itself")

    async with opened_log(database, sleep) as opened:
        with pytest.raises(SourceError, match=r"refuses a query; run `check`: .*system_log.* does not exist"):
            await read(opened)
        with pytest.raises(SourceError, match=r"refuses a query; run `check`: .*system_log.* does not exist"):
            await read(opened, mark=END)


async def test_a_table_without_select_is_one_sentence(database: str, shop: ShopRows, role: str) -> None:
    await shop.connection.execute(f"REVOKE SELECT ON kiva.system_log FROM {role}")
    async with opened_log(as_role(database, role)) as opened:
        with pytest.raises(SourceError, match="run `check`: permission denied for table system_log"):
            await read(opened)
