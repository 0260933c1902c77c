"""Reading a shop's log from a real PostgreSQL: what is read, in which order, and how gently."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from traceback import format_exception
from typing import Any
from urllib.parse import urlsplit

import anyio
import asyncpg
import pytest

from kiva_stream.errors import SourceError
from kiva_stream.model.ids import CustomerId, Email
from kiva_stream.model.positions import DAY1, HighWaterMark, Position
from kiva_stream.primitives import sql_blocks
from kiva_stream.source.customers import ShopCustomers
from kiva_stream.source.site import read_site
from kiva_stream.source.source import WAITS_S, Source
from tests.support.postgres import UNREADABLE_DSNS, as_role, connected, database_name
from tests.support.shop_rows import ShopRows, Sleeps, opened_log, positions, read, source_settings
from tests.support.state_schema import until

FOREVER = datetime.max.replace(tzinfo=UTC)
END = HighWaterMark(Position(2**62, 2**62), FOREVER)  # above everything there can be
HOUR = timedelta(hours=1)


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
        + database_name(database)
        + " SET min_parallel_table_scan_size = 0;"
        "ALTER DATABASE " + database_name(database) + " SET parallel_setup_cost = 0"
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
