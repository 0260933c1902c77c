"""The sender: the contact first, then its events one after another, each with its one outcome."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kiva_stream.errors import EVENTS, AccountRefused, DrainedError, Rejected, UnknownOutcome
from kiva_stream.model.checkpoint import Delivered, Leftovers
from kiva_stream.model.contacts import Contact, ContactStatus
from kiva_stream.model.dead_letters import DeadLetter
from kiva_stream.model.deliveries import Batch, Need
from kiva_stream.model.ids import CustomerId, Email
from kiva_stream.model.outcomes import Reason, Span
from kiva_stream.pipeline.checkpoint import NOTHING_LEFT
from kiva_stream.pipeline.sender import LookupPolicy, Sender
from kiva_stream.primitives.backoff import backoff_s
from tests.fakes.destination_events import Arrival, FakeEvents
from tests.fakes.stages import FakeContactDelivery, FakeDeliveryLookup, FakeHolds
from tests.fakes.state_ledger import FakeLedger
from tests.support.entries import LOGGED_OUT, batch, contact, delivery, moment, position
from tests.support.waiting import raises_one, until
from tests.unit.pipeline.builders import make_checkpoint

WITNESS_S = 300


def nothing_gathered(_contact: Contact) -> Batch | None:
    return None


class Bench:
    """A sender with what stands around it, and one span of entries."""

    def __init__(
        self,
        next_batch: Callable[[Contact], Batch | None] = nothing_gathered,
        left: Leftovers = NOTHING_LEFT,
        *,
        looks_up: bool = False,
    ) -> None:
        self.now = 100.0
        self.contact_delivery = FakeContactDelivery()
        self.events = FakeEvents()
        self.ledger = FakeLedger()
        self.slept: list[float] = []
        self.checkpoint = make_checkpoint(self.ledger, commit_interval_s=0, left=left)
        self.lookup = FakeDeliveryLookup(self.events)
        self.holds = FakeHolds()
        self.sender = self.sender_to(self.events, next_batch, self.lookup if looks_up else None)

    def sender_to(
        self,
        events: FakeEvents,
        next_batch: Callable[[Contact], Batch | None] = nothing_gathered,
        lookup: FakeDeliveryLookup | None = None,
    ) -> Sender:
        return Sender(
            self.contact_delivery,
            events,
            permits=self.checkpoint.intents,
            outcomes=self.checkpoint,
            holds=self.holds,
            unless_drained=self.checkpoint.draining.unless_drained,
            next_batch=next_batch,
            lookups=LookupPolicy(lookup, settle_s=30, witness_s=WITNESS_S),
            sleep=self._sleep,
            clock=lambda: self.now,
        )

    async def span(self, size: int) -> Span:
        return await self.checkpoint.track(position(size), size)

    async def run(self, *batches: Batch) -> None:
        """Have batches delivered, and what came of it committed."""
        send, receive = anyio.create_memory_object_stream[Batch](len(batches))
        async with send:
            for each in batches:
                await send.send(each)
        async with anyio.create_task_group() as group:
            group.start_soon(self.checkpoint.run)
            with anyio.fail_after(5):
                await self.sender.run(receive)
            self.checkpoint.close()

    async def _sleep(self, seconds: float, /) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await anyio.lowlevel.checkpoint()


async def test_events_of_a_batch_go_one_after_another_in_log_order() -> None:
    bench, ann = Bench(), contact()
    span = await bench.span(4)
    await bench.run(batch(ann, *(delivery(place, span) for place in (1, 2, 3, 4))))
    assert bench.events.arrivals == [Arrival(ann.email, LOGGED_OUT.ac_name, place) for place in (1, 2, 3, 4)]
    assert bench.events.most_in_flight == 1
    assert bench.ledger.watermark == position(4)
    assert [row for commit in bench.ledger.commits for row in commit.delivered] == [
        Delivered(position(place), ann.id, LOGGED_OUT.number, 1) for place in (1, 2, 3, 4)
    ]


async def test_a_linked_contact_whose_row_changed_arrives_before_its_next_event() -> None:
    bench, ann = Bench(), contact()
    bench.contact_delivery.changed = {ann.email}
    bench.contact_delivery.gate = anyio.Event()
    span = await bench.span(1)
    async with anyio.create_task_group() as group:
        group.start_soon(bench.run, batch(ann, delivery(1, span)))
        await until(lambda: bench.contact_delivery.asked)
        await anyio.wait_all_tasks_blocked()
        assert bench.events.arrivals == []
        bench.contact_delivery.gate.set()
    assert bench.events.places() == [1]


async def test_the_week_tag_of_a_contact_that_arrived_may_differ() -> None:
    bench, ann, bob = Bench(), contact(1, ContactStatus.NEW), contact(2, ContactStatus.NEW)
    bench.contact_delivery.bad = (bob.email,)
    span = await bench.span(3)
    nothing_new = batch(contact(3), delivery(3, span))
    await bench.run(batch(ann, delivery(1, span)), batch(bob, delivery(2, span)), nothing_new)
    assert bench.ledger.tags_due == {ann.id}


async def test_a_change_has_no_outcome_and_its_contact_is_upserted() -> None:
    bench, ann = Bench(), contact()
    bench.contact_delivery.changed = {ann.email}
    change = replace(delivery(1, Span(position(1), 1), is_event=False), is_entry=False)
    await bench.run(batch(ann, change))
    assert bench.contact_delivery.asked == [ann.email]
    assert bench.ledger.tally() == {}
    assert bench.ledger.tags_due == {ann.id}


async def test_a_change_of_a_refused_contact_is_no_dead_letter() -> None:
    bench = Bench()
    rejected = contact(status=ContactStatus.REJECTED, why=Reason.AC_REJECTED)
    await bench.run(
        batch(rejected, replace(delivery(1, Span(position(1), 1), is_event=False), is_entry=False))
    )
    assert bench.ledger.commits == []


async def test_a_contact_that_cannot_be_upserted_ends_the_sender_and_its_events_have_no_outcome() -> None:
    bench = Bench()
    bench.contact_delivery.refuses = True
    span = await bench.span(1)
    with raises_one(AccountRefused):
        await bench.run(batch(contact(status=ContactStatus.NEW), delivery(1, span)))
    assert (bench.events.arrivals, span.pending) == ([], 1)


async def test_a_linked_contact_is_not_waited_for() -> None:
    bench = Bench()
    span = await bench.span(1)
    await bench.run(batch(contact(), delivery(1, span)))
    assert bench.contact_delivery.asked == []


async def test_a_new_contact_arrives_before_its_first_event() -> None:
    bench, ann = Bench(), contact(status=ContactStatus.NEW)
    bench.contact_delivery.gate = anyio.Event()
    span = await bench.span(2)
    async with anyio.create_task_group() as group:
        group.start_soon(bench.run, batch(ann, delivery(1, span, is_event=False), delivery(2, span)))
        await until(lambda: bench.contact_delivery.asked)
        await anyio.wait_all_tasks_blocked()
        assert bench.events.arrivals == []
        assert span.pending == 2
        bench.contact_delivery.gate.set()
    assert bench.contact_delivery.asked == [ann.email]
    assert bench.events.places() == [2]
    assert bench.ledger.tally() == {"synced": 1, "delivered": 1}


async def test_a_contact_is_upserted_with_the_moment_of_the_newest_entry_that_waits() -> None:
    bench = Bench()
    span = await bench.span(3)
    deliveries = [delivery(place, span) for place in (1, 3, 2)]
    await bench.run(batch(contact(status=ContactStatus.NEW), *deliveries))
    (need,) = bench.contact_delivery.needs
    assert (need.position, need.inserted_at) == (position(3), moment(3))


async def test_sync_only_takes_no_permit_and_sends_no_event() -> None:
    bench = Bench()
    bench.checkpoint.drain()
    span = await bench.span(2)
    only = [delivery(place, span, is_event=False, notes=("odd",)) for place in (1, 2)]
    await bench.run(batch(contact(), *only))
    assert bench.events.arrivals == []
    assert bench.ledger.tally() == {"synced": 2}
    assert bench.ledger.tally("note") == {"odd": 2}


async def test_entries_of_a_rejected_contact_become_dead_letters_with_its_reason() -> None:
    bench = Bench()
    span = await bench.span(2)
    rejected = contact(status=ContactStatus.REJECTED, why=Reason.AC_REJECTED)
    await bench.run(batch(rejected, delivery(1, span, notes=("odd",)), delivery(2, span, is_event=False)))
    assert bench.contact_delivery.asked == []
    assert bench.events.arrivals == []
    assert bench.ledger.commits[-1].dead == [
        DeadLetter(position(place), Reason.AC_REJECTED, CustomerId(1)) for place in (1, 2)
    ]
    assert bench.ledger.tally() == {"dead ac_rejected": 2}
    assert bench.ledger.tally("note") == {"odd": 1}


async def test_a_contact_that_turns_out_to_be_refused_gets_no_event() -> None:
    bench, ann = Bench(), contact(status=ContactStatus.NEW)
    bench.contact_delivery.bad = (ann.email,)
    span = await bench.span(1)
    await bench.run(batch(ann, delivery(1, span)))
    assert bench.events.arrivals == []
    assert bench.ledger.tally() == {"dead ac_rejected": 1}
    assert [each.reply for each in bench.ledger.dead_letters.values()] == ["no"]


async def test_a_contact_that_is_to_be_tried_again_meanwhile_is_waited_for_once_more() -> None:
    bench, ann = Bench(), contact(status=ContactStatus.NEW)

    class Retried(FakeContactDelivery):
        async def ensure(self, need: Need) -> None:
            await super().ensure(need)
            if len(self.asked) == 1:  # it was refused, and its rows changed
                need.contact.set_status(ContactStatus.NEW)

    bench.contact_delivery = Retried()
    bench.sender = bench.sender_to(bench.events)
    span = await bench.span(1)
    await bench.run(batch(ann, delivery(1, span)))
    assert bench.contact_delivery.asked == [ann.email] * 2
    assert bench.ledger.tally() == {"delivered": 1}


async def test_a_prerecorded_event_whose_contact_is_refused_meanwhile_frees_its_permit() -> None:
    bench, ann = Bench(), contact()

    class Events(FakeEvents):
        async def send(
            self,
            email: Email,
            name: str,
            eventdata: str,
            *,
            is_suspect: bool = False,  # noqa: ARG002  the breaker's
        ) -> None:
            await super().send(email, name, eventdata)
            ann.set_status(ContactStatus.REJECTED, Reason.AC_REJECTED)

    bench.sender = bench.sender_to(Events())
    span = await bench.span(2)
    await bench.run(batch(ann, delivery(1, span), delivery(2, span)))
    assert [commit.intents for commit in bench.ledger.commits] == [{position(1), position(2)}, frozenset()]
    assert bench.ledger.tally() == {"delivered": 1, "dead ac_rejected": 1}


async def test_an_event_that_is_refused_is_dead_and_the_next_one_goes_on() -> None:
    bench = Bench()
    bench.events.answers[1] = [UnknownOutcome("?"), Rejected("refused", "what it said")]
    span = await bench.span(2)
    await bench.run(batch(contact(), delivery(1, span), delivery(2, span)))
    dead_letters = [dead_letter for commit in bench.ledger.commits for dead_letter in commit.dead]
    assert dead_letters == [
        DeadLetter(position(1), Reason.EVENT_REJECTED, CustomerId(1), attempts=2, reply="what it said")
    ]
    assert bench.ledger.delivered == [position(2)]
    assert bench.ledger.tally() == {"dead event_rejected": 1, "delivered": 1}


async def test_an_event_of_unknown_outcome_is_sent_again_before_the_next_one_and_counted() -> None:
    bench = Bench()
    bench.events.answers[1] = [UnknownOutcome("?")]
    span = await bench.span(2)
    await bench.run(batch(contact(), delivery(1, span, notes=("odd",)), delivery(2, span)))
    assert bench.events.places() == [1, 1, 2]
    (first, _) = [row for commit in bench.ledger.commits for row in commit.delivered]
    assert first.attempts == 2
    assert bench.ledger.tally() == {"delivered": 2}
    assert bench.ledger.tally("note") == {"odd": 1, "sent_again": 1}


async def test_an_event_whose_answer_was_lost_is_looked_up_and_not_sent_again() -> None:
    bench = Bench(looks_up=True)
    bench.events.answers[1] = [UnknownOutcome("?")]
    bench.events.taken = {1}
    span = await bench.span(2)
    await bench.run(batch(contact(), delivery(1, span), delivery(2, span)))
    assert bench.events.places() == [1, 2]
    assert (bench.lookup.asked, bench.slept) == ([1], [30])
    assert bench.ledger.tally() == {"delivered": 2}
    assert bench.ledger.tally("note") == {"looked_up": 1}


async def test_an_event_that_the_look_up_does_not_find_is_sent_again_and_looked_up_again() -> None:
    bench = Bench(looks_up=True)
    bench.events.answers[1] = [UnknownOutcome("?"), UnknownOutcome("?")]
    span = await bench.span(1)
    await bench.run(batch(contact(), delivery(1, span)))
    assert bench.events.places() == [1, 1, 1]
    assert (bench.lookup.asked, bench.slept) == ([1, 1], [30, 30])
    assert bench.ledger.tally("note") == {"looked_up": 2, "sent_again": 2}


async def test_an_event_that_is_looked_up_stays_recorded() -> None:
    bench = Bench(looks_up=True)
    bench.events.answers[1] = [UnknownOutcome("?")]
    bench.lookup.gate = anyio.Event()
    span = await bench.span(2)
    async with anyio.create_task_group() as group:
        group.start_soon(bench.run, batch(contact(), delivery(1, span)))
        await until(lambda: bench.lookup.asked)
        bench.checkpoint.record_dead(span, DeadLetter(position(2), Reason.NO_EMAIL, None))
        await until(lambda: bench.ledger.dead)
        assert bench.ledger.commits[-1].intents == {position(1)}
        bench.lookup.gate.set()


@pytest.mark.parametrize("is_there", [True, False])
async def test_an_event_that_an_earlier_run_may_have_sent_is_looked_up_before_it_is_sent(
    is_there: bool,
) -> None:
    bench, ann = Bench(left=Leftovers(in_doubt=frozenset({position(1)})), looks_up=True), contact()
    if is_there:
        bench.events.processed.append(Arrival(ann.email, LOGGED_OUT.ac_name, 1))
    span = await bench.span(2)
    await bench.run(batch(ann, delivery(1, span), delivery(2, span)))
    assert bench.events.places() == ([2] if is_there else [1, 2])
    assert (bench.lookup.asked, bench.slept) == ([1], [30])
    assert bench.ledger.tally() == {"delivered": 2}


async def test_without_look_ups_an_event_in_doubt_is_sent_and_counted() -> None:
    bench = Bench(left=Leftovers(in_doubt=frozenset({position(1)})))
    span = await bench.span(2)
    await bench.run(batch(contact(), delivery(1, span), delivery(2, span)))
    assert bench.events.places() == [1, 2]
    assert bench.ledger.tally("note") == {"sent_again": 1}


async def test_an_event_that_a_drain_kept_from_being_written_is_not_in_doubt() -> None:
    bench = Bench(looks_up=True)
    bench.events.answers[1] = [DrainedError("it waited for its turn")]
    span = await bench.span(1)
    await bench.run(batch(contact(), delivery(1, span)))
    assert bench.ledger.delivered == []
    assert bench.ledger.left().in_doubt == frozenset()


async def test_an_event_that_may_have_arrived_stays_in_doubt_whatever_keeps_it_from_being_sent_again() -> (
    None
):
    bench = Bench(looks_up=True)
    bench.events.answers[1] = [UnknownOutcome("?"), DrainedError("it waited for its turn")]
    span = await bench.span(1)
    await bench.run(batch(contact(), delivery(1, span)))
    assert bench.ledger.left().in_doubt == {position(1)}


async def test_a_drain_does_not_wait_for_a_look_up_and_the_event_stays_in_doubt() -> None:
    bench = Bench(looks_up=True)
    bench.events.answers[1] = [UnknownOutcome("?")]
    bench.lookup.gate = anyio.Event()
    span = await bench.span(1)
    async with anyio.create_task_group() as group:
        group.start_soon(bench.run, batch(contact(), delivery(1, span)))
        await until(lambda: bench.lookup.asked)
        bench.checkpoint.drain()
    assert bench.ledger.delivered == []
    assert bench.ledger.left().in_doubt == {position(1)}


async def test_without_look_ups_an_event_of_the_only_contact_is_sent_again_once_after_long_and_held() -> None:
    bench = Bench()
    bench.events.answers[1] = [UnknownOutcome("?") for _ in range(3)]
    span = await bench.span(1)
    await bench.run(batch(contact(), delivery(1, span)))
    assert sum(bench.slept) == WITNESS_S
    ((_, error),) = bench.holds.held
    assert (error.is_in_doubt, error.sent) == (True, 2)


async def test_without_look_ups_an_event_that_an_earlier_run_sent_is_sent_once_and_then_held() -> None:
    bench = Bench(left=Leftovers(in_doubt=frozenset({position(1)})))
    bench.events.answers[1] = [UnknownOutcome("?") for _ in range(3)]
    span = await bench.span(1)
    await bench.run(batch(contact(), delivery(1, span)))
    assert bench.events.places() == [1]
    ((_, error),) = bench.holds.held
    assert (error.is_in_doubt, error.sent) == (True, 1)


async def test_the_attempts_of_an_event_that_an_earlier_run_held_are_counted_on() -> None:
    bench = Bench(left=Leftovers(in_doubt=frozenset({position(1)})), looks_up=True)
    bench.holds.held_before[position(1)] = 5
    span = await bench.span(1)
    await bench.run(batch(contact(), delivery(1, span)))
    (row,) = [row for commit in bench.ledger.commits for row in commit.delivered]
    assert row.attempts == 6


async def test_an_event_that_is_held_stays_in_doubt_and_frees_its_permit() -> None:
    bench = Bench(looks_up=True)
    bench.events.answers[1] = [UnknownOutcome("500") for _ in range(99)]
    span = await bench.span(2)
    await bench.run(batch(contact(), delivery(1, span), delivery(2, span)))
    ((who, error),) = bench.holds.held
    assert (who, error.what, error.why) == (contact().id, EVENTS, {contact().id: "500"})
    assert bench.ledger.left().in_doubt == {position(1)}
    assert bench.slept == [30] * len(bench.events.places())
    assert set(bench.events.places()) == {1}


async def test_a_batch_that_gathered_meanwhile_follows_at_once() -> None:
    gathered: list[Batch] = []
    bench = Bench(lambda _: gathered.pop(0) if gathered else None)
    span, ann, bob = await bench.span(4), contact(1), contact(2)
    gathered += [batch(ann, delivery(2, span)), batch(ann, delivery(3, span))]
    await bench.run(batch(ann, delivery(1, span)), batch(bob, delivery(4, span)))
    assert bench.events.places() == [1, 2, 3, 4]


async def test_the_next_batch_is_asked_for_once_a_batch() -> None:
    asked: list[Contact] = []

    def next_batch(whose: Contact) -> None:
        asked.append(whose)

    bench = Bench(next_batch)
    span, ann, bob = await bench.span(2), contact(1), contact(2)
    await bench.run(batch(ann, delivery(1, span)), batch(bob, delivery(2, span)))
    assert asked == [ann, bob]


async def test_in_a_drain_the_event_in_flight_is_the_last() -> None:
    bench = Bench()
    answer = anyio.Event()
    bench.events.latency = lambda _: answer.wait()
    span = await bench.span(3)
    async with anyio.create_task_group() as group:
        group.start_soon(
            bench.run,
            batch(contact(1), delivery(1, span), delivery(2, span)),
            batch(contact(2), delivery(3, span)),
        )
        await until(lambda: bench.events.arrivals)
        bench.checkpoint.drain()
        answer.set()
    assert bench.events.places() == [1]
    assert bench.ledger.delivered == [position(1)]


async def test_a_refused_account_ends_the_sender_and_the_event_has_no_outcome() -> None:
    bench = Bench()
    bench.events.answers[1] = [AccountRefused("no")]
    span = await bench.span(1)
    send, receive = anyio.create_memory_object_stream[Batch](1)
    async with send:
        await send.send(batch(contact(), delivery(1, span)))
        async with anyio.create_task_group() as group:
            group.start_soon(bench.checkpoint.run)
            with pytest.raises(AccountRefused):
                await bench.sender.run(receive)
            group.cancel_scope.cancel()
        assert span.pending == 1
        assert send.statistics().open_receive_streams == 0


def test_the_longest_wait_doubles_up_to_the_setting() -> None:
    assert [backoff_s(attempt, 10, lambda: 1.0) for attempt in range(1, 7)] == [1, 2, 4, 8, 10, 10]


@given(st.integers(1, 10_000), st.floats(0.1, 3_600))
def test_a_wait_is_anything_from_nothing_to_the_longest(attempt: int, max_s: float) -> None:
    assert backoff_s(attempt, max_s, lambda: 0.0) == 0
    assert 0 <= backoff_s(attempt, max_s) <= max_s
