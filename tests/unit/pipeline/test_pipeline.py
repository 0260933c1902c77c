"""The four guarantees on fakes: bounded memory, order per contact, nothing lost, a stop drains."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kiva_stream.errors import AccountRefused, CheckpointError, SourceError, UnknownOutcome
from kiva_stream.model.customers import Customer
from kiva_stream.model.entries import Entry
from tests.fakes.stages import FakeDeliveryLookup
from tests.support.entries import EVENT, NOISE, SYNC_ONLY, customer, entry, place_of, position
from tests.support.pipeline_world import (
    AGAIN,
    ANN,
    BAD_EVENT,
    BOB,
    FAILING,
    NOBODY,
    PEOPLE,
    REFUSED,
    TWIN,
    World,
    story,
)
from tests.support.virtual_time import run
from tests.support.waiting import raises_one, until

ROWS = st.lists(
    st.tuples(
        st.sampled_from(PEOPLE), st.sampled_from([EVENT, EVENT, EVENT, SYNC_ONLY, NOISE, AGAIN, BAD_EVENT])
    ),
    min_size=1,
    max_size=30,
)
ALL_KINDS: list[tuple[Customer, str]] = [
    (ANN, EVENT),
    (TWIN, EVENT),
    (BOB, SYNC_ONLY),
    (NOBODY, EVENT),
    (ANN, BAD_EVENT),
    (ANN, AGAIN),
    (REFUSED, EVENT),
    (REFUSED, SYNC_ONLY),
    (FAILING, EVENT),
    (BOB, EVENT),
    (BOB, NOISE),
    (TWIN, EVENT),
    (ANN, EVENT),
    (BOB, EVENT),
]


def many(count: int, people: int = 5) -> list[Entry]:
    """Return so many events of a few people in turn."""
    customers = [customer(number) for number in range(1, people + 1)]
    return [entry(place, customers[place % people]) for place in range(1, count + 1)]


def all_delivered(count: int) -> dict[int, str]:
    return dict.fromkeys(range(1, count + 1), "delivered")


async def test_every_entry_gets_the_outcome_that_it_should() -> None:
    world, outcomes = story(ALL_KINDS)
    await world.run_with_snapshot()
    world.assert_complete(outcomes)
    assert not world.pipeline.is_draining
    assert Counter(world.events.places()).most_common(1)[0][1] == 1


async def test_contacts_that_no_snapshot_upserted_arrive_before_their_first_event() -> None:
    world, outcomes = story(ALL_KINDS)
    await world.run()
    world.assert_complete(outcomes)


async def test_an_empty_log_is_done_at_once() -> None:
    world = World([])
    await world.run()
    assert world.ledger.commits == []


async def test_nothing_above_the_mark_is_read() -> None:
    world = World(many(9))
    await world.run(until_place=5)
    assert world.log.read == [position(place) for place in range(1, 6)]
    assert world.ledger.watermark == position(5)


def take_time(world: World, data: st.DataObject) -> None:
    """Have each event take some time of its own, up to 0.1 s of virtual time."""
    delays = data.draw(st.lists(st.integers(0, 10), min_size=world.size, max_size=world.size))
    world.events.latency = lambda place: anyio.sleep(delays[place - 1] / 100)


@asynccontextmanager
async def at_a_standstill(world: World) -> AsyncIterator[None]:
    """Run until all that is left waits for answers; they come when the block ends."""
    answer = anyio.Event()
    world.events.latency = lambda _: answer.wait()
    async with anyio.create_task_group() as group:
        group.start_soon(world.run)
        await anyio.wait_all_tasks_blocked()
        yield
        answer.set()


# Bounded memory


async def test_behind_one_slow_contact_reading_stops_when_the_window_is_full() -> None:
    world = World(many(60), page_rows=4, window=12)
    world.link_everybody()
    answer = anyio.Event()
    world.events.latency = lambda place: answer.wait() if place == 1 else anyio.lowlevel.checkpoint()
    async with anyio.create_task_group() as group:
        group.start_soon(world.run)
        await anyio.wait_all_tasks_blocked()
        assert len(world.log.read) == 12 + 4  # the window, and the page that waits for room in it
        assert world.checkpoint.position < position(1)
        answer.set()
    world.assert_complete(all_delivered(60))


async def test_however_many_contacts_wait_for_a_sender_the_log_is_read_as_far_as_the_window() -> None:
    world = World(many(60, people=60), page_rows=4, window=40, max_in_flight=2)
    world.link_everybody()
    async with at_a_standstill(world):
        assert len(world.log.read) == 40 + 4
    world.assert_complete(all_delivered(60))


@settings(max_examples=40)
@given(st.integers(1, 7), st.integers(1, 20), st.integers(1, 5), st.data())
def test_never_more_than_the_window_is_read_and_not_passed(
    page_rows: int, window: int, in_flight: int, data: st.DataObject
) -> None:
    world = World(many(40), page_rows=page_rows, window=window, max_in_flight=in_flight)
    take_time(world, data)
    ahead: list[int] = []

    def count() -> None:
        passed = sum(where <= world.checkpoint.position for where in world.log.read)
        ahead.append(len(world.log.read) - passed)

    world.log.on_page = count
    run(world.run())
    world.assert_complete(all_delivered(40))
    assert max(ahead) <= max(window, page_rows) + page_rows  # and the page that waits for room
    assert max(commit.pending for commit in world.ledger.commits) <= max(window, page_rows)


async def test_no_more_events_are_sent_and_uncommitted_than_may_be_in_flight() -> None:
    world = World(many(60, people=20), page_rows=30, max_in_flight=7)
    world.link_everybody()
    world.ledger.gate = anyio.Event()  # events are answered at once, commits take their time
    async with anyio.create_task_group() as group:
        group.start_soon(world.run)
        await until(lambda: world.events.arrivals)
        await anyio.wait_all_tasks_blocked()
        assert len(world.events.arrivals) <= 7
        world.ledger.gate.set()
    world.assert_complete(all_delivered(60))


@settings(max_examples=40)
@given(st.integers(1, 6), st.data())
def test_at_every_moment_what_is_sent_and_uncommitted_is_bounded(in_flight: int, data: st.DataObject) -> None:
    world = World(many(30), max_in_flight=in_flight)
    take_time(world, data)
    uncommitted: list[int] = []
    world.events.on_arrival = lambda: uncommitted.append(
        len(world.events.arrivals) - len(world.ledger.delivered)
    )
    run(world.run())
    assert max(uncommitted) <= in_flight


# Order per contact


@settings(max_examples=60)
@given(ROWS, st.integers(1, 8), st.integers(1, 6), st.data())
def test_events_of_a_contact_arrive_in_log_order_whatever_the_latency(
    rows: list[tuple[Customer, str]], page_rows: int, in_flight: int, data: st.DataObject
) -> None:
    world, outcomes = story(rows, page_rows=page_rows, max_in_flight=in_flight)
    take_time(world, data)
    run(world.run())
    world.assert_complete(outcomes)
    assert all(places == sorted(places) for places in world.events.places_by_contact().values())


async def test_two_customers_of_one_address_are_one_lane() -> None:
    world = World([entry(1, ANN), entry(2, TWIN), entry(3, ANN), entry(4, TWIN)], page_rows=1)
    answers = {place: anyio.Event() for place in range(1, 5)}
    world.events.latency = lambda place: answers[place].wait()
    async with anyio.create_task_group() as group:
        group.start_soon(world.run)
        for place in range(1, 5):
            await anyio.wait_all_tasks_blocked()
            assert world.events.places() == list(range(1, place + 1))
            answers[place].set()


async def test_a_slow_contact_does_not_hold_up_another() -> None:
    world = World([entry(1, ANN), entry(2, ANN), entry(3, BOB), entry(4, BOB)])
    world.link_everybody()
    answer = anyio.Event()
    world.events.latency = lambda place: answer.wait() if place == 1 else anyio.lowlevel.checkpoint()
    async with anyio.create_task_group() as group:
        group.start_soon(world.run)
        await until(lambda: len(world.ledger.delivered) == 2)
        assert world.events.places() == [1, 3, 4]
        answer.set()


# Nothing lost below the watermark


@pytest.mark.parametrize("keeps_failed", [False, True], ids=["commit lost", "answer lost"])
def test_after_a_crash_at_any_commit_a_second_run_completes_the_log(keeps_failed: bool) -> None:
    for fails_at in range(1, 100):
        world, outcomes = story(ALL_KINDS)
        world.ledger.fails_at, world.ledger.keeps_failed = fails_at, keeps_failed
        if run(_crashes(world)):
            _check_second_run(world, outcomes)
        else:
            assert fails_at > 5, "hardly any commit was lost"
            world.assert_complete(outcomes)
            return
    pytest.fail("never came to the end")


@settings(max_examples=80)
@given(ROWS, st.integers(1, 12), st.booleans(), st.data())
def test_whatever_the_log_and_the_crash_nothing_is_lost_and_nothing_kept_is_repeated(
    rows: list[tuple[Customer, str]], fails_at: int, keeps_failed: bool, data: st.DataObject
) -> None:
    world, outcomes = story(rows)
    take_time(world, data)
    world.ledger.fails_at, world.ledger.keeps_failed = fails_at, keeps_failed
    if run(_crashes(world)):
        _check_second_run(world, outcomes)
    else:
        world.assert_complete(outcomes)


async def _crashes(world: World) -> bool:
    """Run until the ledger fails; return whether it did."""
    try:
        with raises_one(CheckpointError):
            await world.run()
    except AssertionError:
        return False
    return True


def _check_second_run(world: World, outcomes: dict[int, str]) -> None:
    kept = set(map(place_of, [*world.ledger.delivered, *world.ledger.dead]))
    sent_before = len(world.events.arrivals)
    world.ledger.works_again()
    run(world.run())
    world.assert_complete(outcomes)
    sent_since = world.events.places()[sent_before:]
    assert not kept & set(sent_since)
    again = set(sent_since) & set(world.events.places()[:sent_before])
    assert len(again) <= world.settings.activecampaign.max_in_flight


async def test_a_duplicate_of_an_entry_before_the_checkpoint_is_skipped_and_that_one_is_not_sent() -> None:
    first = entry(1, ANN)
    world = World([first, replace(first, position=position(2)), entry(3, ANN)])
    await world.run(until_place=1)
    await world.run()
    assert world.events.places() == [1, 3]
    world.assert_complete({1: "delivered", 2: "skipped duplicate", 3: "delivered"})


async def test_a_second_run_begins_at_the_watermark() -> None:
    world = World(many(9))
    await world.run(until_place=6)
    world.log.read.clear()
    await world.run()
    assert world.log.read == [position(place) for place in (7, 8, 9)]
    world.assert_complete(all_delivered(9))


async def test_a_failing_ledger_ends_the_pipeline() -> None:
    world = World(many(30))
    world.ledger.fails_at = 2
    with raises_one(CheckpointError):
        await world.run()
    assert len(world.events.arrivals) < 30


async def test_links_that_cannot_be_read_end_the_pipeline() -> None:
    world = World(many(3))
    world.links.fails = True
    with raises_one(CheckpointError):
        await world.run()
    assert world.ledger.commits == []


async def test_a_refused_account_ends_the_pipeline_and_what_arrived_is_not_sent_again() -> None:
    world = World(many(30), max_in_flight=5)
    world.events.answers = {place: [AccountRefused("no")] for place in (12, 13)}
    with raises_one(AccountRefused):
        await world.run()
    arrived = set(world.events.places())
    assert len(arrived) < 30
    assert world.ledger.dead == {}
    world.events.answers.clear()
    sent_before = len(world.events.arrivals)
    await world.run()
    world.assert_complete(all_delivered(30))
    assert set(world.events.places()[sent_before:]) & arrived <= {12, 13}


async def test_when_the_account_is_refused_what_is_in_flight_is_finished_and_committed() -> None:
    world = World(many(30), max_in_flight=4)
    world.link_everybody()
    refusal, answer = anyio.Event(), anyio.Event()
    world.events.answers = {1: [AccountRefused("no")]}
    world.events.latency = lambda place: refusal.wait() if place == 1 else answer.wait()
    async with anyio.create_task_group() as group:
        group.start_soon(_expect, world, AccountRefused)
        await until(lambda: len(world.events.arrivals) == 4)
        arrived = set(world.events.places())
        refusal.set()
        await anyio.wait_all_tasks_blocked()
        answer.set()
    assert set(world.events.places()) == arrived
    assert set(map(place_of, world.ledger.delivered)) == arrived - {1}


@pytest.mark.parametrize("action", [EVENT, SYNC_ONLY])
async def test_an_account_that_refuses_contacts_ends_the_pipeline_and_no_entry_has_an_outcome(
    action: str,
) -> None:
    world = World([replace(each, action=action) for each in many(30)])
    world.contacts.refuses_account = True
    with raises_one(AccountRefused):
        await world.run()
    assert world.events.arrivals == []
    assert world.ledger.commits == []
    world.contacts.refuses_account = False
    await world.run()
    world.assert_complete(dict.fromkeys(range(1, 31), "delivered" if action == EVENT else "synced"))


async def test_a_source_that_is_gone_ends_the_pipeline_and_what_is_in_flight_is_committed() -> None:
    world = World(many(30), page_rows=2)
    world.link_everybody()
    world.log.breaks_after, world.log.gate, answer = 2, anyio.Event(), anyio.Event()
    world.events.latency = lambda _: answer.wait()
    async with anyio.create_task_group() as group:
        group.start_soon(_expect, world, SourceError)
        await until(lambda: len(world.events.arrivals) == 4)
        world.log.gate.set()
        await anyio.wait_all_tasks_blocked()
        answer.set()
    assert len(world.ledger.delivered) == 4
    world.log.breaks_after = None
    await world.run()
    world.assert_complete(all_delivered(30))
    assert max(Counter(world.events.places()).values()) == 1


def test_events_that_do_not_finish_in_time_when_a_stage_failed_are_cut_short() -> None:
    world = World(many(30), page_rows=2)
    world.link_everybody()
    world.log.breaks_after = 2
    world.log.gate = gate = anyio.Event()
    world.events.on_arrival = gate.set
    world.events.latency = lambda _: anyio.sleep_forever()
    run(_expect(world, SourceError))
    world.log.breaks_after, world.events.latency = None, lambda _: anyio.lowlevel.checkpoint()
    run(world.run())
    world.assert_complete(all_delivered(30))


async def _expect(world: World, kind: type[Exception]) -> None:
    with raises_one(kind):
        await world.run()


def test_a_drain_gives_up_waiting_to_send_an_event_again() -> None:
    world = World(many(6, people=2))
    world.link_everybody()
    world.events.answers = {1: [UnknownOutcome("?")] * 50}
    world.events.latency = lambda place: anyio.sleep(place == 1)  # the others are answered before

    async def stop_in_the_outage() -> float:
        async with anyio.create_task_group() as group:
            group.start_soon(world.run)
            await anyio.sleep(9)
            world.pipeline.drain()
            began_at = anyio.current_time()
        return anyio.current_time() - began_at

    assert run(stop_in_the_outage()) < 0.1
    assert [place_of(where) for where in world.ledger.delivered] == [2, 4, 6]
    world.events.answers = {}
    run(world.run())
    world.assert_complete(all_delivered(6))


def test_an_event_of_unknown_outcome_is_sent_again_until_it_is_known() -> None:
    world = World(many(5), max_in_flight=2)
    world.lookup = FakeDeliveryLookup(world.events)
    world.events.answers = {1: [UnknownOutcome("?"), UnknownOutcome("?")]}
    run(world.run(within_s=100))
    world.assert_complete(all_delivered(5))
    assert Counter(world.events.places())[1] == 3
    assert world.ledger.tally("note") == {"looked_up": 2, "sent_again": 2}


# A stop drains


@settings(max_examples=60)
@given(ROWS, st.integers(0, 25), st.integers(1, 6), st.data())
def test_a_drain_commits_what_is_in_flight_and_a_second_run_repeats_nothing(
    rows: list[tuple[Customer, str]], after: int, in_flight: int, data: st.DataObject
) -> None:
    world, outcomes = story(rows, max_in_flight=in_flight)
    take_time(world, data)

    def drain_after_some() -> None:
        if len(world.events.arrivals) == after:
            world.pipeline.drain()

    world.events.on_arrival = drain_after_some
    run(world.run())
    if 0 < after <= len(world.events.arrivals):
        assert len(world.events.arrivals) == after
    assert sorted(world.events.places()) == sorted(
        place_of(where)
        for where in [*world.ledger.delivered, *world.ledger.dead]
        if outcomes[place_of(where)] in {"delivered", "dead event_rejected"}
    )
    run(world.run())
    world.assert_complete(outcomes)
    assert max(Counter(world.events.places()).values(), default=1) == 1


@pytest.mark.parametrize("window", [100, 8], ids=["in the stream", "before it, in the batcher"])
async def test_in_a_drain_events_that_wait_for_a_permit_are_not_sent(window: int) -> None:
    world = World(many(30, people=30), page_rows=30, window=window, max_in_flight=3)
    world.link_everybody()
    answer = anyio.Event()
    world.events.latency = lambda _: answer.wait()
    async with anyio.create_task_group() as group:
        group.start_soon(world.run)
        await until(lambda: len(world.events.arrivals) == 3)
        await anyio.wait_all_tasks_blocked()
        world.pipeline.drain()
        await anyio.wait_all_tasks_blocked()
        assert world.ledger.delivered == []
        answer.set()
    assert len(world.events.arrivals) == 3
    assert sorted(map(place_of, world.ledger.delivered)) == sorted(world.events.places())
    assert world.pipeline.is_draining


async def test_a_drain_while_the_commit_waits_sends_nothing_more() -> None:
    world = World(many(30, people=10), page_rows=30, max_in_flight=3)
    world.link_everybody()
    world.ledger.gate = anyio.Event()
    world.events.latency = lambda _: until(lambda: len(world.events.arrivals) >= 3)
    async with anyio.create_task_group() as group:
        group.start_soon(world.run)
        await until(lambda: len(world.events.arrivals) == 3)
        await anyio.wait_all_tasks_blocked()
        world.pipeline.drain()
        world.ledger.gate.set()
    assert len(world.events.arrivals) == 3
    assert len(world.ledger.delivered) == 3


async def test_a_drain_ends_reading_that_waits_for_room_in_the_window() -> None:
    world = World(many(60), page_rows=4, window=8)
    world.link_everybody()
    async with at_a_standstill(world):
        read = len(world.log.read)
        world.pipeline.drain()
    assert len(world.log.read) == read
    await world.run()
    world.assert_complete(all_delivered(60))


async def test_a_drain_before_the_first_entry_sends_nothing() -> None:
    world = World(many(6))
    world.begin()
    world.pipeline.drain()
    with anyio.fail_after(5):
        await world.carry()
    assert world.events.arrivals == []
    await world.run()
    world.assert_complete(all_delivered(6))


async def test_a_drain_gives_up_waiting_for_an_import_and_sends_no_event_after_it() -> None:
    world = World(many(6))
    world.contacts.gate = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(world.run)
        await anyio.wait_all_tasks_blocked()
        world.pipeline.drain()
    assert world.events.arrivals == []
    world.contacts.gate.set()
    await world.run()
    world.assert_complete(all_delivered(6))
