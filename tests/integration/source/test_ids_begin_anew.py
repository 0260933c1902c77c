"""Ids that begin anew in a log that is read by id: found from the rows, and not taken for anything else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from kiva_stream.model.positions import Position
from tests.support.shop_rows import OpenedLog, ShopRows, opened_log

READ_BY = datetime(2020, 11, 1, 12, tzinfo=UTC)
BEFORE, SOON, LATER = (READ_BY + timedelta(seconds=seconds) for seconds in (-60, 1, 60))
AFTER = Position(0, 5)  # read so far
SEQUENCE = "kiva.system_log_id_seq"


@pytest.fixture
async def shop(database: str) -> AsyncIterator[ShopRows]:
    """A log whose five entries have been read."""
    async with ShopRows.create(database) as rows:
        for _ in range(5):
            await rows.entry(inserted_at=BEFORE)
        yield rows


@pytest.fixture
async def opened(database: str, shop: ShopRows) -> AsyncIterator[OpenedLog]:
    async with opened_log(database, horizon=False) as log_of_site:
        yield log_of_site


async def restart(opened: OpenedLog) -> str | None:
    return await opened.horizon.restart(AFTER, READ_BY)


SET_BACK, CYCLES = f"SELECT setval('{SEQUENCE}', 1, false)", f"ALTER SEQUENCE {SEQUENCE} MAXVALUE 5 CYCLE"
RESTARTS = {
    "truncated": "TRUNCATE kiva.system_log RESTART IDENTITY",
    "set back": f"DELETE FROM kiva.system_log; {SET_BACK}",
    "set back below older ones": f"DELETE FROM kiva.system_log WHERE id < 5; {SET_BACK}",
    "cycled": f"DELETE FROM kiva.system_log WHERE id < 4; {CYCLES}",
    "cycled without a key": f"ALTER TABLE kiva.system_log DROP CONSTRAINT system_log_pkey; {CYCLES}",
}


@pytest.mark.parametrize("what", RESTARTS)
async def test_ids_that_begin_anew_are_found_with_the_rewind_that_helps(
    shop: ShopRows, opened: OpenedLog, what: str
) -> None:
    await shop.connection.execute(RESTARTS[what])
    assert await restart(opened) is None
    assert (await shop.entry(inserted_at=SOON)).id == 1
    found = str(await restart(opened))
    assert "the entry 0:1 was inserted at 2020-11-01 12:00, when the log had been read up to 0:5" in found
    assert "`kiva-stream rewind --to day1 --resend`" in found


async def test_ids_that_begin_anew_are_found_although_they_have_passed_what_was_read(
    shop: ShopRows, opened: OpenedLog
) -> None:
    await shop.connection.execute(RESTARTS["truncated"])
    for _ in range(9):
        await shop.entry(inserted_at=SOON)
    assert "the entry 0:1" in str(await restart(opened))


async def test_ids_that_begin_anew_higher_up_are_rewound_to_below_the_first(
    shop: ShopRows, opened: OpenedLog
) -> None:
    await shop.connection.execute(f"DELETE FROM kiva.system_log; SELECT setval('{SEQUENCE}', 2)")
    await shop.entry(inserted_at=SOON)
    assert "`kiva-stream rewind --to 0:2 --resend`" in str(await restart(opened))


async def test_ids_that_go_on_are_no_restart_whatever_was_deleted(shop: ShopRows, opened: OpenedLog) -> None:
    await shop.entry(inserted_at=LATER)
    assert await restart(opened) is None
    await shop.connection.execute(
        "DELETE FROM kiva.system_log WHERE id < 4 OR id > 4"
    )  # erased with a person
    assert await restart(opened) is None
    await shop.connection.execute("TRUNCATE kiva.system_log")
    assert await restart(opened) is None
    await shop.entry(inserted_at=LATER)
    assert await restart(opened) is None


async def test_an_entry_of_another_site_is_no_restart(shop: ShopRows, opened: OpenedLog) -> None:
    await shop.connection.execute(RESTARTS["truncated"])
    await shop.entry(inserted_at=SOON, site_id=2)
    assert await restart(opened) is None


async def test_with_a_horizon_ids_may_begin_anew(shop: ShopRows, database: str) -> None:
    await shop.connection.execute(RESTARTS["truncated"])
    await shop.entry(inserted_at=LATER)
    async with opened_log(database) as opened:
        assert await restart(opened) is None
        assert await opened.horizon.inserted_later(AFTER, READ_BY) is None


async def test_entries_that_came_too_late_between_others_are_found(shop: ShopRows, opened: OpenedLog) -> None:
    await shop.connection.execute(
        f"DELETE FROM kiva.system_log WHERE id IN (2, 3); SELECT setval('{SEQUENCE}', 1)"
    )
    await shop.entry(inserted_at=SOON)
    assert await opened.horizon.inserted_later(AFTER, READ_BY) is None
    await shop.entry(inserted_at=LATER)
    assert await restart(opened) is None
    found = str(await opened.horizon.inserted_later(AFTER, READ_BY))
    assert found.startswith(
        "1 entries up to 0:5, the first of them 0:3, were inserted after the log had been"
    )
    assert "`kiva-stream rewind --to 0:2 --resend`" in found
