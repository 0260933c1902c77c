"""Neighbours of a stage in memory: see `ports/stages.py`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import anyio
import anyio.lowlevel

from kiva_stream.errors import AccountRefused, RecordsHeld
from kiva_stream.model.contacts import Contact, ContactStatus
from kiva_stream.model.deliveries import Batch, Need
from kiva_stream.model.held_records import HeldKind
from kiva_stream.model.ids import ContactId, CustomerId, Email, OrderId
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import Position
from kiva_stream.sync.held_records import DueWrites, HeldRecords
from tests.fakes.destination_events import Arrival, FakeEvents
from tests.fakes.state_held import held_records
from tests.support.entries import place_in


class FakeOrderDelivery:
    """Implements OrderDelivery: keeps the ids of each call. `silent` orders get no answer."""

    def __init__(self) -> None:
        self.silent: set[OrderId] = set()
        self.upserted: list[list[OrderId]] = []
        self.gate: anyio.Event | None = None
        self.on_upsert: Callable[[], None] = lambda: None
        self._due_writes = _due_writes(held_records())
        self._contact_of: Callable[[OrderId], ContactId] = lambda _order: ContactId(1)

    def begin(self, held: HeldRecords, contact_of: Callable[[OrderId], ContactId]) -> None:
        """Begin a new process, whose held records these are; `contact_of` returns whose an order is."""
        self._contact_of = contact_of
        self._due_writes = _due_writes(held)

    async def upsert(self, ids: Collection[OrderId]) -> None:
        await anyio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        changes = [_OrderChange(order, self._contact_of(order)) for order in sorted(ids)]
        if held := await self._due_writes.write(changes, self._upsert):
            raise RecordsHeld("orders", {int(order): why for order, why in held.items()})

    async def _upsert(self, changes: Sequence[_OrderChange]) -> Mapping[OrderId, str]:
        if not changes:
            return {}
        self.upserted.append([each.id for each in changes])
        self.on_upsert()
        return {each.id: "500" for each in changes if each.id in self.silent}

    @property
    def all(self) -> set[OrderId]:
        """Every order that was upserted."""
        return {order for ids in self.upserted for order in ids}


class _OrderChange(NamedTuple):
    """An order as it was always."""

    id: OrderId
    contact_id: ContactId
    fingerprint: bytes = b"as it was"


def _due_writes(held: HeldRecords) -> DueWrites[_OrderChange, OrderId]:
    return DueWrites(
        held, HeldKind.ORDER, key=lambda change: change.id, refuse=_refuse_none, is_suspect=_always
    )


def _always(_order: OrderId) -> bool:
    return True


async def _refuse_none(_discarded: Sequence[tuple[_OrderChange, str]]) -> None:
    await anyio.lowlevel.checkpoint()


class FakeHolds:
    """Implements Holds: `held` are the contacts that are held, as long as there is `room`."""

    def __init__(self) -> None:
        self.room = True
        self.known: list[ContactId] = []
        self.trying: set[ContactId] = set()
        self.held: list[tuple[ContactId, RecordsHeld]] = []
        self.discards: dict[Position, str] = {}
        self.recoveries = 0
        self.held_before: dict[Position, int] = {}  # how often each was sent
        self.done: list[ContactId] = []
        self.bounds: list[ContactId] = []

    async def hold(self, contact: Contact, _position: Position, error: RecordsHeld) -> bool:
        await anyio.lowlevel.checkpoint()
        if self.room:
            self.held.append((contact.id, error))
        return self.room

    def suspects(self) -> list[ContactId]:
        return self.known

    def make_due(self) -> None:
        self.recoveries += 1

    def sent(self, _contact: Contact, position: Position) -> int:
        return self.held_before.get(position, 0)

    def has_room(self, _contact: Contact) -> bool:
        return self.room

    def discarded(self, _contact: Contact, position: Position) -> str | None:
        return self.discards.get(position)

    async def delivered(self, contact: Contact) -> None:
        self.done.append(contact.id)

    @contextmanager
    def bounded(self, contact: Contact) -> Iterator[None]:
        self.bounds.append(contact.id)
        yield


class FakeDeliveryLookup:
    """Implements DeliveryLookup on the events that were processed; look-ups wait for `gate`, if it is set.

    Look-ups of the places `unanswered` never return.
    """

    def __init__(self, events: FakeEvents) -> None:
        self._events = events
        self.asked: list[int] = []  # places
        self.unanswered: set[int] = set()
        self.gate: anyio.Event | None = None

    async def has_arrived(self, contact: Contact, name: str, eventdata: str) -> bool:
        await anyio.lowlevel.checkpoint()
        place = place_in(eventdata)
        self.asked.append(place)
        if place in self.unanswered:
            await anyio.sleep_forever()
        if self.gate is not None:
            await self.gate.wait()
        return Arrival(contact.email, name, place) in self._events.processed


class FakeContactDelivery:
    """Implements ContactDelivery: links every contact once `gate` is open, or rejects a bad address.

    A linked contact needs nothing, unless it is `changed` or dirty.
    """

    def __init__(self, *bad: Email) -> None:
        self.asked: list[Email] = []
        self.needs: list[Need] = []
        self.moves: list[dict[CustomerId, Email]] = []
        self.bad = bad
        self.changed: set[Email] = set()
        self.dirty: dict[ContactId, set[OrderId]] = {}
        self.gate: anyio.Event | None = None
        self.refuses = False
        self.due: set[ContactId] = set()  # contacts that are to be tried now
        self.retried: list[tuple[Email, bool]] = []  # and whether that was asked for
        self.on_move: Callable[[Mapping[CustomerId, Email]], object] = lambda _customers: None

    def need(self, batch: Batch) -> Need | None:
        wanted, deliveries = batch.contact, batch.deliveries
        is_settled = wanted.status is ContactStatus.LINKED and wanted.email not in self.changed
        if (wanted.is_refused or is_settled) and wanted.id not in self.dirty:
            return None
        orders = frozenset(each.order for each in deliveries if each.order)
        newest = max(each.position for each in deliveries)
        return Need(wanted, newest, max(each.inserted_at for each in deliveries), orders)

    def mark_dirty(self, contact: Contact, orders: Collection[OrderId]) -> None:
        self.dirty.setdefault(contact.id, set()).update(orders)

    @property
    def has_due(self) -> bool:
        return bool(self.due)

    def take_due(self) -> Collection[ContactId]:
        due, self.due = self.due, set()
        return due

    async def retry_refused(self, contacts: Collection[Contact], *, is_asked: bool) -> None:
        await anyio.lowlevel.checkpoint()
        for each in contacts:
            self.retried.append((each.email, is_asked))
            if each.is_refused and (is_asked or each.email not in self.bad):
                each.set_status(ContactStatus.NEW)

    async def ensure(self, need: Need) -> None:
        wanted = need.contact
        self.asked.append(wanted.email)
        self.needs.append(need)
        self.dirty.pop(wanted.id, None)
        await anyio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if self.refuses:
            raise AccountRefused("no")
        self.changed.discard(wanted.email)
        if wanted.email in self.bad:
            wanted.set_status(ContactStatus.REJECTED, Reason.AC_REJECTED, "no")
        else:
            wanted.set_status(ContactStatus.LINKED)

    async def move(self, customers: Mapping[CustomerId, Email]) -> None:
        self.moves.append(dict(customers))
        await anyio.lowlevel.checkpoint()
        self.on_move(customers)
