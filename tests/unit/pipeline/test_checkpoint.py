"""The checkpoint: what the watermark passes, when it is saved, and when a slot is free again."""

from __future__ import annotations

import anyio
import pytest

from kiva_stream.errors import CheckpointError
from kiva_stream.model.checkpoint import Delivered
from kiva_stream.model.outcomes import DELIVERED, SYNCED, Outcome, Reason
from kiva_stream.model.positions import DAY1, Position
from tests.fakes.state_ledger import FakeLedger
from tests.support.entries import LOGGED_OUT, delivery, position
from tests.support.waiting import raises_one, until
from tests.unit.pipeline.builders import CONTACT, dead_letter, make_checkpoint, running


async def test_an_event_is_recorded_by_a_commit_before_it_is_sent() -> None:
    ledger = FakeLedger()
    ledger.gate, ledger.gates_all = anyio.Event(), True
    checkpoint = make_checkpoint(ledger)
    answers: list[bool] = []

    async def ask() -> None:
        answers.append(await checkpoint.intents.wait_recorded(position(1)))

    async with running(checkpoint), anyio.create_task_group() as group:
        group.start_soon(ask)
        await until(lambda: ledger.asked)
        await anyio.wait_all_tasks_blocked()
        assert answers == []
        ledger.gate.set()
        await until(lambda: answers)
        assert ledger.commits[-1].intents == {position(1)}
    assert answers == [True]


async def test_a_permit_is_free_only_with_the_commit_that_keeps_the_outcome() -> None:
    ledger = FakeLedger()
    checkpoint = make_checkpoint(ledger, max_in_flight=1)
    span = await checkpoint.track(position(2), 2)
    async with running(checkpoint):
        assert await checkpoint.intents.wait_recorded(position(1))
        with anyio.move_on_after(0.05) as patience:
            await checkpoint.intents.wait_recorded(position(2))
        assert patience.cancelled_caught
        checkpoint.record_delivered(delivery(1, span), CONTACT, attempts=1)
        assert await checkpoint.intents.wait_recorded(position(2))
        kept = next(commit for commit in ledger.commits if commit.delivered)
        assert all(
            position(2) not in commit.intents for commit in ledger.commits[: ledger.commits.index(kept)]
        )
        assert ledger.commits[-1].intents == {position(2)}


async def test_a_permit_that_is_released_goes_to_a_sender_that_waits_for_one() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger(), max_in_flight=2)
    async with running(checkpoint):
        assert await checkpoint.intents.wait_recorded(position(1), lambda _most: [position(2)])
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(checkpoint.intents.wait_recorded, position(3))
                await anyio.wait_all_tasks_blocked()
                checkpoint.intents.release_lookahead([position(2)])
        assert ledger.commits[-1].intents == {position(1), position(3)}


@pytest.mark.parametrize("outcome", ["delivered", "rejected"])
async def test_the_permit_of_a_committed_event_is_free_again(outcome: str) -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger(), max_in_flight=1)
    span = await checkpoint.track(position(3), 3)
    async with running(checkpoint):
        with anyio.fail_after(5):
            for place in (1, 2, 3):
                assert await checkpoint.intents.wait_recorded(position(place))
                if outcome == "delivered":
                    checkpoint.record_delivered(delivery(place, span), CONTACT, attempts=1)
                else:
                    checkpoint.record_rejected(delivery(place, span), dead_letter(place))
    assert ledger.commits[-1].intents == frozenset()


async def test_a_dead_letter_that_was_never_sent_frees_no_permit() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger(), max_in_flight=1)
    span = await checkpoint.track(position(2), 2)
    async with running(checkpoint):
        assert await checkpoint.intents.wait_recorded(position(2))
        checkpoint.record_dead(span, dead_letter(1, Reason.NO_EMAIL))
        await until(lambda: len(ledger.commits) == 2)
        with anyio.move_on_after(0.05) as patience:
            await checkpoint.intents.wait_recorded(position(3))
        assert patience.cancelled_caught


async def test_after_a_drain_nothing_is_sent_and_events_that_were_not_sent_are_recorded_no_more() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger(), max_in_flight=1)
    span = await checkpoint.track(position(1), 1)
    answers: list[bool] = []

    async def ask(place: int) -> None:
        answers.append(await checkpoint.intents.wait_recorded(position(place)))

    async with running(checkpoint):
        async with anyio.create_task_group() as group:
            assert await checkpoint.intents.wait_recorded(position(1))
            group.start_soon(ask, 2)
            group.start_soon(ask, 3)
            await anyio.wait_all_tasks_blocked()
            assert answers == []
            checkpoint.drain()
            with anyio.fail_after(5):
                await until(lambda: len(answers) == 2)
        assert [*answers, await checkpoint.intents.wait_recorded(position(4))] == [False] * 3
        checkpoint.record_delivered(delivery(1, span), CONTACT, attempts=1)
    assert ledger.commits[-1].intents == frozenset()


async def test_of_many_senders_that_wait_at_once_no_more_are_granted_than_there_are_permits() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger(), max_in_flight=2)
    span = await checkpoint.track(position(5), 5)
    sent: list[int] = []

    async def send(place: int) -> None:
        if await checkpoint.intents.wait_recorded(position(place)):
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


async def test_a_note_counted_before_a_drain_is_in_the_last_commit_though_its_event_has_no_outcome() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger())
    await checkpoint.track(position(1), 1)
    async with running(checkpoint):
        checkpoint.count_note("looked_up")
        checkpoint.drain()
    assert ledger.tally("note") == {"looked_up": 1}
    assert ledger.tally() == {}


async def test_an_event_without_an_outcome_stays_recorded_by_every_commit() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger())
    span = await checkpoint.track(position(2), 2)
    async with running(checkpoint):
        assert await checkpoint.intents.wait_recorded(position(1))
        span.resolve(SYNCED)
        checkpoint.request_commit()
    assert ledger.commits[-1].intents == {position(1)}
    assert ledger.left().in_doubt == {position(1)}


async def test_an_event_in_doubt_stays_recorded_until_its_entry_has_an_outcome() -> None:
    ledger = FakeLedger()
    first = make_checkpoint(ledger)
    await first.track(position(1), 1)
    async with running(first):
        assert await first.intents.wait_recorded(position(1))
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


async def test_an_event_in_doubt_is_in_doubt_no_more_when_its_entry_was_skipped() -> None:
    ledger = FakeLedger()
    first = make_checkpoint(ledger)
    await first.track(position(1), 1)
    async with running(first):
        assert await first.intents.wait_recorded(position(1))
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
    assert commit.delivered == [Delivered(position(1), CONTACT, LOGGED_OUT.number, 2)]
    assert commit.dead == [dead_letter(2), dead_letter(3, Reason.NO_EMAIL)]
    assert commit.ahead == {}
    assert commit.passed == {
        ("outcome", "delivered"): 1,
        ("outcome", "dead event_rejected"): 1,
        ("outcome", "dead no_email"): 1,
        ("outcome", "synced"): 1,
        ("event", str(LOGGED_OUT.number)): 1,
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


async def test_an_outcome_that_comes_while_a_commit_runs_goes_into_the_next() -> None:
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


async def test_outcomes_within_the_interval_share_a_commit() -> None:
    ledger, gate = FakeLedger(), anyio.Event()
    waits: list[float] = []

    async def interval(seconds: float, /) -> None:
        waits.append(seconds)
        await gate.wait()

    checkpoint = make_checkpoint(ledger, max_in_flight=7, sleep=interval)
    span = await checkpoint.track(position(3), 3)
    async with running(checkpoint):
        for place in (1, 2, 3):
            checkpoint.record_delivered(delivery(place, span), CONTACT, attempts=1)
            await anyio.wait_all_tasks_blocked()
        gate.set()
        await until(lambda: ledger.commits)
    assert waits == [0.02]
    assert [len(commit.delivered) for commit in ledger.commits] == [3]


async def test_the_interval_ends_when_half_of_the_permits_wait_for_the_commit() -> None:
    ledger = FakeLedger()

    async def interval(_seconds: float, /) -> None:
        await anyio.sleep_forever()

    checkpoint = make_checkpoint(ledger, max_in_flight=5, sleep=interval)
    span = await checkpoint.track(position(3), 3)
    async with running(checkpoint):
        for place in (1, 2):
            checkpoint.record_delivered(delivery(place, span), CONTACT, attempts=1)
            await anyio.wait_all_tasks_blocked()
        assert not ledger.commits
        checkpoint.record_delivered(delivery(3, span), CONTACT, attempts=1)
        await until(lambda: ledger.commits)
    assert [len(commit.delivered) for commit in ledger.commits] == [3]


async def test_a_request_without_anything_new_makes_no_commit() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger())
    await checkpoint.track(position(1), 1)
    async with running(checkpoint):
        checkpoint.request_commit()
    assert ledger.asked == 0


async def test_entries_are_tracked_when_the_window_has_room_for_them() -> None:
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


async def test_an_outcome_of_an_earlier_run_is_returned_once() -> None:
    ledger = FakeLedger()
    ledger.earlier = {position(2): DELIVERED}
    checkpoint = make_checkpoint(ledger)
    await checkpoint.track(position(3), 3)
    asked = [checkpoint.earlier.take_outcome(position(place)) for place in (1, 2, 2, 3)]
    assert asked == [None, DELIVERED, None, None]


async def test_statistics_count_what_was_read_resolved_and_committed_by_this_run() -> None:
    checkpoint = make_checkpoint(FakeLedger(), max_in_flight=3)
    first = await checkpoint.track(position(2), 2)
    await checkpoint.track(position(5), 3)
    async with running(checkpoint):
        assert checkpoint.statistics() == (DAY1, 5, 0, 0)
        checkpoint.record_delivered(delivery(1, first), CONTACT, attempts=1)
        assert checkpoint.statistics() == (DAY1, 5, 1, 0)
        checkpoint.record_rejected(delivery(2, first), dead_letter(2, attempts=1))
    assert checkpoint.statistics() == (position(2), 5, 2, 2)


async def test_a_failing_ledger_ends_the_checkpoint_and_frees_no_permit() -> None:
    ledger = FakeLedger()
    ledger.fails_at = 2
    checkpoint = make_checkpoint(ledger, max_in_flight=1)
    span = await checkpoint.track(position(1), 1)
    with raises_one(CheckpointError):
        async with running(checkpoint):
            assert await checkpoint.intents.wait_recorded(position(1))
            checkpoint.record_delivered(delivery(1, span), CONTACT, attempts=1)
            await anyio.sleep_forever()
    with anyio.move_on_after(0) as patience:
        await checkpoint.intents.wait_recorded(position(2))
    assert patience.cancelled_caught
