"""The log by ids alone and by transaction ids: what a rewind asks when it changes from one to the other."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kiva_stream.model.positions import Position
from tests.support.postgres import connected
from tests.support.shop_rows import OpenedLog, ShopRows, opened_log


@pytest.fixture
async def shop(database: str) -> AsyncIterator[ShopRows]:
    """A log whose ids and transaction ids have different orders."""
    async with ShopRows.create(database) as rows:
        for txid, log_id in ((5, 10), (6, 13), (7, 11), (8, 12), (9, 14)):
            await rows.entry(txid, id=log_id)
        await rows.entry(6, id=9, site_id=2)
        yield rows


@pytest.fixture
async def opened(database: str, shop: ShopRows) -> AsyncIterator[OpenedLog]:
    async with opened_log(database) as log_of_site:
        yield log_of_site


async def test_the_lowest_id_above_a_position_is_that_of_the_first_entry_not_done(opened: OpenedLog) -> None:
    assert await opened.positions.lowest_id_above(Position(6, 13)) == 11
    assert await opened.positions.lowest_id_above(Position(8, 12)) == 14
    assert await opened.positions.lowest_id_above(Position(9, 14)) is None


async def test_below_the_first_entry_of_a_higher_id_all_ids_are_done(opened: OpenedLog) -> None:
    assert await opened.positions.newest_without_ids_above(11) == Position(6, 12)
    assert await opened.positions.newest_without_ids_above(13) == Position(9, 13)
    assert await opened.positions.newest_without_ids_above(14) == Position(9, 14)


async def test_an_entry_that_an_open_transaction_may_still_commit_is_not_below_the_position(
    opened: OpenedLog, shop: ShopRows, database: str
) -> None:
    async with connected(database) as writer:
        transaction = writer.transaction()
        await transaction.start()
        late = await ShopRows(writer).entry()
        newer = await shop.entry()
        assert newer > late
        assert await opened.positions.newest_without_ids_above(14) < late
        await transaction.rollback()


async def test_transaction_ids_are_those_of_the_site_s_own_entries(opened: OpenedLog) -> None:
    assert await opened.positions.txids([9, 10, 13, 99]) == {10: 5, 13: 6}
