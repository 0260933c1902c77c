"""Cancellation: every await of the stages, cancelled or drained there, leaves the promises whole.

Time does not pass in these worlds: each turn of the event loop takes every task from one await to the next.
So a stroke after each number of turns, until the work is done before it falls, hits every await there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from kiva_stream.model import Customer, ImportReport, ImportState
from tests.fakes import EVENT, NOISE, SYNC_ONLY, place_of
from tests.unit.world import AGAIN, ANN, BAD_EVENT, BOB, FAILING, NOBODY, REFUSED, TWIN, World, story
from tests.virtual_time import run

ROWS: list[tuple[Customer, str]] = [
    (ANN, EVENT),
    (TWIN, EVENT),
    (BOB, SYNC_ONLY),
    (NOBODY, EVENT),
    (ANN, BAD_EVENT),
    (ANN, AGAIN),
    (REFUSED, EVENT),
    (FAILING, EVENT),
    (BOB, EVENT),
    (BOB, NOISE),
    (TWIN, EVENT),
    (BOB, EVENT),
    (ANN, EVENT),
]
MAX_TURNS = 1_000


def make_world() -> tuple[World, dict[int, str]]:
    """Return a world in which every stage has something to wait for: two slots, imports that are lost."""
    world, outcomes = story(ROWS, max_in_flight=2)
    world.contacts.reports = [ImportReport(ImportState.RUNNING), ImportReport(ImportState.LOST)]
    return world, outcomes


Stroke = tuple[int, Callable[[World, anyio.CancelScope], None]]  # after how many turns of the loop, and what


async def struck(world: World, *strokes: Stroke) -> bool:
    """Run, and be struck; return whether the first stroke fell before the work was done."""
    fallen: list[int] = []

    async def strike(stroke: Stroke) -> None:
        turns, strike_now = stroke
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        fallen.append(turns)
        strike_now(world, scope)

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            for stroke in strokes:
                group.start_soon(strike, stroke)
            await world.run_with_snapshot()
            group.cancel_scope.cancel()
    return strokes[0][0] in fallen


def cancel(_world: World, scope: anyio.CancelScope) -> None:
    scope.cancel()


def drain(world: World, _scope: anyio.CancelScope) -> None:
    world.pipeline.drain()
    world.events.on_arrival = lambda: pytest.fail("an event was sent after the drain")


def test_cancelled_at_any_await_a_second_run_loses_nothing_and_repeats_nothing_kept() -> None:
    for turns in range(MAX_TURNS):
        world, outcomes = make_world()
        if not run(struck(world, (turns, cancel))):
            assert turns > 50, "hardly anything was struck"
            world.assert_complete(outcomes)
            return
        sent = world.events.places()
        kept = set(map(place_of, [*world.ledger.delivered, *world.ledger.dead]))
        run(world.run_with_snapshot())
        world.assert_complete(outcomes)
        sent_since = world.events.places()[len(sent) :]
        assert not kept & set(sent_since), turns
        assert len(set(sent) & set(sent_since)) <= 2, turns
        assert world.links.imports == {}
    pytest.fail("never came to the end")


def test_drained_at_any_await_all_that_was_sent_is_kept_and_a_second_run_repeats_nothing() -> None:
    for turns in range(MAX_TURNS):
        world, outcomes = make_world()
        if not run(struck(world, (turns, drain))):
            assert turns > 50, "hardly anything was struck"
            world.assert_complete(outcomes)
            return
        sent = set(world.events.places())
        assert sent <= set(map(place_of, [*world.ledger.delivered, *world.ledger.dead])), turns
        world.events.on_arrival = world.check_arrival
        run(world.run_with_snapshot())
        world.assert_complete(outcomes)
        assert max(Counter(world.events.places()).values()) == 1, turns
    pytest.fail("never came to the end")


@pytest.mark.parametrize("gap", [1, 3, 8])
def test_drained_and_then_cancelled_a_second_run_loses_nothing(gap: int) -> None:
    for turns in range(MAX_TURNS):
        world, outcomes = make_world()
        if not run(struck(world, (turns, drain), (turns + gap, cancel))):
            return
        world.events.on_arrival = world.check_arrival
        run(world.run_with_snapshot())
        world.assert_complete(outcomes)
    pytest.fail("never came to the end")
