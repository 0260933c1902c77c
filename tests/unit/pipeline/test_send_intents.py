"""Send intents: which events a commit records, and which of them it records as lookahead."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from kiva_stream.model.positions import Position
from kiva_stream.pipeline.group_commit import GroupCommit
from kiva_stream.pipeline.send_intents import SendIntents
from tests.support.entries import position
from tests.support.waiting import no_time

A, B, C, D, E, F = map(position, range(1, 7))


def intents_of(permits: int) -> SendIntents:
    return SendIntents(permits, GroupCommit(0.02, no_time))


def recorded_by(intents: SendIntents) -> set[Position]:
    """Return the events that the next commit records; it grants nothing."""
    recorded, granted = intents.next_commit()
    assert granted == []
    return set(recorded)


@asynccontextmanager
async def waiting(intents: SendIntents, *asks: list[Position]) -> AsyncIterator[list[bool]]:
    """Have senders wait, each for an event, with its lookahead; their answers are there after the block."""
    answers: list[bool] = []

    async def wait(events: list[Position]) -> None:
        answers.append(await intents.wait_recorded(events[0], lambda count: events[1 : 1 + count]))

    async with anyio.create_task_group() as group:
        for each in asks:
            group.start_soon(wait, each)
        await anyio.wait_all_tasks_blocked()
        yield answers
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()


async def committed(intents: SendIntents, *asks: list[Position]) -> set[Position]:
    """Have senders wait for one commit; return what it records."""
    async with waiting(intents, *asks) as answers:
        recorded, granted = intents.next_commit()
        intents.wake(granted)
    assert answers == [True] * len(granted)
    return set(recorded)


async def test_permits_that_no_sender_waits_for_go_to_the_lookahead_in_equal_shares() -> None:
    intents = intents_of(permits=5)
    assert await committed(intents, [A, B, C, D], [E, F]) == {A, B, E, F}
    assert intents.claim_prerecorded(B)
    assert not intents.claim_prerecorded(B)  # once
    assert not intents.claim_prerecorded(C)


async def test_waiting_senders_come_before_the_lookahead_of_others() -> None:
    assert await committed(intents_of(permits=2), [A, B], [E, F], [C]) == {A, E}


async def test_lookahead_that_is_released_frees_its_permits_with_the_next_commit() -> None:
    intents = intents_of(permits=3)
    await committed(intents, [A, B, C])
    intents.release_lookahead([B, C, D])
    assert intents.has_changes
    assert recorded_by(intents) == {A}


async def test_close_releases_lookahead_and_keeps_what_is_granted() -> None:
    intents = intents_of(permits=3)
    await committed(intents, [A, B])
    intents.close()
    assert recorded_by(intents) == {A}
    assert not intents.claim_prerecorded(B)
    assert not await intents.wait_recorded(B)


async def test_close_grants_no_pending_intent_and_releases_its_lookahead() -> None:
    intents = intents_of(permits=3)
    async with waiting(intents, [A, B, C]) as answers:
        intents.close()
        assert recorded_by(intents) == set()  # before the sender has run again
    assert answers == [False]
    assert recorded_by(intents) == set()


async def test_an_intent_whose_commit_is_under_way_at_close_is_withdrawn_by_the_next_commit() -> None:
    intents = intents_of(permits=1)
    async with waiting(intents, [A]) as answers:
        _, granted = intents.next_commit()  # the commit is under way
        intents.close()
        intents.wake(granted)
    assert answers == [False]
    assert intents.has_changes
    assert recorded_by(intents) == set()


async def test_a_sender_that_is_cancelled_while_it_waits_leaves_no_intent() -> None:
    intents = intents_of(permits=1)
    async with waiting(intents, [A]):
        pass  # it is cancelled, since no commit comes
    assert recorded_by(intents) == set()
