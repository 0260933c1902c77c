"""The horizon of a real PostgreSQL's log: up to where it can be read, and what holds that back."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import asyncpg

from kiva_stream.model.entries import Entry
from kiva_stream.model.positions import DAY1, HighWaterMark, Position
from kiva_stream.sandbox.postgres import own_postgres
from tests.support.postgres import as_role, connected, database_name
from tests.support.shop_rows import OpenedLog, ShopRows, opened_log, positions, read
from tests.support.state_schema import until

FOREVER = datetime.max.replace(tzinfo=UTC)
END = HighWaterMark(Position(2**62, 2**62), FOREVER)  # above everything there can be
HOUR = timedelta(hours=1)


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
        place = f"the session with pid {other.get_server_pid()} in the database {database_name(database)}"
        sentence = await held_by(opened, place)
        assert re.search(r" \(month end\), for \d+ s$", sentence)
        obstacle = str(await opened.horizon.obstacle(DAY1))
    assert f"{entry}: a writing transaction that could still precede it is open: the session" in obstacle


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
