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

from kiva_stream.errors import UnknownOutcome
from kiva_stream.model.bulk_imports import ImportReport, ImportState
from kiva_stream.model.customers import Customer
from kiva_stream.model.ids import Email
from tests.fakes.stages import FakeDeliveryLookup
from tests.support.entries import EVENT, NOISE, SYNC_ONLY, place_of
from tests.support.pipeline_world import (
    AGAIN,
    ANN,
    BAD_EVENT,
    BOB,
    FAILING,
    NOBODY,
    REFUSED,
    TWIN,
    World,
    story,
)
from tests.support.virtual_time import run

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


# With events of unknown outcome, entries left parked, dead letters to be replayed, and waits that are parked


def make_troubled_world(monkeypatch: pytest.MonkeyPatch) -> tuple[World, dict[int, str]]:
    """Return a world whose first process was killed: it left parked entries, dead letters and doubts."""
    world, outcomes = story(ROWS, max_in_flight=2, page_rows=4, parked_max=3, lookup_settle_s=0.0)
    world.link_everybody()
    world.lookup = FakeDeliveryLookup(world.events)
    world.events.processes_first = True
    world.events.answers |= {place: [UnknownOutcome("?")] for place in (1, 2, 9, 11, 12)}
    world.events.taken = {1, 2, 11}
    world.lookup.unanswered = {1}
    run(killed_after(world, 8.0))
    assert {1, 2} <= set(map(place_of, world.ledger.parked))
    assert {place_of(where) for where in world.ledger.left().in_doubt} == {1}
    world.lookup.unanswered = set()
    world.shop.change(NOBODY, email=Email("somebody@example.org"))
    outcomes[4] = outcomes[7] = "delivered"
    world.replays = dict(world.ledger.dead)
    assert 4 in map(place_of, world.replays)
    for name in ("UP_FOR_S", "CONTACT_WAIT_S", "ANSWER_WAIT_S", "POLL_S"):
        monkeypatch.setattr(
            f"kiva_stream.pipeline.parking.{name}", 0.0
        )  # an entry that waits at all is parked
    return world, outcomes


async def killed_after(world: World, seconds: float) -> None:
    with anyio.move_on_after(seconds):
        await world.run_with_snapshot()


def check_after(world: World, outcomes: dict[int, str], *, most_unknown: int) -> None:
    """Check what a stroke left, and that another process makes it whole without a repeat."""
    kept = {*world.ledger.delivered, *world.ledger.dead}
    unknown = set(world.events.places()) - set(map(place_of, kept))
    assert unknown <= set(map(place_of, world.ledger.left().in_doubt))
    assert len(unknown - {1}) <= most_unknown
    world.events.on_arrival = world.check_arrival
    world.replays = {where: why for where, why in world.ledger.dead.items() if where in world.replays}
    run(world.run_with_snapshot())
    world.assert_complete(outcomes)
    assert world.ledger.parked == {}
    assert max(Counter(each.place for each in world.events.processed).values()) == 1


@pytest.mark.parametrize("stroke", [cancel, drain])
def test_struck_at_any_await_what_was_parked_dead_or_in_doubt_is_neither_lost_nor_repeated(
    stroke: Callable[[World, anyio.CancelScope], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for turns in range(MAX_TURNS):
        with monkeypatch.context() as patch:
            world, outcomes = make_troubled_world(patch)
            if not run(struck(world, (turns, stroke))):
                assert turns > 50, "hardly anything was struck"
                world.assert_complete(outcomes)
                return
            check_after(world, outcomes, most_unknown=2)
    pytest.fail("never came to the end")
