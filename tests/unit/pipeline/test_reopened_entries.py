"""Aside of the log's order: what is parked, dead and replayed, or left by earlier runs, and looked up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace

from kiva_stream.errors import Rejected
from kiva_stream.model.contacts import ContactStatus
from kiva_stream.model.dead_letters import DeadLetter
from kiva_stream.model.deliveries import Delivery
from kiva_stream.model.entries import Change, Changes, ReopenedEntries
from kiva_stream.model.ids import AcId, ContactId, CustomerId, Email
from kiva_stream.model.outcomes import SYNCED, Outcome, Reason, Span
from kiva_stream.model.tracked_events import LoggedEvent
from kiva_stream.pipeline import leftovers
from kiva_stream.pipeline.checkpoint import Checkpoint
from kiva_stream.pipeline.delivery_lookup import TrackingLogLookup
from kiva_stream.pipeline.leftovers import LeftoversFirst
from tests.fakes import (
    LOGGED_OUT,
    NOISE,
    FakeContacts,
    FakeEntries,
    FakeLedger,
    FakeLinks,
    FakeLog,
    contact,
    customer,
    delivery,
    entry,
    eventdata,
    moment,
    no_time,
    place_of,
    position,
    until,
    up_to,
)
from tests.unit.pipeline.world import ANN, NOBODY, World

CONTACT = ContactId(1)


def make_checkpoint(ledger: FakeLedger, *, parked_max: int = 2) -> Checkpoint:
    return Checkpoint(
        ledger,
        ledger.watermark,
        ledger.left(),
        window=10,
        max_in_flight=2,
        commit_interval_s=0.02,
        parked_max=parked_max,
        sleep=no_time,
    )


@asynccontextmanager
async def running(checkpoint: Checkpoint) -> AsyncIterator[None]:
    """Run a checkpoint until the block is left; its last commit is done then."""
    async with anyio.create_task_group() as group:
        group.start_soon(checkpoint.run)
        yield
        checkpoint.close()


def parked(checkpoint: Checkpoint, one: Delivery) -> Delivery:
    kept = checkpoint.park(one, CONTACT)
    assert kept is not None
    return kept


# Parked


async def test_the_watermark_passes_a_parked_entry_whose_row_is_kept_until_it_has_its_outcome() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger())
    span = await checkpoint.track(position(1), 1)
    async with running(checkpoint):
        waiting = parked(checkpoint, delivery(1, span))
        await until(lambda: ledger.parked)
        assert (ledger.watermark, ledger.tally()) == (position(1), {})
        checkpoint.record_delivered(waiting, CONTACT, 1)
    assert (ledger.parked, ledger.tally()) == ({}, {"delivered": 1})


async def test_an_entry_that_was_parked_above_the_watermark_is_counted_with_its_page() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger())
    span = await checkpoint.track(position(2), 2)
    async with running(checkpoint):
        waiting = parked(checkpoint, delivery(2, span))
        await until(lambda: ledger.parked)
        checkpoint.record_delivered(waiting, CONTACT, 1)
        await until(lambda: ledger.delivered)
        assert ledger.commits[-1].passed == {}
        assert ledger.tally() == {"delivered": 1}
        span.resolve(SYNCED)
        checkpoint.request_commit()
    assert ledger.tally() == {"delivered": 1, "synced": 1}


async def test_what_was_parked_and_got_its_outcome_within_one_commit_leaves_no_row() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger())
    span = await checkpoint.track(position(1), 1)
    async with running(checkpoint):
        checkpoint.record_delivered(parked(checkpoint, delivery(1, span)), CONTACT, 1)
    assert [(commit.parked, commit.unparked) for commit in ledger.commits] == [((), ())]


async def test_no_more_are_parked_than_may_be_and_each_outcome_makes_room_for_another() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger(), parked_max=2)
    span = await checkpoint.track(position(3), 3)
    async with running(checkpoint):
        first = parked(checkpoint, delivery(1, span))
        parked(checkpoint, delivery(2, span))
        assert checkpoint.park(delivery(3, span), CONTACT) is None
        await until(lambda: len(ledger.parked) == 2)
        checkpoint.record_delivered(first, CONTACT, 1)
        await until(lambda: ledger.delivered)
        assert checkpoint.park(delivery(3, span), CONTACT)


async def test_what_earlier_runs_parked_takes_room_too() -> None:
    ledger = FakeLedger()
    ledger.parked = {position(1): CONTACT}
    checkpoint = make_checkpoint(ledger, parked_max=1)
    span = await checkpoint.track(position(2), 1)
    assert checkpoint.park(delivery(2, span), CONTACT) is None


async def test_an_entry_is_parked_once_and_a_change_never() -> None:
    checkpoint = make_checkpoint(FakeLedger())
    span = await checkpoint.track(position(1), 1)
    waiting = parked(checkpoint, delivery(1, span))
    assert parked(checkpoint, waiting) is waiting
    change = replace(delivery(2, Span(position(2), 1)), is_entry=False)
    assert parked(checkpoint, change) is change
    assert (span.pending, waiting.span.pending, change.span.pending) == (0, 1, 1)


async def test_the_row_of_an_entry_that_an_earlier_run_parked_goes_with_its_outcome() -> None:
    ledger = FakeLedger()
    ledger.parked = {position(1): CONTACT}
    checkpoint = make_checkpoint(ledger)
    span = checkpoint.reopen(position(1))
    assert span is not None
    assert checkpoint.reopen(position(1)) is None  # it is on its way
    async with running(checkpoint):
        checkpoint.record_delivered(delivery(1, span), CONTACT, 1)
    assert (ledger.parked, ledger.tally()) == ({}, {"delivered": 1})


async def test_a_doubt_that_is_parked_stays_one_though_the_watermark_passes_it() -> None:
    ledger = FakeLedger()
    checkpoint = make_checkpoint(ledger)
    checkpoint._doubts = {position(1)}
    span = await checkpoint.track(position(1), 1)
    async with running(checkpoint):
        parked(checkpoint, delivery(1, span))
        await until(lambda: ledger.parked)
        assert ledger.watermark == position(1)
        checkpoint.mark_tag_due(CONTACT)
    assert ledger.left().in_doubt == {position(1)}


# Dead, and alive again


async def test_a_dead_entry_of_a_page_that_is_not_passed_is_counted_as_what_it_becomes() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger())
    span = await checkpoint.track(position(2), 2)
    async with running(checkpoint):
        checkpoint.record_dead(span, DeadLetter(position(1), Reason.NO_EMAIL, CustomerId(4)))
        await until(lambda: ledger.dead)
        again = checkpoint.reopen(position(1), Reason.NO_EMAIL)
        assert again is not None
        checkpoint.record_delivered(delivery(1, again), CONTACT, 1)
        await until(lambda: ledger.delivered)
        assert ledger.tally() == {"delivered": 1}
        span.resolve(SYNCED)
        checkpoint.request_commit()
    assert ledger.tally() == {"delivered": 1, "synced": 1}


async def test_letters_of_a_customer_are_asked_for_when_all_of_them_are_in_the_state() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger())
    span = await checkpoint.track(position(1), 1)
    async with running(checkpoint):
        checkpoint.record_dead(span, DeadLetter(position(1), Reason.NO_EMAIL, CustomerId(4)))
        assert await checkpoint.has_dead_letters(CustomerId(4))
        assert ledger.dead
        assert not await checkpoint.has_dead_letters(CustomerId(4))


async def test_what_may_be_resumed_is_told_when_the_commit_under_way_is_done() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger())
    ledger.letters = {position(1): DeadLetter(position(1), Reason.EVENT_REJECTED, CustomerId(1))}
    ledger.gate = anyio.Event()
    told: list[bool] = []

    async def ask() -> None:
        told.append(bool(await checkpoint.unresolved([position(1)], [position(1)])))

    async with running(checkpoint), anyio.create_task_group() as group:
        span = checkpoint.reopen(position(1), Reason.EVENT_REJECTED)
        assert span is not None
        assert not await checkpoint.unresolved([position(1)], [position(1)]), "it is on its way"
        checkpoint.record_delivered(delivery(1, span), CONTACT, 1)
        await until(lambda: ledger.asked)
        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        ledger.gate.set()
    assert told == [False]


async def test_what_lies_above_the_watermark_with_an_outcome_comes_again_in_its_place() -> None:
    ledger = FakeLedger()
    ledger.earlier = {position(2): Outcome("dead", Reason.NO_EMAIL)}
    checkpoint = make_checkpoint(ledger)
    assert checkpoint.will_be_reread(position(1))  # it may have one
    assert not checkpoint.will_be_reread(position(3))
    await checkpoint.track(position(2), 2)
    assert not checkpoint.will_be_reread(position(1))
    assert checkpoint.will_be_reread(position(2))
    checkpoint.earlier_outcome(position(2))
    assert not checkpoint.will_be_reread(position(2))


async def some_turns() -> None:
    for _ in range(200):
        await anyio.lowlevel.checkpoint()


async def test_a_dead_entry_above_the_watermark_is_revived_in_its_place_and_once() -> None:
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


# Left by earlier runs


async def test_what_was_left_comes_first_in_log_order_and_what_is_parked_higher_up_in_its_place() -> None:
    log = FakeLog([entry(place, customer(place)) for place in range(1, 8)])
    changes = [Change(customer(1), moment(1))]
    replays = {position(3): Reason.NO_EMAIL, position(1): Reason.EVENT_REJECTED}
    left = [position(6), position(4), position(2)]
    pages = [
        page
        async for page in LeftoversFirst(log, FakeEntries(log), left, replays, changes).pages(
            position(5), up_to(7)
        )
    ]
    parked_page, replayed, changed, read = pages
    assert isinstance(parked_page, ReopenedEntries)
    assert isinstance(replayed, ReopenedEntries)
    assert (list(parked_page.positions), parked_page.dead_letters) == ([position(2), position(4)], {})
    assert (list(replayed.positions), replayed.dead_letters) == ([position(1), position(3)], replays)
    assert [each.position for each in parked_page.entries] == [position(2), position(4)]
    assert isinstance(changed, Changes)
    assert isinstance(read, list)
    assert [each.position for each in read] == [position(6), position(7)]


async def test_what_was_left_comes_a_page_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "PAGE_ROWS", 2)
    log = FakeLog([entry(place, customer(place)) for place in range(1, 6)])
    left = {position(place) for place in range(1, 6)}
    pages = [page async for page in LeftoversFirst(log, FakeEntries(log), left).pages(position(5), up_to(5))]
    assert [len(page.positions) for page in pages if isinstance(page, ReopenedEntries)] == [2, 2, 1]


async def test_what_was_parked_and_is_not_in_the_log_any_more_is_skipped() -> None:
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


# Look-ups


class FakeTrackingLogs:
    """Implements TrackingLogs; who has none is not there any more."""

    def __init__(self, **logs: list[LoggedEvent]) -> None:
        self.logs = {AcId(int(key[1:])): rows for key, rows in logs.items()}

    async def events(self, contact: AcId, *, low_priority: bool = False) -> list[LoggedEvent]:
        assert not low_priority
        if contact not in self.logs:
            raise Rejected("gone", "no such contact")
        return self.logs[contact]


async def found(logs: FakeTrackingLogs, known: AcId | None, there: bool = True) -> bool | None:
    """Return whether a look-up finds the event of place 1; whether the id is `known` or found by address."""
    ann, links, contacts = contact(), FakeLinks(ContactStatus.LINKED), FakeContacts()
    await links.link({CustomerId(1): ann.email})
    if known is not None:
        links.ac_ids[ann.id] = known
    if there:
        contacts.add(ann.email)
    return await TrackingLogLookup(links, contacts, logs).has_arrived(ann, LOGGED_OUT.ac_name, eventdata(1))


SAME = LoggedEvent(LOGGED_OUT.ac_name, f"{eventdata(1)}", None)


async def test_an_event_is_known_by_its_name_its_moment_and_its_mark() -> None:
    assert await found(FakeTrackingLogs(_7=[SAME]), AcId(7))
    other_name = SAME._replace(name="Something else")
    other_mark = SAME._replace(eventdata=eventdata(2))
    other_moment = SAME._replace(eventdata=eventdata(1).replace("17:00:00", "17:00:01"))
    foreign = SAME._replace(eventdata="what others sent")
    logs = FakeTrackingLogs(_7=[other_name, other_mark, other_moment, foreign])
    assert not await found(logs, AcId(7))


async def test_a_contact_whose_id_is_not_known_is_found_by_its_address() -> None:
    assert await found(FakeTrackingLogs(_101=[SAME]), None)


async def test_where_there_is_no_log_to_look_into_nothing_has_arrived() -> None:
    assert not await found(FakeTrackingLogs(), AcId(7))
    assert not await found(FakeTrackingLogs(_101=[SAME]), None, there=False)
