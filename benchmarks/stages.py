"""The four stages in memory: each driven alone, a step at a time, on input that was prepared before.

Here is all that the gates of the stages know of them. There is no PostgreSQL and no HTTP: the ports are
small classes that answer at once, so that what is measured is the stage, and the event loop's work for
it. The entries are rows of a generated history, kept in `entries.jsonl`, and given to a few hundred
customers, some of whom come often.

Each generator yields the steps of one run. What it does between two of them is not measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import anyio
import msgspec
from anyio.streams.memory import MemoryObjectReceiveStream
from msgspec.structs import replace

from kiva_stream.events.classifier import Classifier
from kiva_stream.model.checkpoint import Commit
from kiva_stream.model.contacts import Contact, ContactStatus
from kiva_stream.model.customers import Customer
from kiva_stream.model.dead_letters import DeadLetter
from kiva_stream.model.deliveries import Batch, Delivery
from kiva_stream.model.entries import Entry
from kiva_stream.model.ids import ContactId, CustomerId, Email, OrderId
from kiva_stream.model.outcomes import DELIVERED, Span
from kiva_stream.model.pages import ClassifiedPage
from kiva_stream.model.positions import DAY1, Position
from kiva_stream.model.site import Site
from kiva_stream.pipeline.batcher import Batcher
from kiva_stream.pipeline.checkpoint import NOTHING_LEFT, Checkpoint
from kiva_stream.pipeline.duplicates import Duplicates
from kiva_stream.pipeline.earlier_runs import EarlierRuns
from kiva_stream.pipeline.group_commit import GroupCommit
from kiva_stream.pipeline.held_contacts import HeldContacts, HeldEntries
from kiva_stream.pipeline.lanes import Lane, Lanes
from kiva_stream.pipeline.reopened_spans import ReopenedSpans
from kiva_stream.pipeline.revivals import Revivals
from kiva_stream.pipeline.sender import LookupPolicy, Sender
from kiva_stream.pipeline.watermark import Watermark
from kiva_stream.sync.held_records import HeldRecords

ENTRIES = 20_000  # of a run
PAGE = 500
CUSTOMERS = 400
PLACES = 50  # events in flight: more of them, and the caches of the processor would count for more
WINDOW = 20_000
DUPLICATE_WINDOW_S = 10

Step = Callable[[], Awaitable[object]]

_FIRST = datetime(2026, 1, 5, tzinfo=UTC)
_LAUNCHED = datetime(2025, 1, 1, tzinfo=UTC)
_SITE = Site(1, "Green Box", "America/Chicago", "USD", "https://shop.example/admin", _LAUNCHED)
_ROWS = Path(__file__).with_name("entries.jsonl")
_UNUSED: Any = None  # what is never asked for anything: nothing is looked up, and nothing was dead before


async def classifier() -> AsyncIterator[Step]:
    """Classify the entries of a page in each step."""
    whole = Classifier(_SITE)
    for page in _pages():
        yield partial(_classify, whole, page)


async def batcher() -> AsyncIterator[Step]:
    """Make batches of two classified pages in each step, and give the lanes back as a sender does."""
    lanes, whole = _batcher()
    for pages in _classified():
        yield partial(_batch, lanes, whole, pages)


async def sender() -> AsyncIterator[Step]:
    """Deliver the batches of two pages in each step, to an account that takes events at once."""
    ports: Any = _Instant()
    whole = Sender(
        ports,
        ports,
        permits=ports,
        outcomes=ports,
        holds=ports,
        unless_drained=nullcontext,
        next_batch=lambda _contact: None,
        lookups=LookupPolicy(None, 0, 0),
    )
    async for batches in _batches():
        yield partial(_send, whole, batches)


async def checkpoint() -> AsyncIterator[Step]:
    """Record the events of two pages before they are sent, and their outcomes, in each step."""
    ledger: Any = _NoLedger()
    whole = Checkpoint(
        ledger,
        DAY1,
        window=WINDOW,
        max_in_flight=PLACES,
        parked_max=WINDOW,
        commit_interval_s=0,
        sleep=_give_way,
    )
    committing = asyncio.create_task(whole.run())
    async for batches in _batches():
        deliveries = [each for batch in batches for each in batch.deliveries if each.event_line is not None]
        span = await whole.track(max(each.position for each in deliveries), len(deliveries))
        yield partial(_record, whole, [_events_of(batch, span) for batch in batches])
    whole.close()
    await committing


STAGES: Mapping[str, Callable[[], AsyncIterator[Step]]] = {
    "classifier": classifier,
    "batcher": batcher,
    "sender": sender,
    "checkpoint": checkpoint,
}


# --- steps ---


async def _classify(whole: Classifier, page: Sequence[Entry]) -> None:
    for entry in page:
        whole.classify(entry)


async def _batch(lanes: Lanes, whole: Batcher, pages: Sequence[ClassifiedPage]) -> list[Batch]:
    pages_in, pages_out = anyio.create_memory_object_stream[ClassifiedPage](len(pages))
    batches_in, batches_out = anyio.create_memory_object_stream[Batch](WINDOW)
    with pages_in, batches_out:
        for page in pages:
            pages_in.send_nowait(page)
        pages_in.close()
        await whole.run(pages_out, batches_in)
        found = _received(batches_out)
    for batch in found:
        while (more := lanes.next(batch.contact)) is not None:
            batch.deliveries.extend(more.deliveries)
    return found


async def _send(whole: Sender, batches: Sequence[Batch]) -> None:
    batches_in, batches_out = anyio.create_memory_object_stream[Batch](len(batches))
    with batches_in:
        for batch in batches:
            batches_in.send_nowait(batch)
        batches_in.close()
        await whole.run(batches_out)


async def _record(whole: Checkpoint, batches: Sequence[Batch]) -> None:
    async with asyncio.TaskGroup() as senders:
        for batch in batches:
            senders.create_task(_record_each(whole, batch))
    while whole.is_pending:  # noqa: ASYNC110  until the next commit
        await asyncio.sleep(0)


async def _record_each(whole: Checkpoint, batch: Batch) -> None:
    for delivery in batch.deliveries:
        if not whole.intents.claim_prerecorded(delivery.position):
            await whole.intents.wait_recorded(delivery.position, batch.lookahead)
        whole.record_delivered(delivery, batch.contact.id, 1)
        batch.done += 1


# --- prepared input ---


class _Row(msgspec.Struct, frozen=True):
    action: str | None
    actor_type: str | None
    admin_user: str | None
    message: str
    data: str | None
    who: str  # usual | none | erased | test
    name: str


@cache
def _pages() -> list[list[Entry]]:
    rows = [msgspec.json.decode(line, type=_Row) for line in _ROWS.read_bytes().splitlines()]
    entries = [_entry(number, rows[number % len(rows)]) for number in range(ENTRIES)]
    return [entries[first : first + PAGE] for first in range(0, ENTRIES, PAGE)]


def _entry(number: int, row: _Row) -> Entry:
    who = CustomerId(1 + int(CUSTOMERS * (number * 0.6180339887 % 1) ** 2))
    at = _FIRST + timedelta(seconds=20 * number)
    customer = _customer(who, row.name, row.who) if row.who != "none" else None
    what = row.action, row.actor_type, row.admin_user, row.message, row.data
    return Entry(Position(1_000 + number // 5, number), at, at, *what, who if customer else None, customer)


@cache
def _customer(who: CustomerId, name: str, kind: str) -> Customer:
    email = Email(f"customer{who}@example.org")
    return Customer(who, _SITE.id, email, name, is_test=kind == "test", erased=kind == "erased")


@cache
def _classified() -> list[list[ClassifiedPage]]:
    """Return all pages as classified, two at a time."""
    whole = Classifier(_SITE)
    pages = [
        ClassifiedPage(Span(page[-1].position, PAGE), [(entry, whole.classify(entry)) for entry in page])
        for page in _pages()
    ]
    return [pages[first : first + 2] for first in range(0, len(pages), 2)]


async def _batches() -> AsyncIterator[list[Batch]]:
    """Yield the batches of two pages at a time, made by the batcher."""
    lanes, whole = _batcher()
    for pages in _classified():
        yield await _batch(lanes, whole, pages)


def _events_of(batch: Batch, span: Span) -> Batch:
    """Return a batch with its events alone, as entries of a span."""
    events = [replace(each, span=span) for each in batch.deliveries if each.event_line is not None]
    return Batch(batch.contact, events)


def _batcher() -> tuple[Lanes, Batcher]:
    ports: Any = _Instant()
    lanes = Lanes(_never_parked)
    earlier = EarlierRuns(_UNUSED, Watermark(DAY1), NOTHING_LEFT)
    return lanes, Batcher(
        ports,
        contact_delivery=ports,
        outcomes=ports,
        earlier=earlier,
        reopened=ReopenedSpans(0, GroupCommit(0, _give_way)),
        revivals=Revivals(_UNUSED, _UNUSED, classify=_UNUSED, outcomes=ports, earlier=earlier),
        held=HeldEntries(
            HeldContacts(_UNUSED, HeldRecords(_UNUSED, (), 1)),
            links=ports,
            parked=ports,
            earlier=earlier,
            entries=_UNUSED,
            classify=_UNUSED,
        ),
        duplicates=Duplicates(WINDOW, DUPLICATE_WINDOW_S),
        lanes=lanes,
    )


def _never_parked(_lane: Lane) -> None:
    """Park nothing."""


def _received(batches: MemoryObjectReceiveStream[Batch]) -> list[Batch]:
    return [batches.receive_nowait() for _ in range(batches.statistics().current_buffer_used)]


# --- ports ---


class _Instant:
    """Implements the ports of the stages, as far as they need them; every answer comes at once."""

    trying = ()  # no held contact

    def __init__(self) -> None:
        self._contacts: dict[CustomerId, Contact] = {}

    async def of_customers(self, customers: Iterable[CustomerId]) -> dict[CustomerId, Contact]:
        """Return the contacts of those who have one."""
        return {each: self._contacts[each] for each in customers if each in self._contacts}

    async def link(self, customers: Mapping[CustomerId, Email]) -> dict[CustomerId, Contact]:
        """Return the contacts of all, which are linked."""
        for who, email in customers.items():
            if who not in self._contacts:
                self._contacts[who] = Contact(ContactId(who), email, ContactStatus.LINKED)
        return await self.of_customers(customers)

    def need(self, _batch: Batch) -> None:
        """Have nothing to wait for."""

    has_due = False

    def take_due(self) -> tuple[()]:
        return ()

    def mark_dirty(self, _contact: Contact, _orders: Iterable[OrderId]) -> None:
        """Need not look at a contact."""

    async def send(self, email: Email, name: str, eventdata: str, *, is_suspect: bool = False) -> None:
        """Take an event."""

    async def take_dead_letter_customer(self, _customer: CustomerId) -> bool:
        """Return that none of a customer's entries is dead."""
        return False

    def make_due(self) -> None:
        pass

    def sent(self, _contact: Contact, _position: Position) -> int:
        return 0

    def suspects(self) -> tuple[ContactId, ...]:
        """Hold no event."""
        return ()

    def request_commit(self) -> None:
        """Commit nothing."""

    def discarded(self, _contact: Contact, _position: Position) -> None:
        """Have discarded no event."""

    def record_dead(self, span: Span, dead_letter: DeadLetter, notes: Iterable[str] = ()) -> None:
        """Keep no dead letter."""

    def is_in_doubt(self, _position: Position) -> bool:
        """Know of no event that may have arrived."""
        return False

    def claim_prerecorded(self, _position: Position) -> bool:
        """Have recorded no event before its turn."""
        return False

    async def wait_recorded(self, _position: Position, _lookahead: object) -> bool:
        """Let an event be sent at once."""
        return True

    def record_delivered(self, delivery: Delivery, _contact: ContactId, _attempts: int) -> None:
        """Give an event its outcome."""
        delivery.span.resolve(DELIVERED, notes=delivery.notes)


class _NoLedger:
    """Implements Ledger as far as a first run needs it: commits at once."""

    async def commit(self, _commit: Commit) -> None:
        """Keep nothing."""


async def _give_way(_seconds: float, /) -> None:
    """Implement Sleep: let the others have their turn."""
    await asyncio.sleep(0)
