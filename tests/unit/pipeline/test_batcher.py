"""The batcher: which entries are duplicates, which outcome is given at once, and what waits in which lane."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kiva_stream.errors import CheckpointError
from kiva_stream.model.classifications import Classification, Noise, Reject, SyncOnly
from kiva_stream.model.contacts import ContactStatus
from kiva_stream.model.customers import Customer
from kiva_stream.model.deliveries import Batch, Delivery
from kiva_stream.model.entries import Entry
from kiva_stream.model.ids import ContactId, Email
from kiva_stream.model.outcomes import DELIVERED, Outcome, Reason, Span, tally_of
from kiva_stream.model.pages import ClassifiedPage
from kiva_stream.model.positions import DAY1, Position
from kiva_stream.pipeline.batcher import Batcher
from kiva_stream.pipeline.checkpoint import Checkpoint
from kiva_stream.pipeline.classification import classifier_of
from kiva_stream.pipeline.duplicates import Duplicates
from kiva_stream.pipeline.lanes import Lanes
from kiva_stream.pipeline.revivals import Revivals
from tests.fakes import (
    SITE,
    FakeContactDelivery,
    FakeEntries,
    FakeLedger,
    FakeLetters,
    FakeLinks,
    FakeLog,
    contact,
    customer,
    delivery,
    entry,
    event,
    moment,
    no_time,
    place_of,
    position,
)

ANN, BOB = customer(1), customer(2)
Classifications = list[tuple[Entry, Classification]]


def repeats(*entries: Entry, window: int = 100, within_s: float = 2) -> list[bool]:
    """Return of each entry, all of them events, whether it is a repeat."""
    duplicates = Duplicates(window, within_s)
    return [duplicates.is_repeat(each) for each in entries]


def same(place: int, second: float, **changes: object) -> Entry:
    """Return an entry of Ann that differs from others like it in place and time only, but for the changes."""
    return replace(entry(place, ANN, message="Logged out", inserted_at=moment(second)), **changes)


@pytest.mark.parametrize(
    ("apart_s", "is_duplicate"),
    [(0, True), (1.999, True), (2, True), (2.001, False), (-2, True), (-2.001, False)],
)
def test_the_same_entry_within_two_seconds_of_inserted_at_is_a_duplicate(
    apart_s: float, is_duplicate: bool
) -> None:
    assert repeats(same(1, 10), same(2, 10 + apart_s)) == [False, is_duplicate]


@pytest.mark.parametrize(
    "change",
    [
        {"customer_id": BOB.id, "customer": BOB},
        {"action": "login.cookie"},
        {"message": "Logged out."},
        {"data": "{}"},
    ],
)
def test_an_entry_of_another_customer_action_message_or_data_is_no_duplicate(
    change: dict[str, object],
) -> None:
    assert repeats(same(1, 10), same(2, 10, **change)) == [False, False]


def test_when_it_occurred_and_who_did_it_do_not_make_a_difference() -> None:
    later = same(2, 10, occurred_at=moment(99), actor_type="admin", admin_user="wayne")
    assert repeats(same(1, 10), later) == [False, True]


def test_each_of_a_row_of_repeats_is_compared_with_the_one_before_it() -> None:
    assert repeats(same(1, 10), same(2, 11.5), same(3, 13), same(4, 15.1)) == [False, True, True, False]


@pytest.mark.parametrize(("between", "is_duplicate"), [(2, True), (3, False)])
@pytest.mark.parametrize("kind", ["events", "others"])
def test_only_the_window_of_positions_before_an_entry_counts(
    between: int, is_duplicate: bool, kind: str
) -> None:
    duplicates = Duplicates(3, 2)
    duplicates.is_repeat(same(1, 10))
    for place in range(2, 2 + between):
        if kind == "events":
            duplicates.is_repeat(entry(place, BOB))
        else:
            duplicates.pass_over()
    assert duplicates.is_repeat(same(9, 10)) == is_duplicate


@given(
    st.lists(st.tuples(st.sampled_from("abc "), st.integers(0, 8)), max_size=25),
    st.integers(1, 6),
)
def test_duplicates_are_those_of_the_definition(rows: list[tuple[str, int]], window: int) -> None:
    """A blank is an entry that is no event; seconds may go back, as web nodes' clocks do not agree."""
    duplicates = Duplicates(window, 2)
    for at, (text, second) in enumerate(rows):
        if text == " ":
            duplicates.pass_over()
            continue
        earlier = rows[max(0, at - window) : at]
        expected = any(each == text and abs(second - then) <= 2 for each, then in earlier)
        assert duplicates.is_repeat(same(at + 1, second, message=text)) == expected


def test_what_fell_out_of_the_window_is_forgotten() -> None:
    duplicates = Duplicates(3, 2)
    for place in range(1, 1_000):
        duplicates.is_repeat(entry(place, ANN))
    assert len(duplicates._seen) <= 4
    assert len(duplicates._order) <= 4


class Lane:
    """Lanes with one contact, and the places of what is in its batches."""

    def __init__(self) -> None:
        self.lanes = Lanes(never_parked)
        self.contact = contact()

    def add(self, *places: int) -> None:
        for place in places:
            self.lanes.add(self.contact, delivery(place, Span(position(99), 99)))

    def look(self, *places: int) -> None:
        """Have the contact looked at, which no entry asks for."""
        for place in places:
            one = replace(delivery(place, Span(position(99), 99)), line=None, is_entry=False)
            self.lanes.add(self.contact, one)

    def ready(self) -> list[list[int]]:
        return [places(each) for each in self.lanes.ready()]

    def next(self) -> list[int] | None:
        batch = self.lanes.next(self.contact)
        return places(batch) if batch else None


def places(batch: Batch) -> list[int]:
    return [place_of(each.position) for each in batch.deliveries]


def test_what_waits_for_one_contact_is_one_batch_in_log_order() -> None:
    lane = Lane()
    lane.add(1, 2, 5)
    assert lane.ready() == [[1, 2, 5]]
    assert lane.ready() == []


def test_a_lane_has_at_most_one_batch_at_the_sender() -> None:
    lane = Lane()
    lane.add(1)
    assert lane.ready() == [[1]]
    lane.add(2, 3)
    assert lane.ready() == []
    assert lane.next() == [2, 3]
    lane.add(4)
    assert lane.ready() == []
    assert lane.next() == [4]
    assert lane.next() is None
    lane.add(5)
    assert lane.ready() == [[5]]


def test_looks_at_a_contact_that_waits_do_not_pile_up_and_entries_keep_their_places() -> None:
    lane = Lane()
    lane.add(1)
    lane.ready()
    lane.look(2, 3)
    lane.add(4)
    lane.look(5, 6, 7)
    assert lane.next() == [3, 4, 7]


def test_lanes_of_different_contacts_do_not_wait_for_each_other() -> None:
    lanes, span = Lanes(never_parked), Span(position(9), 9)
    ann, bob = contact(1), contact(2)
    lanes.add(ann, delivery(1, span))
    lanes.ready()
    lanes.add(ann, delivery(2, span))
    lanes.add(bob, delivery(3, span))
    assert [(each.contact, places(each)) for each in lanes.ready()] == [(bob, [3])]


def never_parked(_delivery: Delivery, _contact: ContactId) -> None:
    """Implement the parking of lanes: there is no room."""


class Parking:
    """Keeps entries aside, up to a bound; a parked delivery has a span of its own."""

    def __init__(self, most: int = 99) -> None:
        self.most = most
        self.parked: list[int] = []

    def __call__(self, one: Delivery, _contact: ContactId) -> Delivery | None:
        place = place_of(one.position)
        if place in self.parked:
            return one
        if len(self.parked) >= self.most:
            return None
        self.parked.append(place)
        return replace(one, span=Span(one.position, 1))


def waiting_lane(parking: Parking, *places: int) -> tuple[Lanes, Batch]:
    """Return lanes of one contact whose batch is to be parked from the moment 10 on."""
    lanes, span = Lanes(parking), Span(position(99), 99)
    for place in places:
        lanes.add(contact(), delivery(place, span))
    (batch,) = lanes.ready()
    batch.park_at = 10.0
    return lanes, batch


def test_a_lane_whose_sender_waits_long_is_parked_with_all_that_comes_after() -> None:
    lanes, batch = waiting_lane(parking := Parking(), 1, 2)
    lanes.add(contact(), delivery(3, Span(position(99), 99)))
    lanes.park_waiting(9.9)
    assert parking.parked == []
    lanes.park_waiting(10.0)
    lanes.add(contact(), delivery(4, Span(position(99), 99)))
    assert parking.parked == [1, 2, 3, 4]
    assert batch.current is not None
    assert batch.current.span.size == 1


def test_what_comes_after_the_wait_is_over_is_not_parked() -> None:
    lanes, batch = waiting_lane(parking := Parking(), 1, 2)
    lanes.park_waiting(10.0)
    batch.done, batch.park_at = 1, 20.0
    lanes.add(contact(), delivery(3, Span(position(99), 99)))
    assert parking.parked == [1, 2]
    lanes.park_waiting(20.0)
    assert parking.parked == [1, 2, 3]


def test_when_there_is_no_room_nothing_later_is_parked_before_what_came_earlier() -> None:
    lanes, _ = waiting_lane(parking := Parking(most=1), 1, 2)
    lanes.park_waiting(10.0)
    parking.most = 2
    lanes.add(contact(), delivery(3, Span(position(99), 99)))
    assert parking.parked == [1]
    parking.most = 99
    lanes.park_waiting(10.0)
    assert parking.parked == [1, 2, 3]


def test_a_batch_that_no_sender_has_taken_yet_is_not_parked() -> None:
    lanes, batch = waiting_lane(parking := Parking(), 1)
    batch.park_at = math.inf
    lanes.park_waiting(1e9)
    assert parking.parked == []


async def test_a_lane_is_idle_when_its_own_batch_came_back_whatever_others_do() -> None:
    lanes = Lanes(never_parked)
    ann, bob = contact(1), contact(2)
    for each in (ann, bob):
        lanes.add(each, delivery(1, Span(position(9), 9)))
    lanes.ready()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(lanes.idle, {ann.id})
            await anyio.wait_all_tasks_blocked()
            lanes.next(ann)
    with anyio.move_on_after(0.05) as patience:
        await lanes.idle({ann.id, bob.id})
    assert patience.cancelled_caught


class Bench:
    """A batcher with what stands around it. Contacts are linked unless said otherwise."""

    def __init__(
        self,
        status: ContactStatus = ContactStatus.LINKED,
        settled: Mapping[Position, Outcome] | None = None,
        window: int = 100,
    ) -> None:
        self.links = FakeLinks(status)
        self.ledger = FakeLedger()
        self.ledger.earlier = dict(settled or {})
        self.checkpoint = Checkpoint(
            self.ledger,
            DAY1,
            self.ledger.left(),
            window=100,
            max_in_flight=9,
            commit_interval_s=0,
            sleep=no_time,
        )
        self.lanes = Lanes(self.checkpoint.park)
        self.log = FakeLog([])
        self.dead_letters = FakeLetters(self.ledger)
        self.arrivals = FakeContactDelivery()
        revivals = Revivals(self.dead_letters, FakeEntries(self.log), classifier_of(SITE), self.checkpoint)
        self.batcher = Batcher(
            self.links, self.arrivals, self.checkpoint, revivals, Duplicates(window, 2), self.lanes
        )

    async def run(self, *pages: Classifications) -> list[Batch]:
        """Give pages to the batcher; return the batches that it sends on, once all is committed."""
        send, receive = anyio.create_memory_object_stream[ClassifiedPage](len(pages))
        batches_in, batches_out = anyio.create_memory_object_stream[Batch](100)
        async with send:
            for page in pages:
                span = await self.checkpoint.track(page[-1][0].position, len(page))
                await send.send(ClassifiedPage(span, page))
        async with anyio.create_task_group() as group, batches_out:
            group.start_soon(self.checkpoint.run)
            await self.batcher.run(receive, batches_in)
            self.checkpoint.close()
            sent = [batch async for batch in batches_out]
        return sent  # noqa: RET504  mypy: the task group could swallow an exception


def events(rows: Iterable[Entry]) -> Classifications:
    return [(row, event(place_of(row.position))) for row in rows]


async def test_events_are_batched_by_contact_in_log_order() -> None:
    rows = [entry(place, ANN if place % 3 else BOB) for place in range(1, 8)]
    batches = await Bench().run(events(rows))
    assert [(batch.contact.email, places(batch)) for batch in batches] == [
        (ANN.email, [1, 2, 4, 5, 7]),
        (BOB.email, [3, 6]),
    ]


async def test_a_delivery_says_what_its_event_says() -> None:
    classification = event(1, notes=("cut",))
    (batch,) = await Bench().run([(entry(1, ANN, notes=("ambiguous",)), classification)])
    (one,) = batch.deliveries
    assert (one.position, one.customer, one.line, one.eventdata) == (
        position(1),
        ANN.id,
        classification.line,
        classification.eventdata,
    )
    assert one.notes == ("ambiguous", "cut")


async def test_two_customers_of_one_address_share_a_lane() -> None:
    twin = customer(2, email=ANN.email)
    batches = await Bench().run(events([entry(1, ANN), entry(2, twin), entry(3, ANN)]))
    assert [places(batch) for batch in batches] == [[1, 2, 3]]


async def test_what_comes_while_the_sender_has_a_batch_waits_in_its_lane() -> None:
    bench = Bench()
    (batch,) = await bench.run(events([entry(1, ANN)]), events([entry(2, ANN), entry(3, ANN)]))
    assert places(batch) == [1]
    waiting = bench.lanes.next(batch.contact)
    assert waiting is not None
    assert places(waiting) == [2, 3]


async def test_noise_and_rejects_get_their_outcome_at_once() -> None:
    bench = Bench()
    batches = await bench.run(
        [
            (entry(1, ANN), Noise(notes=("unknown_text",))),
            (entry(2, ANN, notes=("odd",)), Noise(Reason.STAFF_LOGIN)),
            (entry(3, ANN), Reject(Reason.NO_EMAIL, ("bad_data",))),
        ]
    )
    assert batches == []
    assert bench.ledger.tally() == {"skipped noise": 1, "skipped staff_login": 1, "dead no_email": 1}
    assert bench.ledger.tally("note") == {"unknown_text": 1, "odd": 1, "bad_data": 1}
    (dead_letter,) = [dead_letter for commit in bench.ledger.commits for dead_letter in commit.dead]
    assert (dead_letter.position, dead_letter.why, dead_letter.customer) == (
        position(3),
        Reason.NO_EMAIL,
        ANN.id,
    )
    assert (dead_letter.attempts, dead_letter.reply) == (0, "")


async def test_nobody_gets_a_contact_for_noise_or_a_reject() -> None:
    bench = Bench()
    await bench.run([(entry(1, ANN), Noise()), (entry(2, BOB), Reject(Reason.WRONG_SITE))])
    assert bench.links.by_customer == {}


async def test_sync_only_of_a_linked_contact_is_done_at_once() -> None:
    bench = Bench()
    assert await bench.run([(entry(1, ANN, notes=("odd",)), SyncOnly(("rare",)))]) == []
    assert bench.ledger.tally() == {"synced": 1}
    assert bench.ledger.tally("note") == {"odd": 1, "rare": 1}


@pytest.mark.parametrize("status", [ContactStatus.NEW, ContactStatus.REJECTED])
async def test_sync_only_of_a_contact_that_is_not_linked_waits_for_it(status: ContactStatus) -> None:
    bench = Bench(status)
    (batch,) = await bench.run([(entry(1, ANN, notes=("odd",)), SyncOnly(("rare",)))])
    (one,) = batch.deliveries
    assert (one.line, one.notes) == (None, ("odd", "rare"))
    assert bench.ledger.tally() == {}


async def test_a_duplicate_is_skipped_and_the_earlier_one_is_the_event() -> None:
    bench = Bench()
    (batch,) = await bench.run(events([same(1, 10), same(2, 11)]))
    assert [(each.position, each.inserted_at) for each in batch.deliveries] == [(position(1), moment(10))]
    for each in batch.deliveries:
        each.span.resolve(DELIVERED)
    counts = tally_of(batch.deliveries[0].span.counts)
    assert counts["outcome", "skipped duplicate"] == 1
    assert counts["outcome", "delivered"] == 1


async def test_sync_only_and_noise_are_never_duplicates() -> None:
    bench = Bench()
    rows: Classifications = [(same(1, 10), SyncOnly()), (same(2, 10), SyncOnly()), (same(3, 10), Noise())]
    await bench.run(rows)
    assert bench.ledger.tally() == {"synced": 2, "skipped noise": 1}


async def test_an_entry_before_the_checkpoint_makes_a_later_one_a_duplicate_and_is_not_sent() -> None:
    bench = Bench()
    bench.batcher.remember(events([same(1, 10)]))
    assert await bench.run(events([same(2, 11)])) == []
    assert bench.ledger.tally() == {"skipped duplicate": 1}


async def test_entries_before_the_checkpoint_take_their_places_in_the_window() -> None:
    bench = Bench(window=2)
    bench.batcher.remember([*events([same(1, 10)]), (entry(2, ANN), Noise()), (entry(3, ANN), Noise())])
    (batch,) = await bench.run(events([same(4, 10)]))
    assert places(batch) == [4]


async def test_what_an_earlier_run_settled_keeps_its_outcome_and_goes_nowhere() -> None:
    dead = Outcome("dead", Reason.EVENT_REJECTED)
    bench = Bench(settled={position(1): DELIVERED, position(2): dead, position(3): DELIVERED})
    rows: Classifications = [
        (entry(1, ANN, notes=("odd",)), event(1, notes=("cut",))),
        (entry(2, ANN), event(2)),
        (entry(3, ANN), Noise(Reason.ERASED)),  # erased since it was delivered
    ]
    (look,) = await bench.run(rows)  # at the contact of whom is erased
    assert [delivery.is_entry for delivery in look.deliveries] == [False]
    assert bench.ledger.tally() == {"delivered": 2, "dead event_rejected": 1}
    assert bench.ledger.tally("event") == {"7": 1}
    assert bench.ledger.tally("note") == {"odd": 1, "cut": 1}
    assert bench.ledger.delivered == []
    assert bench.ledger.dead == {}


async def test_a_settled_entry_still_makes_a_later_one_a_duplicate() -> None:
    bench = Bench(settled={position(1): DELIVERED})
    assert await bench.run(events([same(1, 10), same(2, 11)])) == []
    assert bench.ledger.tally() == {"delivered": 1, "skipped duplicate": 1}


async def test_a_page_without_deliveries_is_committed_without_waiting_for_another() -> None:
    bench = Bench()
    span = await bench.checkpoint.track(position(1), 1)
    send, receive = anyio.create_memory_object_stream[ClassifiedPage](1)
    batches_in, batches_out = anyio.create_memory_object_stream[Batch](1)
    async with anyio.create_task_group() as group, send, batches_out:
        group.start_soon(bench.checkpoint.run)
        group.start_soon(bench.batcher.run, receive, batches_in)
        await send.send(ClassifiedPage(span, [(entry(1, ANN), Noise())]))
        await anyio.wait_all_tasks_blocked()
        assert bench.ledger.watermark == position(1)
        group.cancel_scope.cancel()


@pytest.mark.parametrize("ended", [ContactStatus.LINKED, ContactStatus.REJECTED])
async def test_an_address_that_is_corrected_while_its_import_is_out_is_linked_when_that_has_ended(
    ended: ContactStatus,
) -> None:
    bench = Bench(ContactStatus.NEW)
    corrected = replace(ANN, email=Email("ann@example.org"))
    send, receive = anyio.create_memory_object_stream[ClassifiedPage](2)
    batches_in, batches_out = anyio.create_memory_object_stream[Batch](2)
    async with anyio.create_task_group() as group, send, batches_out:
        group.start_soon(bench.batcher.run, receive, batches_in)
        for place, who in ((1, ANN), (2, corrected)):
            span = await bench.checkpoint.track(position(place), 1)
            await send.send(ClassifiedPage(span, events([entry(place, who)])))
        first = await batches_out.receive()
        await anyio.wait_all_tasks_blocked()
        assert [each.email for each in bench.links.by_id.values()] == [ANN.email]
        assert bench.arrivals.moves == []

        first.contact.status = ended
        assert bench.lanes.next(first.contact) is None
        second = await batches_out.receive()
    if ended is ContactStatus.LINKED:
        assert bench.arrivals.moves == [{ANN.id: corrected.email}]
        assert second.contact is first.contact
    else:
        assert bench.arrivals.moves == []
        assert second.contact.email == corrected.email
    assert (places(first), places(second)) == ([1], [2])


async def test_nobody_waits_for_the_lanes_when_no_address_is_another_one() -> None:
    bench = Bench(ContactStatus.NEW)
    batches = await bench.run(events([entry(1, ANN)]), events([entry(2, ANN), entry(3, BOB)]))
    assert [places(batch) for batch in batches] == [[1], [3]]


# --- the erased ---


@pytest.mark.parametrize("row", [None, replace(ANN, erased=True)], ids=["gone", "soft-deleted"])
async def test_the_contact_of_one_who_is_erased_is_looked_at_once_a_page_and_no_outcome_counts_it(
    row: Customer | None,
) -> None:
    bench = Bench()
    await bench.links.link({ANN.id: ANN.email or Email("")})
    classify = classifier_of(SITE)
    rows = [entry(place, ANN, customer=row) for place in range(1, 5)]
    first, second = (
        [(each, classify(each)) for each in rows[:3]],
        [(each, classify(each)) for each in rows[3:]],
    )
    (batch,) = await bench.run(first, second)
    (look,) = batch.deliveries
    assert (batch.contact.email, look.is_entry, look.line) == (ANN.email, False, None)
    assert bench.arrivals.dirty == {batch.contact.id: set()}
    look.span.resolve(DELIVERED)
    assert bench.ledger.tally() == {"skipped erased": 4}
    waiting = bench.lanes.next(batch.contact)
    assert waiting is not None
    assert [each.is_entry for each in waiting.deliveries] == [False]


async def test_one_who_is_erased_and_never_had_a_contact_gets_none() -> None:
    bench = Bench()
    assert await bench.run([(entry(1, ANN, customer=None), Noise(Reason.ERASED))]) == []
    assert bench.links.by_customer == {}
    assert bench.arrivals.dirty == {}
    assert bench.ledger.tally() == {"skipped erased": 1}


async def test_links_that_cannot_be_read_end_the_batcher_and_close_its_streams() -> None:
    bench = Bench()
    bench.links.fails = True
    send, receive = anyio.create_memory_object_stream[ClassifiedPage](1)
    batches_in, batches_out = anyio.create_memory_object_stream[Batch](1)
    span = await bench.checkpoint.track(position(1), 1)
    async with send, batches_out:
        await send.send(ClassifiedPage(span, events([entry(1, ANN)])))
        with pytest.raises(CheckpointError):
            await bench.batcher.run(receive, batches_in)
        with pytest.raises(anyio.EndOfStream):
            batches_out.receive_nowait()
