"""The checkpoint: what the watermark passes, when it is saved, and when a slot is free again."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiva_stream.checkpoint import Checkpoint, Slots, Watermark
from kiva_stream.errors import CheckpointError
from kiva_stream.model import (
    DAY1,
    DELIVERED,
    SYNCED,
    ContactId,
    CustomerId,
    DeadLetter,
    Delivered,
    Outcome,
    Position,
    Reason,
)
from tests.fakes import LOGGED_OUT, FakeLedger, delivery, no_time, position, raises_one, until

CONTACT = ContactId(1)


def make_checkpoint(
    ledger: FakeLedger,
    *,
    window: int = 10,
    max_in_flight: int = 2,
    settled: Mapping[Position, Outcome] | None = None,
) -> Checkpoint:
    return Checkpoint(
        ledger,
        DAY1,
        settled or {},
        window=window,
        max_in_flight=max_in_flight,
        commit_interval_s=0.02,
        sleep=no_time,
    )


@asynccontextmanager
async def running(checkpoint: Checkpoint) -> AsyncIterator[None]:
    """Run a checkpoint until the block is left; its last commit is done then."""
    async with anyio.create_task_group() as group:
        group.start_soon(checkpoint.run)
        yield
        checkpoint.close()


def letter(place: int, why: Reason = Reason.EVENT_REJECTED) -> DeadLetter:
    return DeadLetter(position(place), why, CustomerId(1))


def test_the_watermark_stays_before_a_span_that_lacks_an_outcome() -> None:
    watermark = Watermark(DAY1)
    first, second = watermark.track(position(2), 2), watermark.track(position(3), 1)
    second.resolve(SYNCED)
    first.resolve(SYNCED)
    assert watermark.advance() == Counter()
    assert (watermark.position, watermark.width, watermark.pending) == (DAY1, 3, 1)
    assert watermark.ahead == {("outcome", "synced"): 2}
    first.resolve(DELIVERED, line=7)
    assert watermark.advance() == {
        ("outcome", "synced"): 2,
        ("outcome", "delivered"): 1,
        ("event", "7"): 1,
    }
    assert (watermark.position, watermark.width, watermark.pending) == (position(3), 0, 0)
    assert watermark.ahead == {}


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.data())
def test_the_watermark_is_never_ahead_of_an_entry_without_an_outcome(
    sizes: list[int], data: st.DataObject
) -> None:
    watermark = Watermark(DAY1)
    spans = [watermark.track(position(sum(sizes[: at + 1])), size) for at, size in enumerate(sizes)]
    order = data.draw(st.permutations([at for at, size in enumerate(sizes) for _ in range(size)]))
    left, counted = list(sizes), 0
    for at in order:
        spans[at].resolve(SYNCED)
        left[at] -= 1
        counted += watermark.advance()["outcome", "synced"]
        done = next((at for at, count in enumerate(left) if count), len(left))
        assert watermark.position == (spans[done - 1].last if done else DAY1)
        assert watermark.width == sum(sizes[done:])
        assert watermark.pending == sum(left)
        assert counted == sum(sizes[:done])
        assert counted + sum(watermark.ahead.values()) + watermark.pending == sum(sizes)


async def test_a_slot_is_free_only_when_its_outcome_is_committed() -> None:
    ledger = FakeLedger()
    ledger.gate = anyio.Event()
    checkpoint = make_checkpoint(ledger, max_in_flight=1)
    span = await checkpoint.track(position(1), 1)
    taken: list[bool] = []

    async def take() -> None:
        taken.append(await checkpoint.slot())

    async with running(checkpoint), anyio.create_task_group() as group:
        assert await checkpoint.slot()
        group.start_soon(take)
        checkpoint.delivered(delivery(1, span), CONTACT, attempts=1)
        await until(lambda: ledger.asked)
        await anyio.wait_all_tasks_blocked()
        assert taken == []
        ledger.gate.set()
        await until(lambda: taken)
    assert taken == [True]


@pytest.mark.parametrize("outcome", ["delivered", "rejected"])
async def test_the_slot_of_a_committed_event_is_free_again(outcome: str) -> None:
    checkpoint = make_checkpoint(FakeLedger(), max_in_flight=1)
    span = await checkpoint.track(position(3), 3)
    async with running(checkpoint):
        with anyio.fail_after(5):
            for place in (1, 2, 3):
                assert await checkpoint.slot()
                if outcome == "delivered":
                    checkpoint.delivered(delivery(place, span), CONTACT, attempts=1)
                else:
                    checkpoint.rejected(delivery(place, span), letter(place))


async def test_a_dead_entry_that_was_never_sent_frees_no_slot() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger(), max_in_flight=1)
    span = await checkpoint.track(position(2), 2)
    async with running(checkpoint):
        assert await checkpoint.slot()
        checkpoint.buried(span, letter(1, Reason.NO_EMAIL))
        await until(lambda: ledger.commits)
        with anyio.move_on_after(0) as patience:
            await checkpoint.slot()
        assert patience.cancelled_caught


async def test_after_a_drain_nobody_gets_a_slot() -> None:
    checkpoint = make_checkpoint(FakeLedger(), max_in_flight=1)
    answers: list[bool] = []

    async def take() -> None:
        answers.append(await checkpoint.slot())

    async with anyio.create_task_group() as group:
        assert await checkpoint.slot()
        group.start_soon(take)
        group.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        assert answers == []
        checkpoint.drain()
        with anyio.fail_after(5):
            await until(lambda: len(answers) == 2)
    assert [*answers, await checkpoint.slot()] == [False] * 3


async def test_a_free_slot_is_not_given_after_the_close() -> None:
    slots = Slots(3)
    slots.close()
    assert not await slots.take()


async def test_outcomes_and_watermark_are_saved_together() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger(), max_in_flight=3)
    span = await checkpoint.track(position(4), 4)
    later = await checkpoint.track(position(5), 1)
    async with running(checkpoint):
        checkpoint.delivered(delivery(1, span, notes=("clock",)), CONTACT, attempts=2)
        checkpoint.rejected(delivery(2, span), letter(2))
        checkpoint.buried(span, letter(3, Reason.NO_EMAIL), ("odd",))
        span.resolve(SYNCED)
    (commit,) = ledger.commits
    assert commit.watermark == position(4)
    assert commit.pending == later.size
    assert commit.delivered == [Delivered(position(1), CONTACT, LOGGED_OUT.line, 2)]
    assert commit.dead == [letter(2), letter(3, Reason.NO_EMAIL)]
    assert commit.ahead == {}
    assert commit.passed == {
        ("outcome", "delivered"): 1,
        ("outcome", "dead event_rejected"): 1,
        ("outcome", "dead no_email"): 1,
        ("outcome", "synced"): 1,
        ("event", str(LOGGED_OUT.line)): 1,
        ("note", "clock"): 1,
        ("note", "odd"): 1,
    }


async def test_an_event_above_the_watermark_is_saved_before_its_span_is_passed() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger())
    span = await checkpoint.track(position(2), 2)
    async with running(checkpoint):
        checkpoint.delivered(delivery(2, span), CONTACT, attempts=1)
        await until(lambda: ledger.commits)
        assert ledger.settled() == {position(2): DELIVERED}
        assert ledger.commits[-1].passed == {}
        assert ledger.tally() == {"delivered": 1}
        assert ledger.commits[-1].pending == 1
        checkpoint.delivered(delivery(1, span), CONTACT, attempts=1)
    assert ledger.watermark == position(2)
    assert ledger.tally() == {"delivered": 2}


async def test_what_is_resolved_while_a_commit_runs_goes_into_the_next() -> None:
    ledger = FakeLedger()
    ledger.gate = anyio.Event()
    checkpoint = make_checkpoint(ledger)
    span = await checkpoint.track(position(2), 2)
    async with running(checkpoint):
        checkpoint.delivered(delivery(1, span), CONTACT, attempts=1)
        await until(lambda: ledger.asked)
        checkpoint.delivered(delivery(2, span), CONTACT, attempts=1)
        ledger.gate.set()
        await until(lambda: len(ledger.commits) == 2)
    assert ledger.delivered == [position(1), position(2)]
    assert ledger.watermark == position(2)


async def test_what_gathers_within_the_interval_shares_a_commit() -> None:
    ledger, gate = FakeLedger(), anyio.Event()
    waits: list[float] = []

    async def interval(seconds: float, /) -> None:
        waits.append(seconds)
        await gate.wait()

    checkpoint = Checkpoint(
        ledger, DAY1, {}, window=10, max_in_flight=5, commit_interval_s=0.02, sleep=interval
    )
    span = await checkpoint.track(position(3), 3)
    async with running(checkpoint):
        for place in (1, 2, 3):
            checkpoint.delivered(delivery(place, span), CONTACT, attempts=1)
            await anyio.wait_all_tasks_blocked()
        gate.set()
        await until(lambda: ledger.commits)
    assert waits == [0.02]
    assert [len(commit.delivered) for commit in ledger.commits] == [3]


async def test_nothing_new_is_no_commit() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger())
    await checkpoint.track(position(1), 1)
    async with running(checkpoint):
        checkpoint.commit_soon()
    assert ledger.asked == 0


async def test_entries_are_taken_in_when_the_window_has_room_for_them() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger(), window=4)
    first = await checkpoint.track(position(3), 3)
    taken: list[Position] = []

    async def take() -> None:
        taken.append((await checkpoint.track(position(5), 2)).last)

    async with running(checkpoint), anyio.create_task_group() as group:
        group.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        checkpoint.buried(first, letter(1, Reason.NO_EMAIL))
        await until(lambda: ledger.commits)
        await anyio.wait_all_tasks_blocked()
        assert taken == []
        first.resolve(SYNCED)
        first.resolve(SYNCED)
        checkpoint.commit_soon()
        await until(lambda: taken)
    assert taken == [position(5)]


async def test_a_page_as_large_as_the_room_left_fits_and_a_larger_one_than_the_window_passes_alone() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger(), window=4)
    async with running(checkpoint):
        with anyio.fail_after(5):
            small = await checkpoint.track(position(1), 1)
            rest = await checkpoint.track(position(4), 3)
            for span in (small, rest, rest, rest):
                span.resolve(SYNCED)
            checkpoint.commit_soon()
            large = await checkpoint.track(position(9), 5)
        assert ledger.watermark == position(4)
        assert large.pending == 5


async def test_an_outcome_of_an_earlier_run_is_given_once() -> None:
    checkpoint = make_checkpoint(FakeLedger(), settled={position(2): DELIVERED})
    asked = [checkpoint.settled(position(place)) for place in (1, 2, 2, 3)]
    assert asked == [None, DELIVERED, None, None]


async def test_statistics_count_what_was_read_resolved_and_committed_by_this_run() -> None:
    checkpoint = make_checkpoint(FakeLedger(), max_in_flight=3)
    first = await checkpoint.track(position(2), 2)
    await checkpoint.track(position(5), 3)
    async with running(checkpoint):
        assert checkpoint.statistics() == (DAY1, 5, 0, 0)
        checkpoint.delivered(delivery(1, first), CONTACT, attempts=1)
        assert checkpoint.statistics() == (DAY1, 5, 1, 0)
        checkpoint.rejected(delivery(2, first), letter(2))
    assert checkpoint.statistics() == (position(2), 5, 2, 2)


async def test_a_failing_ledger_ends_the_checkpoint_and_frees_no_slot() -> None:
    ledger = FakeLedger()
    ledger.fails_at = 1
    checkpoint = make_checkpoint(ledger, max_in_flight=1)
    span = await checkpoint.track(position(1), 1)
    assert await checkpoint.slot()
    with raises_one(CheckpointError):
        async with running(checkpoint):
            checkpoint.delivered(delivery(1, span), CONTACT, attempts=1)
            await anyio.sleep_forever()
    with anyio.move_on_after(0) as patience:
        await checkpoint.slot()
    assert patience.cancelled_caught
