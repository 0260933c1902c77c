"""The bound of parked entries: reading pauses at it, an incident says so, and memory stays small below it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import anyio
import anyio.lowlevel
import pytest

from kiva_stream.model.checkpoint import ParkedBehind
from kiva_stream.model.entries import Entry
from kiva_stream.model.held_records import HeldKey, HeldKind
from kiva_stream.model.ids import CustomerId
from kiva_stream.model.outcomes import SYNCED, Span
from kiva_stream.model.pages import Page
from kiva_stream.model.positions import DAY1
from kiva_stream.observability.incidents import Incidents
from kiva_stream.pipeline import checkpoint as checkpoints
from kiva_stream.pipeline.group_commit import GroupCommit
from kiva_stream.pipeline.leftovers import LeftoversFirst
from kiva_stream.pipeline.parked_bound import TELL_EVERY_S, ParkedBound, sentence
from kiva_stream.pipeline.producer import produce
from kiva_stream.pipeline.reopened_spans import ReopenedSpans
from tests.fakes.source import FakeEntries, FakeLog
from tests.fakes.state_ledger import FakeLedger
from tests.support.entries import customer, delivery, entry, position, up_to
from tests.support.waiting import no_time, until
from tests.unit.pipeline.builders import CONTACT, make_checkpoint, running

ANN = customer(1)
BYTES = 40  # of an entry that was parked and left; its position alone would take more


def entries(count: int) -> Sequence[Entry]:
    return [entry(place, ANN) for place in range(1, count + 1)]


def parked(*places: int) -> FakeLedger:
    """Return a ledger at whose watermark, DAY1, the entries at these places are parked."""
    ledger = FakeLedger()
    ledger.parked = dict.fromkeys(map(position, places), CONTACT)
    return ledger


async def test_reading_pauses_while_so_many_are_parked_and_goes_on_when_fewer_are() -> None:
    checkpoint = make_checkpoint(parked(-5, -6), parked_max=2)
    log, (send, receive) = FakeLog(entries(2), page_rows=1), anyio.create_memory_object_stream[Page](9)
    async with running(checkpoint), receive, anyio.create_task_group() as group:

        async def read() -> None:
            await produce(log, checkpoint, send, after=DAY1, mark=up_to(2))

        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        assert send.statistics().current_buffer_used == 0

        span = checkpoint.reopened.reopen(position(-5))
        assert span is not None
        span.resolve(SYNCED)
        checkpoint.request_commit()
        await until(lambda: send.statistics().current_buffer_used == 2)


async def test_what_an_earlier_run_had_read_is_read_again_though_as_many_are_parked() -> None:
    checkpoint = make_checkpoint(parked(1, 2), parked_max=2)
    assert not checkpoint.is_full
    await checkpoint.track(position(2), 2)
    assert checkpoint.is_full


async def test_what_is_reopened_waits_until_few_enough_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "MOST_IN_MEMORY", 1)
    ledger = parked(1)
    checkpoint, log = make_checkpoint(ledger), FakeLog(entries(2))
    span = checkpoint.reopened.reopen(position(2))
    send, receive = anyio.create_memory_object_stream[Page](9)
    async with running(checkpoint), receive, anyio.create_task_group() as group:

        async def read() -> None:
            leftovers = LeftoversFirst(log, FakeEntries(log), parked=ledger)
            await produce(leftovers, checkpoint, send, after=position(2), mark=up_to(2))

        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        assert send.statistics().current_buffer_used == 0
        assert span is not None
        ledger.parked[position(2)] = CONTACT
        span.resolve(SYNCED)
        checkpoint.request_commit()
        await until(lambda: send.statistics().current_buffer_used == 1)


async def test_a_parked_entry_that_was_left_takes_no_memory() -> None:
    count = 5_000
    spans, page = ReopenedSpans(0, GroupCommit(0.02, no_time)), Span(position(count), count)
    _park_and_leave(spans, range(1, 100), page)  # which makes what is made once
    tracemalloc.start()
    try:
        _park_and_leave(spans, range(100, count), page)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert spans.parked_count == count - 1
    assert kept / count < BYTES


def _park_and_leave(spans: ReopenedSpans, places: range, page: Span) -> None:
    for place in places:
        spans.park(delivery(place, page), CONTACT)
        spans.leave(position(place), CONTACT)
    spans.take_rows([])


# The incident


async def test_the_incident_names_who_most_are_parked_of_and_ends_when_fewer_are() -> None:
    now, is_full, incidents = 0.0, True, Incidents()
    ledger = parked(1, 2, 3)
    bound = ParkedBound(ledger, most=3, is_full=lambda: is_full, incidents=incidents, clock=lambda: now)
    await bound.look()
    (incident,) = incidents.all()
    assert incident.kind == "parked"
    assert "3 entries are parked, as many as state.parked_max_entries allows" in incident.why
    assert f"customer {CONTACT} (3 entries)" in incident.why

    ledger.parked = {}
    await bound.look()
    assert incidents.all() == [incident], "the sentence is renewed once a minute"
    now = TELL_EVERY_S
    await bound.look()
    assert incidents.all() != [incident]
    is_full = False
    await bound.look()
    assert incidents.all() == []


def test_the_sentence_names_what_is_held_of_each() -> None:
    order, event = HeldKey(HeldKind.ORDER, 5), HeldKey(HeldKind.EVENT, 9)
    said = sentence(
        1_000_000,
        [
            ParkedBehind(999_998, [CustomerId(17), CustomerId(18)], order),
            ParkedBehind(1, [CustomerId(19)], event),
            ParkedBehind(1, [], None),
        ],
    )
    assert "1,000,000 entries are parked" in said
    assert "customer 17, 18 (999,998 entries behind order:5)" in said
    assert "customer 19 (1 entry behind event); no contact yet (1 entry)" in said
