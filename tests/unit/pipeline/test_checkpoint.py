"""The checkpoint: what the watermark passes, when it is saved, and when a slot is free again."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiva_stream.errors import CheckpointError, DrainedError
from kiva_stream.model.checkpoint import Delivered
from kiva_stream.model.dead_letters import DeadLetter
from kiva_stream.model.ids import ContactId, CustomerId
from kiva_stream.model.outcomes import DELIVERED, SYNCED, Outcome, Reason, tally_of
from kiva_stream.model.positions import DAY1, Position
from kiva_stream.pipeline.checkpoint import Checkpoint
from kiva_stream.pipeline.watermark import Watermark
from tests.fakes import LOGGED_OUT, FakeLedger, delivery, no_time, position, raises_one, until

CONTACT = ContactId(1)


def make_checkpoint(
    ledger: FakeLedger,
    *,
    window: int = 10,
    max_in_flight: int = 2,
    settled: Mapping[Position, Outcome] | None = None,
) -> Checkpoint:
    ledger.earlier = dict(settled or {})
    return Checkpoint(
        ledger,
        DAY1,
        ledger.left(),
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


def dead_letter(place: int, why: Reason = Reason.EVENT_REJECTED) -> DeadLetter:
    return DeadLetter(position(place), why, CustomerId(1))


def test_the_watermark_stays_before_a_span_that_lacks_an_outcome() -> None:
    watermark = Watermark(DAY1)
    first, second = watermark.track(position(2), 2), watermark.track(position(3), 1)
    second.resolve(SYNCED)
    first.resolve(SYNCED)
    assert watermark.advance() == Counter()
    assert (watermark.position, watermark.width, watermark.pending) == (DAY1, 3, 1)
    assert watermark.ahead == {SYNCED: 2}
    first.resolve(DELIVERED, line=7)
    assert tally_of(watermark.advance()) == {
        ("outcome", "synced"): 2,
        ("outcome", "delivered"): 1,
        ("event", "7"): 1,
    }
    assert (watermark.position, watermark.width, watermark.pending) == (position(3), 0, 0)
    assert +watermark.ahead == Counter()


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
        counted += watermark.advance()[SYNCED]
        done = next((at for at, count in enumerate(left) if count), len(left))
        assert watermark.position == (spans[done - 1].last if done else DAY1)
        assert watermark.width == sum(sizes[done:])
        assert watermark.pending == sum(left)
        assert counted == sum(sizes[:done])
        assert counted + sum(watermark.ahead.values()) + watermark.pending == sum(sizes)


async def test_an_event_is_named_by_a_commit_before_it_may_be_sent() -> None:
    ledger = FakeLedger()
    ledger.gate, ledger.gates_all = anyio.Event(), True
    checkpoint = make_checkpoint(ledger)
    answers: list[bool] = []

    async def ask() -> None:
        answers.append(await checkpoint.wait_recorded(position(1)))

    async with running(checkpoint), anyio.create_task_group() as group:
        group.start_soon(ask)
        await until(lambda: ledger.asked)
        await anyio.wait_all_tasks_blocked()
        assert answers == []
        ledger.gate.set()
        await until(lambda: answers)
        assert ledger.commits[-1].intents == {position(1)}
    assert answers == [True]


async def test_a_place_is_free_only_with_the_commit_that_keeps_the_outcome() -> None:
    ledger = FakeLedger()
    checkpoint = make_checkpoint(ledger, max_in_flight=1)
    span = await checkpoint.track(position(2), 2)
    async with running(checkpoint):
        assert await checkpoint.wait_recorded(position(1))
        with anyio.move_on_after(0.05) as patience:
            await checkpoint.wait_recorded(position(2))
        assert patience.cancelled_caught
        checkpoint.record_delivered(delivery(1, span), CONTACT, attempts=1)
        assert await checkpoint.wait_recorded(position(2))
        kept = next(commit for commit in ledger.commits if commit.delivered)
        assert all(
            position(2) not in commit.intents for commit in ledger.commits[: ledger.commits.index(kept)]
        )
        assert ledger.commits[-1].intents == {position(2)}


async def test_a_place_that_is_given_back_goes_to_who_waits_for_one() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger(), max_in_flight=2)
    async with running(checkpoint):
        assert await checkpoint.wait_recorded(position(1), lambda _most: [position(2)])
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(checkpoint.wait_recorded, position(3))
                await anyio.wait_all_tasks_blocked()
                checkpoint.release_lookahead([position(2)])
        assert ledger.commits[-1].intents == {position(1), position(3)}


@pytest.mark.parametrize("outcome", ["delivered", "rejected"])
async def test_the_place_of_a_committed_event_is_free_again(outcome: str) -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger(), max_in_flight=1)
    span = await checkpoint.track(position(3), 3)
    async with running(checkpoint):
        with anyio.fail_after(5):
            for place in (1, 2, 3):
                assert await checkpoint.wait_recorded(position(place))
                if outcome == "delivered":
                    checkpoint.record_delivered(delivery(place, span), CONTACT, attempts=1)
                else:
                    checkpoint.record_rejected(delivery(place, span), dead_letter(place))
    assert ledger.commits[-1].intents == frozenset()


async def test_a_dead_entry_that_was_never_sent_frees_no_place() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger(), max_in_flight=1)
    span = await checkpoint.track(position(2), 2)
    async with running(checkpoint):
        assert await checkpoint.wait_recorded(position(2))
        checkpoint.record_dead(span, dead_letter(1, Reason.NO_EMAIL))
        await until(lambda: len(ledger.commits) == 2)
        with anyio.move_on_after(0.05) as patience:
            await checkpoint.wait_recorded(position(3))
        assert patience.cancelled_caught


async def test_after_a_drain_nothing_may_be_sent_and_what_was_not_is_named_no_more() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger(), max_in_flight=1)
    span = await checkpoint.track(position(1), 1)
    answers: list[bool] = []

    async def ask(place: int) -> None:
        answers.append(await checkpoint.wait_recorded(position(place)))

    async with running(checkpoint):
        async with anyio.create_task_group() as group:
            assert await checkpoint.wait_recorded(position(1))
            group.start_soon(ask, 2)
            group.start_soon(ask, 3)
            await anyio.wait_all_tasks_blocked()
            assert answers == []
            checkpoint.drain()
            with anyio.fail_after(5):
                await until(lambda: len(answers) == 2)
        assert [*answers, await checkpoint.wait_recorded(position(4))] == [False] * 3
        checkpoint.record_delivered(delivery(1, span), CONTACT, attempts=1)
    assert ledger.commits[-1].intents == frozenset()


async def test_of_many_that_ask_at_once_no_more_are_named_than_may_be_out() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger(), max_in_flight=2)
    span = await checkpoint.track(position(5), 5)
    sent: list[int] = []

    async def send(place: int) -> None:
        if await checkpoint.wait_recorded(position(place)):
            sent.append(place)

    async with running(checkpoint), anyio.create_task_group() as group:
        for place in range(1, 6):
            group.start_soon(send, place)
        await until(lambda: sent)
        await anyio.wait_all_tasks_blocked()
        assert sent == [1, 2]
        checkpoint.record_delivered(delivery(1, span), CONTACT, attempts=1)
        await until(lambda: len(sent) == 3)
        await anyio.wait_all_tasks_blocked()
        assert sent == [1, 2, 3]
        checkpoint.drain()
    assert max(len(commit.intents) for commit in ledger.commits) == 2


async def test_what_is_begun_after_a_drain_is_given_up_at_once() -> None:
    checkpoint = make_checkpoint(FakeLedger())
    checkpoint.drain()
    with pytest.raises(DrainedError), anyio.fail_after(1), checkpoint.unless_drained():
        await anyio.sleep_forever()


async def test_an_event_without_an_outcome_stays_named_by_every_commit() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger())
    span = await checkpoint.track(position(2), 2)
    async with running(checkpoint):
        assert await checkpoint.wait_recorded(position(1))
        span.resolve(SYNCED)
        checkpoint.request_commit()
    assert ledger.commits[-1].intents == {position(1)}
    assert ledger.left().in_doubt == {position(1)}


async def test_a_doubt_stays_named_until_its_entry_has_an_outcome() -> None:
    ledger = FakeLedger()
    first = make_checkpoint(ledger)
    await first.track(position(1), 1)
    async with running(first):
        assert await first.wait_recorded(position(1))
    second = make_checkpoint(ledger)
    span = await second.track(position(2), 2)
    async with running(second):
        assert [second.is_in_doubt(position(place)) for place in (1, 2)] == [True, False]
        span.resolve(SYNCED)
        second.request_commit()
        await until(lambda: len(ledger.commits) == 2)
        assert ledger.commits[-1].intents == {position(1)}
        second.record_delivered(delivery(1, span), CONTACT, attempts=1)
        assert not second.is_in_doubt(position(1))
    assert ledger.commits[-1].intents == frozenset()


async def test_a_doubt_is_over_when_its_entry_was_skipped() -> None:
    ledger = FakeLedger()
    first = make_checkpoint(ledger)
    await first.track(position(1), 1)
    async with running(first):
        assert await first.wait_recorded(position(1))
    second = make_checkpoint(ledger)
    span = await second.track(position(1), 1)
    async with running(second):
        span.resolve(Outcome("skipped", Reason.ERASED))
        second.request_commit()
    assert ledger.commits[-1].intents == frozenset()


async def test_outcomes_and_watermark_are_saved_together() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger(), max_in_flight=3)
    span = await checkpoint.track(position(4), 4)
    later = await checkpoint.track(position(5), 1)
    async with running(checkpoint):
        checkpoint.record_delivered(delivery(1, span, notes=("clock",)), CONTACT, attempts=2)
        checkpoint.record_rejected(delivery(2, span), dead_letter(2))
        checkpoint.record_dead(span, dead_letter(3, Reason.NO_EMAIL), ("odd",))
        span.resolve(SYNCED)
    (commit,) = ledger.commits
    assert commit.watermark == position(4)
    assert commit.pending == later.size
    assert commit.delivered == [Delivered(position(1), CONTACT, LOGGED_OUT.line, 2)]
    assert commit.dead == [dead_letter(2), dead_letter(3, Reason.NO_EMAIL)]
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
        checkpoint.record_delivered(delivery(2, span), CONTACT, attempts=1)
        await until(lambda: ledger.commits)
        assert ledger.kept_above() == {position(2): DELIVERED}
        assert ledger.commits[-1].passed == {}
        assert ledger.tally() == {"delivered": 1}
        assert ledger.commits[-1].pending == 1
        checkpoint.record_delivered(delivery(1, span), CONTACT, attempts=1)
    assert ledger.watermark == position(2)
    assert ledger.tally() == {"delivered": 2}


async def test_what_is_resolved_while_a_commit_runs_goes_into_the_next() -> None:
    ledger = FakeLedger()
    ledger.gate = anyio.Event()
    checkpoint = make_checkpoint(ledger)
    span = await checkpoint.track(position(2), 2)
    async with running(checkpoint):
        checkpoint.record_delivered(delivery(1, span), CONTACT, attempts=1)
        await until(lambda: ledger.asked)
        checkpoint.record_delivered(delivery(2, span), CONTACT, attempts=1)
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

    checkpoint = Checkpoint(ledger, DAY1, window=10, max_in_flight=7, commit_interval_s=0.02, sleep=interval)
    span = await checkpoint.track(position(3), 3)
    async with running(checkpoint):
        for place in (1, 2, 3):
            checkpoint.record_delivered(delivery(place, span), CONTACT, attempts=1)
            await anyio.wait_all_tasks_blocked()
        gate.set()
        await until(lambda: ledger.commits)
    assert waits == [0.02]
    assert [len(commit.delivered) for commit in ledger.commits] == [3]


async def test_the_interval_ends_when_half_of_the_places_wait_for_the_commit() -> None:
    ledger = FakeLedger()

    async def interval(_seconds: float, /) -> None:
        await anyio.sleep_forever()

    checkpoint = Checkpoint(ledger, DAY1, window=10, max_in_flight=5, commit_interval_s=0.02, sleep=interval)
    span = await checkpoint.track(position(3), 3)
    async with running(checkpoint):
        for place in (1, 2):
            checkpoint.record_delivered(delivery(place, span), CONTACT, attempts=1)
            await anyio.wait_all_tasks_blocked()
        assert not ledger.commits
        checkpoint.record_delivered(delivery(3, span), CONTACT, attempts=1)
        await until(lambda: ledger.commits)
    assert [len(commit.delivered) for commit in ledger.commits] == [3]


async def test_nothing_new_is_no_commit() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger())
    await checkpoint.track(position(1), 1)
    async with running(checkpoint):
        checkpoint.request_commit()
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
        checkpoint.record_dead(first, dead_letter(1, Reason.NO_EMAIL))
        await until(lambda: ledger.commits)
        await anyio.wait_all_tasks_blocked()
        assert taken == []
        first.resolve(SYNCED)
        first.resolve(SYNCED)
        checkpoint.request_commit()
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
            checkpoint.request_commit()
            large = await checkpoint.track(position(9), 5)
        assert ledger.watermark == position(4)
        assert large.pending == 5


async def test_an_outcome_of_an_earlier_run_is_given_once() -> None:
    checkpoint = make_checkpoint(FakeLedger(), settled={position(2): DELIVERED})
    await checkpoint.track(position(3), 3)
    asked = [checkpoint.earlier_outcome(position(place)) for place in (1, 2, 2, 3)]
    assert asked == [None, DELIVERED, None, None]


async def test_statistics_count_what_was_read_resolved_and_committed_by_this_run() -> None:
    checkpoint = make_checkpoint(FakeLedger(), max_in_flight=3)
    first = await checkpoint.track(position(2), 2)
    await checkpoint.track(position(5), 3)
    async with running(checkpoint):
        assert checkpoint.statistics() == (DAY1, 5, 0, 0)
        checkpoint.record_delivered(delivery(1, first), CONTACT, attempts=1)
        assert checkpoint.statistics() == (DAY1, 5, 1, 0)
        checkpoint.record_rejected(delivery(2, first), dead_letter(2))
    assert checkpoint.statistics() == (position(2), 5, 2, 2)


async def test_a_failing_ledger_ends_the_checkpoint_and_frees_no_place() -> None:
    ledger = FakeLedger()
    ledger.fails_at = 2
    checkpoint = make_checkpoint(ledger, max_in_flight=1)
    span = await checkpoint.track(position(1), 1)
    with raises_one(CheckpointError):
        async with running(checkpoint):
            assert await checkpoint.wait_recorded(position(1))
            checkpoint.record_delivered(delivery(1, span), CONTACT, attempts=1)
            await anyio.sleep_forever()
    with anyio.move_on_after(0) as patience:
        await checkpoint.wait_recorded(position(2))
    assert patience.cancelled_caught
