"""The size of order batches: 50 at first, at most 200, smaller for a day after one was too large."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from kiva_stream.model.orders import BatchLimit
from kiva_stream.sync.batch_size import MOST_ORDERS, BatchSize, grown, shrunk
from tests.fakes.state_orders import FakeSentOrders

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
FIRST = BatchLimit(50, MOST_ORDERS)


def test_batches_that_are_accepted_double_up_to_200() -> None:
    sizes, limit = [FIRST.size], FIRST
    for _ in range(4):
        limit = grown(limit, limit.size, NOW)
        sizes.append(limit.size)
    assert sizes == [50, 100, 200, 200, 200]


def test_a_batch_that_is_not_full_says_nothing_about_larger_ones() -> None:
    assert grown(FIRST, 49, NOW) == FIRST


def test_a_batch_refused_for_its_size_halves_and_is_the_ceiling_for_a_day() -> None:
    limit = shrunk(BatchLimit(200, MOST_ORDERS), 200, NOW)
    assert limit == BatchLimit(100, 100, NOW)
    assert grown(limit, 100, NOW + timedelta(hours=23)) == limit
    assert grown(limit, 100, NOW + timedelta(days=1)) == BatchLimit(200, MOST_ORDERS)


def test_the_ceiling_goes_by_the_orders_of_the_refused_batch() -> None:
    assert shrunk(FIRST, 30, NOW).size == 15
    assert shrunk(FIRST, 1, NOW).size == 1
    # A batch that was on its way when another one made the size smaller.
    assert shrunk(BatchLimit(8, 8, NOW), 50, NOW).size == 8


async def loaded(state: FakeSentOrders, first: int = 50) -> BatchSize:
    """Return the size in a new process."""
    size = BatchSize(state, first=first, now=lambda: NOW)
    await size.load()
    return size


async def test_the_size_that_worked_is_kept_in_the_state_over_a_restart() -> None:
    state = FakeSentOrders()
    for most in (100, 200, 200):
        size = await loaded(state)
        await size.accepted(size.size)
        assert size.size == most
    await (await loaded(state)).too_large(120)
    assert (await loaded(state)).size == 60
    assert state.limit == BatchLimit(60, 60, NOW)


async def test_before_a_batch_is_answered_the_size_is_the_setting() -> None:
    size = await loaded(FakeSentOrders(), first=20)
    await size.accepted(19)
    assert size.size == 20
