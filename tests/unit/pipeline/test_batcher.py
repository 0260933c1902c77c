"""The batcher: which entries are duplicates, which outcome is given at once, and what waits in which lane."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import anyio
import pytest
from msgspec.structs import replace

from kiva_stream.errors import CheckpointError
from kiva_stream.model.classifications import Classification, Noise, Reject, SyncOnly
from kiva_stream.model.contacts import ContactStatus
from kiva_stream.model.customers import Customer
from kiva_stream.model.deliveries import Batch
from kiva_stream.model.entries import Entry, ReopenedEntries
from kiva_stream.model.ids import Email
from kiva_stream.model.outcomes import DELIVERED, Outcome, Reason, Span, tally_of
from kiva_stream.model.pages import ClassifiedPage
from kiva_stream.model.positions import Position
from kiva_stream.pipeline.batcher import Batcher
from kiva_stream.pipeline.classification import classifier_of
from kiva_stream.pipeline.duplicates import Duplicates
from kiva_stream.pipeline.held_contacts import HeldContacts, HeldEntries
from kiva_stream.pipeline.lanes import Lanes
from kiva_stream.pipeline.parking import Parking
from kiva_stream.pipeline.revivals import Revivals
from tests.fakes.source import FakeEntries, FakeLog
from tests.fakes.stages import FakeContactDelivery
from tests.fakes.state_contacts import FakeLinks
from tests.fakes.state_held import held_records
from tests.fakes.state_ledger import FakeDeadLetters, FakeLedger
from tests.support.entries import SITE, customer, entry, event, moment, place_of, position
from tests.unit.pipeline.builders import make_checkpoint, places, same

ANN, BOB = customer(1), customer(2)
Classifications = list[tuple[Entry, Classification]]


class Bench:
    """A batcher with what stands around it. Contacts are linked unless said otherwise.

    `earlier` are the outcomes that an earlier run left.
    """

    def __init__(
        self,
        status: ContactStatus = ContactStatus.LINKED,
        earlier: Mapping[Position, Outcome] | None = None,
        window: int = 100,
    ) -> None:
        self.links = FakeLinks(status)
        self.ledger = FakeLedger()
        self.ledger.earlier = dict(earlier or {})
        self.checkpoint = make_checkpoint(self.ledger, max_in_flight=9, commit_interval_s=0)
        parking, entries = Parking(self.checkpoint.reopened, parked_max=9), FakeEntries(FakeLog([]))
        self.held = HeldContacts(parking, held_records())
        self.lanes = Lanes(parking.park_behind, self.held.leave)
        self.duplicates = Duplicates(window, 2)
        self.contact_delivery = FakeContactDelivery()
        self.batcher = Batcher(
            self.links,
            contact_delivery=self.contact_delivery,
            outcomes=self.checkpoint,
            earlier=self.checkpoint.earlier,
            reopened=self.checkpoint.reopened,
            revivals=Revivals(
                FakeDeadLetters(self.ledger),
                entries,
                classify=classifier_of(SITE),
                outcomes=self.checkpoint,
                earlier=self.checkpoint.earlier,
            ),
            held=HeldEntries(
                self.held,
                links=self.links,
                parked=self.checkpoint,
                earlier=self.checkpoint.earlier,
                entries=entries,
                classify=classifier_of(SITE),
            ),
            duplicates=self.duplicates,
            lanes=self.lanes,
        )

    def remember(self, rows: Classifications) -> None:
        """Have entries before the checkpoint known for duplicates."""
        for row, classification in rows:
            self.duplicates.compare_and_add(row, classification)

    async def run(
        self, *pages: Classifications, reopened: Mapping[Position, Reason | None] | None = None
    ) -> list[Batch]:
        """Give pages to the batcher; return the batches that it sends on, once all is committed.

        With `reopened`, the pages are of entries outside the log's order.
        """
        send, receive = anyio.create_memory_object_stream[ClassifiedPage](len(pages))
        batches_in, batches_out = anyio.create_memory_object_stream[Batch](100)
        async with send:
            for page in pages:
                if reopened is None:
                    span = await self.checkpoint.track(page[-1][0].position, len(page))
                    await send.send(ClassifiedPage(span, page))
                else:
                    entries = ReopenedEntries(reopened, [row for row, _ in page])
                    span = Span(page[-1][0].position, 0)
                    await send.send(ClassifiedPage(span, page, reopened=entries))
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
    assert (one.position, one.customer, one.event_line, one.eventdata) == (
        position(1),
        ANN.id,
        classification.event_line,
        classification.eventdata,
    )
    assert one.notes == ("ambiguous", "cut")


async def test_two_customers_of_one_address_share_a_lane() -> None:
    twin = customer(2, email=ANN.email)
    batches = await Bench().run(events([entry(1, ANN), entry(2, twin), entry(3, ANN)]))
    assert [places(batch) for batch in batches] == [[1, 2, 3]]


async def test_deliveries_that_come_while_the_sender_has_a_batch_wait_in_their_lane() -> None:
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


async def test_noise_and_rejects_create_no_contact() -> None:
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
    assert (one.event_line, one.notes) == (None, ("odd", "rare"))
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
    bench.remember(events([same(1, 10)]))
    assert await bench.run(events([same(2, 11)])) == []
    assert bench.ledger.tally() == {"skipped duplicate": 1}


async def test_entries_before_the_checkpoint_count_as_positions_of_the_window() -> None:
    bench = Bench(window=2)
    bench.remember([*events([same(1, 10)]), (entry(2, ANN), Noise()), (entry(3, ANN), Noise())])
    (batch,) = await bench.run(events([same(4, 10)]))
    assert places(batch) == [4]


async def test_an_entry_with_an_outcome_of_an_earlier_run_keeps_it_and_is_not_sent() -> None:
    dead = Outcome("dead", Reason.EVENT_REJECTED)
    bench = Bench(earlier={position(1): DELIVERED, position(2): dead, position(3): DELIVERED})
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


async def test_an_entry_with_an_earlier_outcome_still_makes_a_later_one_a_duplicate() -> None:
    bench = Bench(earlier={position(1): DELIVERED})
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
        assert bench.contact_delivery.moves == []

        first.contact.set_status(ended)
        assert bench.lanes.next(first.contact) is None
        second = await batches_out.receive()
    if ended is ContactStatus.LINKED:
        assert bench.contact_delivery.moves == [{ANN.id: corrected.email}]
        assert second.contact is first.contact
    else:
        assert bench.contact_delivery.moves == []
        assert second.contact.email == corrected.email
    assert (places(first), places(second)) == ([1], [2])


async def test_the_batcher_waits_for_no_lane_when_no_address_changed() -> None:
    bench = Bench(ContactStatus.NEW)
    batches = await bench.run(events([entry(1, ANN)]), events([entry(2, ANN), entry(3, BOB)]))
    assert [places(batch) for batch in batches] == [[1], [3]]


# --- the erased ---


@pytest.mark.parametrize("row", [None, replace(ANN, erased=True)], ids=["gone", "soft-deleted"])
async def test_the_contact_of_an_erased_customer_is_checked_once_a_page_and_has_no_outcome(
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
    assert (batch.contact.email, look.is_entry, look.event_line) == (ANN.email, False, None)
    assert bench.contact_delivery.dirty == {batch.contact.id: set()}
    look.span.resolve(DELIVERED)
    assert bench.ledger.tally() == {"skipped erased": 4}
    waiting = bench.lanes.next(batch.contact)
    assert waiting is not None
    assert [each.is_entry for each in waiting.deliveries] == [False]


async def test_an_erased_customer_who_never_had_a_contact_gets_none() -> None:
    bench = Bench()
    assert await bench.run([(entry(1, ANN, customer=None), Noise(Reason.ERASED))]) == []
    assert bench.links.by_customer == {}
    assert bench.contact_delivery.dirty == {}
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


# Contacts that are tried again


async def test_a_contact_that_is_asked_for_is_checked_though_no_entry_is_of_it() -> None:
    bench = Bench()
    (bob,) = (await bench.links.link({BOB.id: BOB.email or Email("")})).values()
    bench.contact_delivery.due = {bob.id}
    batches = await bench.run(events([entry(1, ANN)]))
    of_bob = [delivery for batch in batches if batch.contact.id == bob.id for delivery in batch.deliveries]
    assert [delivery.event_line for delivery in of_bob] == [None]
    assert bob.id in bench.contact_delivery.dirty


@pytest.mark.parametrize(("reason", "expected"), [(Reason.EVENT_REJECTED, [(ANN.email, True)]), (None, [])])
async def test_a_replay_has_its_contact_tried_again_and_a_parked_entry_has_not(
    reason: Reason | None, expected: list[tuple[Email, bool]]
) -> None:
    bench = Bench()
    await bench.run(events([entry(1, ANN)]), reopened={position(1): reason})
    assert bench.contact_delivery.retried == expected


async def test_only_refused_contacts_of_a_page_of_the_log_are_tried_again() -> None:
    bench = Bench()
    await bench.links.link({ANN.id: ANN.email or Email("")})
    bench.links.by_customer[ANN.id].set_status(ContactStatus.REJECTED, Reason.AC_REJECTED)
    await bench.run(events([entry(3, ANN), entry(4, BOB)]))
    assert bench.contact_delivery.retried == [(ANN.email, False)]
