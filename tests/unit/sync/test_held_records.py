"""Held records: when each is tried again, what is sent before that, and what ends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kiva_stream.errors import RecordsHeld
from kiva_stream.model.held_records import HeldKey, HeldKind
from kiva_stream.model.ids import ContactId, OrderId
from kiva_stream.model.positions import Position
from kiva_stream.sync.held_events import HeldEvents
from kiva_stream.sync.held_records import MOST_S, DueWrites, HeldRecords
from tests.fakes.state_held import FakeHeldRows, silent

ANN, BOB = ContactId(1), ContactId(2)


class Order(NamedTuple):
    id: OrderId
    contact_id: ContactId = ANN
    fingerprint: bytes = b"as it was"


ONE, TWO = Order(OrderId(1)), Order(OrderId(2), BOB)
KEY = HeldKey(HeldKind.ORDER, ONE.id)


class Bench:
    """Writes of orders, of which those that are `silent` get no answer."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rows = FakeHeldRows()
        self.silent: set[OrderId] = set()
        self.sent: list[list[OrderId]] = []
        self.refused: list[tuple[OrderId, str]] = []
        self.restart()

    def restart(self) -> None:
        """Begin a new process."""
        self.held = HeldRecords(
            self.rows, self.rows.rows.values(), 300, clock=lambda: self.now, chance=lambda: 0
        )
        self._writes: DueWrites[Order, OrderId] = DueWrites(
            self.held,
            HeldKind.ORDER,
            key=lambda order: order.id,
            refuse=self._refuse,
            is_suspect=lambda order: order != TWO.id,
        )

    async def write(self, *orders: Order) -> dict[OrderId, str]:
        return await self._writes.write(orders, self._send)

    async def _send(self, orders: Sequence[Order]) -> Mapping[OrderId, str]:
        self.sent.append([each.id for each in orders])
        return {each.id: "500" for each in orders if each.id in self.silent}

    async def _refuse(self, discarded: Sequence[tuple[Order, str]]) -> None:
        self.refused += [(order.id, why) for order, why in discarded]


async def test_each_try_comes_after_twice_the_time_and_at_the_latest_after_a_day() -> None:
    bench = Bench()
    bench.silent = {ONE.id}
    waits = []
    for number in range(1, 13):
        assert await bench.write(ONE) == {ONE.id: "500"}
        assert bench.rows.rows[KEY].attempts == number
        began_at = bench.now
        while not bench.held.due():
            bench.now += 300
        waits.append(bench.now - began_at)

    assert waits[:4] == [300, 600, 1_200, 2_400]
    assert waits[-2:] == [MOST_S, MOST_S]


async def test_nothing_else_of_a_contact_is_due_before_the_next_try_of_what_failed_last() -> None:
    bench = Bench()
    bench.silent = {ONE.id}
    await bench.write(ONE)
    bench.now = 300
    await bench.held.hold(HeldKind.CONTACT, {ANN: silent(ANN)})
    assert bench.held.due() == {ANN}
    await bench.held.postpone(ANN)
    await bench.held.refresh()
    assert bench.held.due() == set()
    bench.now = 600
    assert bench.held.due() == {ANN}


async def test_a_wait_has_jitter_and_is_never_longer_than_it_is_without() -> None:
    rows = FakeHeldRows()
    held = HeldRecords(rows, (), 300, clock=lambda: 0.0, chance=lambda: 0.5)
    await held.hold(HeldKind.CONTACT, {ANN: silent(ANN)})

    assert rows.rows[HeldKey(HeldKind.CONTACT, ANN)].due_in_s == 285


async def test_many_records_without_an_answer_are_tried_with_a_hundredth_of_the_requests() -> None:
    rows, now, period_s = FakeHeldRows(), 0.0, 7_200.0
    held = HeldRecords(rows, (), 300, requests_per_s=5, clock=lambda: now, chance=lambda: 0)
    for contact in map(ContactId, range(1_000)):
        await held.hold(HeldKind.CONTACT, {contact: silent(contact)})

    tries = [0] * 12
    for period in range(len(tries)):
        while now < (period + 1) * period_s:
            now += 20
            for contact in held.due():
                await held.hold(HeldKind.CONTACT, {contact: silent(contact)})
                tries[period] += 1
    assert max(tries) <= 0.01 * 5 * period_s * 1.01
    assert min(tries) > 100  # they are tried all the same


async def test_one_record_without_an_answer_or_many_that_were_refused_wait_their_own_time_alone() -> None:
    rows = FakeHeldRows()
    held = HeldRecords(rows, (), 300, requests_per_s=5, clock=lambda: 0.0, chance=lambda: 0)
    for contact in map(ContactId, range(2, 1_000)):
        refused = silent(contact)._replace(is_suspect=False)
        await held.hold(HeldKind.CONTACT, {contact: refused})
    await held.hold(HeldKind.CONTACT, {ANN: silent(ANN)})

    assert {each.due_in_s for each in rows.rows.values()} == {300}


async def test_an_event_that_moved_to_another_contact_stays_when_one_of_the_contact_before_is_held() -> None:
    rows = FakeHeldRows()
    events = HeldEvents(HeldRecords(rows, (), 300, clock=lambda: 0.0, chance=lambda: 0))
    first, second, third = Position(5, 1), Position(5, 2), Position(5, 3)
    await events.hold(ANN, first, unanswered(ANN, is_in_doubt=True))
    await events.move({first: BOB})
    await events.hold(ANN, second, unanswered(ANN))
    assert events.is_in_doubt(BOB)
    assert not events.is_in_doubt(ANN)
    assert {each.contact: each.fingerprint for each in rows.rows.values()} == {BOB: b"5:1", ANN: b"5:2"}

    await events.hold(ANN, third, unanswered(ANN))  # the second has its outcome
    assert {each.contact: each.fingerprint for each in rows.rows.values()} == {BOB: b"5:1", ANN: b"5:3"}


def unanswered(contact: ContactId, *, is_in_doubt: bool = False) -> RecordsHeld:
    return RecordsHeld("events", {contact: "500"}, is_in_doubt=is_in_doubt, sent=2)


async def test_a_restart_knows_what_is_held_with_its_attempts_and_its_next_try() -> None:
    bench = Bench()
    bench.silent = {ONE.id}
    await bench.write(ONE, TWO)
    bench.restart()

    assert bench.held.holds(ANN)
    assert not bench.held.holds(BOB)
    assert bench.held.orders_of(ANN) == {ONE.id}
    assert bench.held.suspects(HeldKind.ORDER) == [ONE.id]
    assert await bench.write(ONE, TWO) == {ONE.id: "500"}
    assert bench.sent == [[1, 2], [2]]  # it waits, the other one does not
    bench.now += 300
    assert bench.held.due() == {ANN}
    await bench.write(ONE)
    assert bench.rows.rows[KEY].attempts == 2


async def test_what_is_answered_is_held_no_more() -> None:
    bench = Bench()
    bench.silent = {ONE.id, TWO.id}
    await bench.write(ONE, TWO)
    bench.silent = {TWO.id}
    bench.now += 300

    assert await bench.write(ONE, TWO) == {TWO.id: "500"}
    assert set(bench.rows.rows) == {(HeldKind.ORDER, TWO.id)}
    assert not bench.held.holds(ANN)


async def test_what_changed_is_tried_at_once() -> None:
    bench = Bench()
    bench.silent = {ONE.id}
    await bench.write(ONE)
    bench.silent = set()

    assert await bench.write(ONE._replace(fingerprint=b"another")) == {}
    assert bench.rows.rows == {}


async def test_what_is_discarded_is_refused_with_the_last_reply_and_what_changed_since_is_sent() -> None:
    bench = Bench()
    bench.silent = {ONE.id, TWO.id}
    await bench.write(ONE, TWO)
    bench.silent = set()
    for each in (ONE, TWO):
        bench.rows.ask(HeldKind.ORDER, each.id, discard=True)
    await bench.held.refresh()
    assert bench.held.due() == {ANN, BOB}

    assert await bench.write(ONE, TWO._replace(fingerprint=b"another")) == {}
    assert bench.refused == [(ONE.id, "500")]
    assert bench.sent == [[1, 2], [2]]
    assert bench.rows.rows == {}


async def test_all_are_due_when_they_are_made_due() -> None:
    bench = Bench()
    bench.silent = {ONE.id, TWO.id}
    await bench.write(ONE, TWO)
    assert bench.held.due() == set()
    bench.held.make_due()
    await bench.held.refresh()  # nobody asked for anything

    assert bench.held.due() == {ANN, BOB}


async def test_what_was_refused_may_be_sent_before_its_next_try() -> None:
    bench = Bench()
    bench.silent = {TWO.id}
    await bench.write(ONE, TWO)
    bench.silent = set()

    assert await bench.write(TWO) == {}
    assert bench.rows.rows == {}


async def test_what_waits_until_it_is_asked_for_waits_in_the_next_process_too() -> None:
    bench = Bench()
    await bench.held.hold(HeldKind.EVENT, {ANN: silent(ANN, b"6:61")}, until_asked=True)
    bench.restart()
    bench.now += 2 * MOST_S

    assert bench.held.due() == set()


async def test_what_waits_until_it_is_asked_for_is_due_by_nothing_else() -> None:
    bench = Bench()
    await bench.held.hold(HeldKind.EVENT, {ANN: silent(ANN, b"6:61")}, until_asked=True)
    bench.now += 2 * MOST_S
    bench.held.make_due()
    bench.held.try_now([ANN])
    assert bench.held.due() == set()
    bench.rows.ask(HeldKind.EVENT, ANN, discard=True)
    await bench.held.refresh()

    assert bench.held.due() == {ANN}


async def test_a_contact_is_tried_at_once_when_that_is_asked_for() -> None:
    bench = Bench()
    bench.silent = {ONE.id, TWO.id}
    await bench.write(ONE, TWO)
    bench.held.try_now([ANN, ContactId(3)])

    assert bench.held.due() == {ANN}
    assert bench.held.suspects(HeldKind.ORDER) == [ONE.id]  # the other one was refused


async def test_the_end_of_what_is_not_held_changes_nothing() -> None:
    bench = Bench()
    await bench.held.end(HeldKind.ORDER, [ONE.id])
    bench.silent = {TWO.id}
    await bench.write(TWO)
    await bench.held.end(HeldKind.ORDER, [ONE.id])

    assert len(bench.held) == 1


async def test_what_is_due_after_a_try_of_its_contact_needed_no_sending_and_is_held_no_more() -> None:
    bench = Bench()
    bench.silent = {ONE.id, TWO.id}
    await bench.write(ONE, TWO)
    await bench.held.end_due(ANN)  # it is not due
    bench.now += 300
    await bench.held.end_due(ANN)
    await bench.held.end_due(ContactId(3))  # nothing of it is held

    assert bench.rows.rows.keys() == {(HeldKind.ORDER, TWO.id)}
    assert not bench.held.holds(ANN)
