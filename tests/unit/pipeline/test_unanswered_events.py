"""An event that gets no answer again and again is held with its contact; all others go on."""

from __future__ import annotations

import math

import anyio
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from kiva_stream.errors import UnknownOutcome
from kiva_stream.model.customers import Customer
from kiva_stream.pipeline.unanswered_events import PROBE_S
from kiva_stream.sync.isolation import RECORD_TRIES as EVENT_TRIES
from tests.fakes.stages import FakeDeliveryLookup
from tests.support.entries import EVENT, customer, place_of, position
from tests.support.pipeline_world import ANN, BOB, World, story
from tests.support.virtual_time import now, run

CROWD = [customer(number) for number in range(11, 17)]
SETTLE_S, HELD_S, LONG_S = 30.0, 300.0, 9_000.0


def world_of(rows: list[Customer], *silent: int, looks_up: bool = True) -> tuple[World, dict[int, str]]:
    """Return a world in which the events at these places get no answer; others take ten seconds each."""
    world, outcomes = story(
        [(who, EVENT) for who in rows],
        page_rows=20,
        max_in_flight=20,
        lookup_settle_s=SETTLE_S,
        retry_held_s=HELD_S,
    )
    world.events.latency = lambda place: anyio.sleep(0 if place in silent else 10)
    for place in silent:
        world.events.answers[place] = [UnknownOutcome(f"500 for {place}") for _ in range(1_000)]
    if looks_up:
        world.lookup = FakeDeliveryLookup(world.events)
    return world, outcomes


def parked(world: World) -> list[int]:
    return sorted(map(place_of, world.ledger.parked))


def test_an_event_that_is_never_answered_is_held_and_those_of_others_arrive() -> None:
    world, outcomes = world_of([ANN, *[BOB] * 12, ANN], 1)
    run(world.run(within_s=LONG_S))

    assert world.events.places(BOB.email) == list(range(2, 14))
    assert parked(world) == [1, 14]
    assert world.ledger.watermark == position(14)
    assert world.ledger.left().in_doubt == {position(1)}
    assert world.events.places(ANN.email) == [1] * (EVENT_TRIES + 1)  # once more after the rest

    world.events.answers.clear()
    run(world.run(within_s=LONG_S))
    assert world.ledger.parked == {}
    assert world.ledger.left().in_doubt == frozenset()
    assert world.events.places(ANN.email)[-2:] == [1, 14]
    world.assert_complete(outcomes)


def test_it_is_looked_up_before_each_attempt_and_never_sent_when_it_is_found() -> None:
    world, _ = world_of([ANN, *[BOB] * 12], 1)
    run(world.run(within_s=LONG_S))
    assert world.lookup is not None
    assert world.lookup.asked == [1] * (EVENT_TRIES + 2)  # the last try looks up before it, too

    world.events.processed.append(world.events.arrivals[0])
    run(world.run(within_s=LONG_S))
    assert world.events.places(ANN.email) == [1] * (EVENT_TRIES + 1)
    assert world.ledger.parked == {}


def test_a_lone_event_is_held_when_look_ups_were_answered_for_long() -> None:
    world, _ = world_of([ANN], 1)
    began_at: list[float] = []

    async def go() -> None:
        began_at.append(now())
        await world.run(within_s=LONG_S)
        began_at.append(now())

    run(go())
    assert parked(world) == [1]
    assert HELD_S <= began_at[1] - began_at[0] < HELD_S + 4 * SETTLE_S


def test_an_event_that_is_held_in_what_may_be_an_outage_is_tried_when_another_one_is_answered() -> None:
    world, outcomes = world_of([ANN, *[BOB] * 8], 1)
    world.log.page_rows = 1  # so that the log is read for long
    world.settings = replace(world.settings, pipeline=replace(world.settings.pipeline, window=2))
    world.events.latency = lambda place: anyio.sleep(0 if place == 1 else HELD_S + 100)
    sent_at: list[float] = []

    async def go() -> None:
        began_at = now()
        world.events.on_arrival = lambda: sent_at.append(
            now() - began_at if world.events.arrivals[-1].place == 1 else 0
        )
        async with anyio.create_task_group() as group:
            group.start_soon(world.run, None, LONG_S)
            await anyio.sleep(HELD_S + 90)
            assert parked(world) == [1]
            world.events.answers.clear()

    run(go())
    assert HELD_S + 100 <= max(sent_at) <= HELD_S + 100 + 2 * SETTLE_S
    world.assert_complete(outcomes)


@pytest.mark.parametrize("looks_up", [True, False])
def test_of_an_outage_of_events_at_most_three_contacts_are_held(looks_up: bool) -> None:
    world, outcomes = world_of(CROWD, *range(1, 7), looks_up=looks_up)
    sent_in_outage: list[int] = []

    async def go() -> None:
        with capture_logs() as logs:
            await outage()
        held = {each["contact"] for each in logs if each["event"] == "a record is held"}
        assert len(held) == 3

    async def outage() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(world.run, None, LONG_S)
            await anyio.sleep(6 * HELD_S)
            sent_in_outage.append(len(world.events.places()))
            world.events.answers.clear()

    run(go())
    if not looks_up:  # those that were sent twice are in doubt, and wait for a replay
        assert sent_in_outage[0] <= len(CROWD) + 3 + 6  # one every `HELD_S`, to find out
        run(world.run(within_s=LONG_S))
        assert parked(world) == [1, 2, 3]
        world.held_rows.ask_all()
    run(world.run(within_s=LONG_S))
    world.assert_complete(outcomes)


def test_without_look_ups_it_is_sent_again_once_and_not_before_another_contacts_event_is_answered() -> None:
    world, _ = world_of([ANN, *[BOB] * 3], 1, looks_up=False)
    run(world.run(within_s=LONG_S))

    arrivals = [each.place for each in world.events.arrivals]
    assert arrivals[:2] == [1, 2]
    assert arrivals.count(1) == 2
    assert arrivals.index(1, 1) >= 2
    assert parked(world) == [1]
    assert world.ledger.left().in_doubt == {position(1)}
    assert world.ledger.tally("note") == {"sent_again": 1}


def test_without_look_ups_a_lone_event_is_sent_again_after_long() -> None:
    world, outcomes = world_of([ANN], 1, looks_up=False)
    del world.events.answers[1][1:]
    began_at: list[float] = []

    async def go() -> None:
        began_at.append(now())
        await world.run(within_s=LONG_S)
        began_at.append(now())

    run(go())
    assert HELD_S <= began_at[1] - began_at[0] < HELD_S + SETTLE_S
    world.assert_complete(outcomes)


def test_without_look_ups_a_lone_event_is_sent_twice_and_then_held_in_doubt_until_a_replay() -> None:
    world, _ = world_of([ANN], 1, looks_up=False)
    run(world.run(within_s=LONG_S))

    assert parked(world) == [1]
    assert world.events.places() == [1, 1]
    assert world.ledger.left().in_doubt == {position(1)}
    (held,) = world.held_rows.rows.values()
    assert held.due_in_s == math.inf


def test_without_look_ups_one_of_many_unanswered_events_is_sent_again_soon_to_be_the_witness() -> None:
    world, outcomes = world_of(CROWD, *range(1, 7), looks_up=False)
    for answers in world.events.answers.values():
        del answers[1:]
    began_at: list[float] = []

    async def go() -> None:
        began_at.append(now())
        await world.run(within_s=LONG_S)
        began_at.append(now())

    run(go())
    assert PROBE_S <= began_at[1] - began_at[0] < 2 * PROBE_S + 10
    world.assert_complete(outcomes)


def test_the_attempts_of_a_held_event_go_on_when_it_is_tried_again() -> None:
    world, outcomes = world_of([ANN, *[BOB] * 12], 1)
    del world.events.answers[1][EVENT_TRIES:]
    run(world.run(within_s=LONG_S))

    world.assert_complete(outcomes)
    rows = [row for commit in world.ledger.commits for row in commit.delivered]
    assert [row.attempts for row in rows if row.position == position(1)] == [EVENT_TRIES + 1]


@pytest.mark.parametrize("looks_up", [True, False])
def test_events_that_an_earlier_run_held_end_a_run_after_one_more_try_however_many(*, looks_up: bool) -> None:
    crowd = CROWD[:4]
    world, _ = world_of([*crowd, *[BOB] * 12], 1, 2, 3, 4, looks_up=looks_up)
    run(world.run(within_s=LONG_S))
    assert parked(world) == [1, 2, 3, 4]
    sent = len(world.events.places())

    run(world.run(within_s=HELD_S))
    assert parked(world) == [1, 2, 3, 4]
    assert len(world.events.places()) == sent + (4 if looks_up else 0)
