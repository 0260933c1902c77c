"""Aside of the log's order: what is parked, dead and replayed, or left by earlier runs, and looked up."""

from __future__ import annotations

import anyio
import anyio.lowlevel
from msgspec.structs import replace

from kiva_stream.model.dead_letters import DeadLetter
from kiva_stream.model.entries import Change
from kiva_stream.model.ids import CustomerId, Email
from kiva_stream.model.outcomes import SYNCED, Outcome, Reason
from tests.fakes.state_ledger import FakeLedger
from tests.support.entries import NOISE, delivery, entry, moment, place_of, position
from tests.support.pipeline_world import ANN, NOBODY, World
from tests.support.waiting import no_time, until
from tests.unit.pipeline.builders import CONTACT, make_checkpoint, running

# Parked


async def test_the_watermark_passes_a_parked_entry_whose_row_is_kept_until_it_has_its_outcome() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger())
    span = await checkpoint.track(position(1), 1)
    async with running(checkpoint):
        waiting = checkpoint.reopened.park(delivery(1, span), CONTACT)
        await until(lambda: ledger.parked)
        assert (ledger.watermark, ledger.tally()) == (position(1), {})
        checkpoint.record_delivered(waiting, CONTACT, 1)
    assert (ledger.parked, ledger.tally()) == ({}, {"delivered": 1})


async def test_an_entry_that_was_parked_above_the_watermark_is_counted_with_its_page() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger())
    span = await checkpoint.track(position(2), 2)
    async with running(checkpoint):
        waiting = checkpoint.reopened.park(delivery(2, span), CONTACT)
        await until(lambda: ledger.parked)
        checkpoint.record_delivered(waiting, CONTACT, 1)
        await until(lambda: ledger.delivered)
        assert ledger.commits[-1].passed == {}
        assert ledger.tally() == {"delivered": 1}
        span.resolve(SYNCED)
        checkpoint.request_commit()
    assert ledger.tally() == {"delivered": 1, "synced": 1}


async def test_an_entry_parked_and_resolved_within_one_commit_leaves_no_row() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger())
    span = await checkpoint.track(position(1), 1)
    async with running(checkpoint):
        checkpoint.record_delivered(checkpoint.reopened.park(delivery(1, span), CONTACT), CONTACT, 1)
    assert [(commit.parked, commit.unparked) for commit in ledger.commits] == [((), ())]


async def test_the_row_of_an_entry_that_an_earlier_run_parked_goes_with_its_outcome() -> None:
    ledger = FakeLedger()
    ledger.parked = {position(1): CONTACT}
    checkpoint = make_checkpoint(ledger)
    span = checkpoint.reopened.reopen(position(1))
    assert span is not None
    assert checkpoint.reopened.reopen(position(1)) is None  # it is on its way
    async with running(checkpoint):
        checkpoint.record_delivered(delivery(1, span), CONTACT, 1)
    assert (ledger.parked, ledger.tally()) == ({}, {"delivered": 1})


async def test_an_event_in_doubt_that_is_parked_stays_in_doubt_though_the_watermark_passes_it() -> None:
    ledger = FakeLedger()
    checkpoint = make_checkpoint(ledger)
    checkpoint.earlier.in_doubt = {position(1)}
    span = await checkpoint.track(position(1), 1)
    async with running(checkpoint):
        checkpoint.reopened.park(delivery(1, span), CONTACT)
        await until(lambda: ledger.parked)
        assert ledger.watermark == position(1)
        checkpoint.mark_tag_due(CONTACT)
    assert ledger.left().in_doubt == {position(1)}


async def test_a_dead_letter_that_is_left_to_a_later_try_stays_in_doubt() -> None:
    ledger = FakeLedger()
    checkpoint = make_checkpoint(ledger)
    span = await checkpoint.track(position(1), 1)
    async with running(checkpoint):
        dead_letter = DeadLetter(position(1), Reason.EVENT_REJECTED, CustomerId(1))
        checkpoint.record_dead(span, dead_letter)
        checkpoint.request_commit()
        await until(lambda: ledger.watermark == position(1))
        checkpoint.reopened.reopen(position(1), Reason.EVENT_REJECTED)
        checkpoint.keep_in_doubt(position(1))
        assert checkpoint.reopened.leave(position(1), CONTACT) is Reason.EVENT_REJECTED
    assert ledger.left().in_doubt == {position(1)}


# Dead, and alive again


async def test_a_dead_letter_of_a_page_that_is_not_passed_is_counted_by_its_new_outcome() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger())
    span = await checkpoint.track(position(2), 2)
    async with running(checkpoint):
        checkpoint.record_dead(span, DeadLetter(position(1), Reason.NO_EMAIL, CustomerId(4)))
        await until(lambda: ledger.dead)
        again = checkpoint.reopened.reopen(position(1), Reason.NO_EMAIL)
        assert again is not None
        checkpoint.record_delivered(delivery(1, again), CONTACT, 1)
        await until(lambda: ledger.delivered)
        assert ledger.tally() == {"delivered": 1}
        span.resolve(SYNCED)
        checkpoint.request_commit()
    assert ledger.tally() == {"delivered": 1, "synced": 1}


async def test_dead_letters_of_a_customer_are_reported_once_when_all_of_them_are_committed() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger())
    span = await checkpoint.track(position(1), 1)
    async with running(checkpoint):
        checkpoint.record_dead(span, DeadLetter(position(1), Reason.NO_EMAIL, CustomerId(4)))
        assert await checkpoint.take_dead_letter_customer(CustomerId(4))
        assert ledger.dead
        assert not await checkpoint.take_dead_letter_customer(CustomerId(4))


async def test_which_entries_may_be_reopened_is_known_when_the_commit_under_way_is_done() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger())
    ledger.dead_letters = {position(1): DeadLetter(position(1), Reason.EVENT_REJECTED, CustomerId(1))}
    ledger.gate = anyio.Event()
    told: list[bool] = []

    async def ask() -> None:
        told.append(bool(await checkpoint.reopenable([position(1)], [position(1)])))

    async with running(checkpoint), anyio.create_task_group() as group:
        span = checkpoint.reopened.reopen(position(1), Reason.EVENT_REJECTED)
        assert span is not None
        assert not await checkpoint.reopenable([position(1)], [position(1)]), "it is on its way"
        checkpoint.record_delivered(delivery(1, span), CONTACT, 1)
        await until(lambda: ledger.asked)
        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        ledger.gate.set()
    assert told == [False]


async def test_a_parked_entry_that_was_synced_is_not_reopened_once_more() -> None:
    ledger = FakeLedger()
    ledger.parked = {position(1): CONTACT}
    checkpoint = make_checkpoint(ledger)
    assert await checkpoint.reopenable([position(1)], []) == {position(1)}
    span = checkpoint.reopened.reopen(position(1))
    assert span is not None
    async with running(checkpoint):
        span.resolve(SYNCED)
        checkpoint.request_commit()

    assert await checkpoint.reopenable([position(1)], []) == set()


async def test_an_entry_above_the_watermark_with_an_outcome_will_be_reread_once() -> None:
    ledger = FakeLedger()
    ledger.earlier = {position(2): Outcome("dead", Reason.NO_EMAIL)}
    checkpoint = make_checkpoint(ledger)
    assert checkpoint.earlier.will_be_reread(position(1))  # it may have one
    assert not checkpoint.earlier.will_be_reread(position(3))
    await checkpoint.track(position(2), 2)
    assert not checkpoint.earlier.will_be_reread(position(1))
    assert checkpoint.earlier.will_be_reread(position(2))
    checkpoint.earlier.take_outcome(position(2))
    assert not checkpoint.earlier.will_be_reread(position(2))


async def some_turns() -> None:
    for _ in range(200):
        await anyio.lowlevel.checkpoint()


async def test_a_dead_letter_above_the_watermark_is_delivered_where_it_is_read_again_and_once() -> None:
    world = World([entry(1, ANN), entry(2, NOBODY), entry(3, NOBODY)], page_rows=1, window=3)
    world.link_everybody()
    world.events.latency = lambda place: anyio.sleep_forever() if place == 1 else no_time(0)
    async with anyio.create_task_group() as group:
        group.start_soon(world.run)
        await until(lambda: len(world.ledger.dead) == 2)
        group.cancel_scope.cancel()
    assert list(map(place_of, world.ledger.dead)) == [2, 3]
    # Their places are read long after the change was.
    world.settings = replace(world.settings, pipeline=replace(world.settings.pipeline, window=1))
    world.events.latency = lambda place: some_turns() if place == 1 else no_time(0)
    world.shop.change(NOBODY, email=Email("somebody@example.org"))
    world.log.changes = {0: [Change(world.shop.rows[NOBODY.id].customer, moment(9))]}
    await world.run()
    world.assert_complete(dict.fromkeys([1, 2, 3], "delivered"))
    assert sorted(each.place for each in world.events.processed) == [1, 2, 3]


# Outside the log's order, in the whole pipeline


async def test_a_parked_entry_that_is_not_in_the_log_any_more_is_skipped() -> None:
    world = World([entry(1, ANN), entry(3, ANN)])
    await world.run(until_place=3)
    world.ledger.parked = {position(2): CONTACT}
    await world.run()
    assert world.ledger.parked == {}
    assert world.ledger.tally() == {"delivered": 2, "skipped erased": 1}


async def test_a_replay_of_what_was_delivered_by_now_sends_nothing() -> None:
    world = World([entry(1, ANN)])
    await world.run()
    world.replays = {position(1): Reason.EVENT_REJECTED}
    await world.run()
    assert world.events.places() == [1]
    world.assert_complete({1: "delivered"})


async def test_a_parked_entry_above_the_watermark_is_delivered_once_and_counted_once() -> None:
    world = World([replace(entry(1, ANN), action=NOISE), entry(2, ANN)], page_rows=1)
    world.ledger.parked = {position(2): CONTACT}
    await world.run()
    assert world.ledger.parked == {}
    assert (world.events.places(), world.ledger.watermark) == ([2], position(2))
    assert world.ledger.tally() == {"skipped noise": 1, "delivered": 1}
