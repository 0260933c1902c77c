"""A contact that gets no answer is held: its entries lie in the state alone, and all others go on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kiva_stream.errors import EVENTS, RecordsHeld
from kiva_stream.model.checkpoint import Leftovers
from kiva_stream.model.customers import Customer
from kiva_stream.model.deliveries import Batch
from kiva_stream.model.entries import Changes, Entry
from kiva_stream.model.held_records import HeldKey, HeldKind
from kiva_stream.model.ids import ContactId, Email, OrderId
from kiva_stream.model.positions import HighWaterMark, Position
from kiva_stream.pipeline import held_contacts
from kiva_stream.pipeline.held_contacts import LAST_TRIES_S, TRIED_AT_ONCE, Due, HeldContacts
from kiva_stream.pipeline.lanes import Lanes
from kiva_stream.pipeline.parking import Parking
from kiva_stream.sync.held_records import HeldRecords
from tests.fakes.source import FakeLog
from tests.fakes.state_held import RETRY_S, FakeHeldRows, held_records, silent
from tests.fakes.state_ledger import FakeLedger
from tests.support.entries import EVENT, NOISE, contact, delivery, place_of, position, up_to
from tests.support.pipeline_world import ANN, BOB, World, story
from tests.support.virtual_time import run
from tests.unit.pipeline.builders import make_checkpoint, running

ORDER = OrderId(77)
HELD = RecordsHeld("orders", {77: "500"})
BOBS = Email("customer2@example.org")
ROWS = [(ANN, EVENT), (BOB, EVENT), (ANN, EVENT), (BOB, EVENT), (ANN, EVENT), (BOB, EVENT)]


def silent_world(rows: list[tuple[Customer, str]]) -> tuple[World, dict[int, str]]:
    """Return a world in which an order of Ann gets no answer."""
    world, outcomes = story(rows, page_rows=1)
    world.orders.paid = {ANN.id: [ORDER]}
    world.order_delivery.silent = {ORDER}
    return world, outcomes


def test_while_an_order_gets_no_answer_its_contact_is_parked_and_all_others_arrive() -> None:
    world, _ = silent_world(ROWS)
    run(world.run())

    assert world.events.places_by_contact() == {BOB.email: [2, 4, 6]}
    assert sorted(map(place_of, world.ledger.parked)) == [1, 3, 5]
    assert world.ledger.watermark == world.log.entries[-1].position
    assert world.ledger.commits[-1].pending == 0


def test_the_next_run_delivers_what_is_parked_in_log_order() -> None:
    world, outcomes = silent_world(ROWS)
    run(world.run())
    world.order_delivery.silent = set()
    run(world.run())

    assert world.ledger.parked == {}
    world.assert_complete(outcomes)


def test_what_was_read_meanwhile_arrives_after_what_was_parked_before_it() -> None:
    world, outcomes = silent_world(ROWS)
    tries = 0

    def lift_after_the_second_try() -> None:
        nonlocal tries
        tries += 1
        if tries > 1:
            world.order_delivery.silent = set()

    world.order_delivery.on_upsert = lift_after_the_second_try
    run(world.run())

    assert tries == 2
    assert world.events.places_by_contact() == {ANN.email: [1, 3, 5], BOB.email: [2, 4, 6]}
    assert world.ledger.parked == {}
    world.assert_complete(outcomes)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from([ANN, BOB]), st.just(EVENT)), min_size=1, max_size=14),
    st.integers(1, 5),
    st.integers(0, 4),
)
def test_whenever_it_is_lifted_and_wherever_runs_end_nothing_is_lost_repeated_or_out_of_order(
    rows: list[tuple[Customer, str]], runs: int, lifted_after: int
) -> None:
    world, outcomes = silent_world(rows)
    tries = 0

    def lift() -> None:
        nonlocal tries
        tries += 1
        if tries > lifted_after:
            world.order_delivery.silent = set()

    world.order_delivery.on_upsert = lift
    for number in range(1, runs + 1):
        run(world.run(len(rows) * number // runs or 1))
    world.order_delivery.silent = set()
    run(world.run())

    world.assert_complete(outcomes)
    assert world.ledger.parked == {}
    arrived = [place for places in world.events.places_by_contact().values() for place in places]
    assert len(arrived) == len(set(arrived))


def test_a_restart_parks_what_it_reads_of_a_held_contact_and_tries_it_only_after_the_rest() -> None:
    world, _ = silent_world(ROWS)
    run(world.run(3))
    assert world.held_rows.rows.keys() == {(HeldKind.ORDER, ORDER)}
    tries: list[list[int]] = []
    world.order_delivery.on_upsert = lambda: tries.append(world.events.places_by_contact()[BOBS])
    run(world.run())

    assert tries == [[2, 4, 6]]  # once, when all else was done
    assert sorted(map(place_of, world.ledger.parked)) == [1, 3, 5]
    assert world.held_rows.rows[HeldKey(HeldKind.ORDER, ORDER)].attempts == 3


def test_a_late_arrival_which_is_parked_without_a_contact_is_tried_with_its_contact() -> None:
    world, outcomes = silent_world(ROWS)
    run(world.run())
    world.ledger.parked[position(3)] = ContactId(0)
    world.order_delivery.silent = set()
    run(world.run())

    assert world.ledger.parked == {}
    world.assert_complete(outcomes)


class PausingLog(FakeLog):
    """A log whose last page appears ten minutes after the others; `after_pause` is called then."""

    after_pause: Callable[[], object]

    async def pages(self, after: Position, mark: HighWaterMark) -> AsyncIterator[list[Entry] | Changes]:
        async for page in super().pages(after, mark):
            if isinstance(page, list) and page[-1].position == self.entries[-1].position:
                await anyio.sleep(2 * RETRY_S)
                self.after_pause()
            yield page


@pytest.mark.parametrize("kind", [kind for kind in HeldKind if kind is not HeldKind.TAG])
def test_what_is_held_without_entries_of_its_own_is_tried_when_it_is_due(kind: HeldKind) -> None:
    world, _ = story([(BOB, EVENT), (ANN, NOISE), (BOB, EVENT)], page_rows=1)
    world.log = log = PausingLog(world.log.entries, page_rows=1)
    world.link_everybody()
    left: list[int] = []
    log.after_pause = lambda: left.append(len(world.held_rows.rows))

    async def play() -> None:
        world.begin()
        await world.links.link({each.id: each.email for each in (ANN, BOB) if each.email})
        await world.sync.snapshot(position(world.size), lambda _count: None)
        anns = world.links.by_customer[ANN.id].id
        await world.held.hold(kind, {ORDER if kind is HeldKind.ORDER else anns: silent(anns)})
        await world.carry()

    run(play())
    assert left == [0]
    assert world.order_delivery.upserted == ([[ORDER]] if kind is HeldKind.ORDER else [])


def test_what_is_parked_arrives_first_at_the_new_address_of_a_customer() -> None:
    new = Email("ann@new.example.org")
    moved = replace(ANN, email=new)
    world, outcomes = story([(ANN, EVENT), *[(BOB, EVENT)] * 3, (moved, EVENT)], page_rows=1)
    world.log = log = PausingLog(world.log.entries, page_rows=1)
    parked: list[list[int]] = []

    def move() -> None:
        parked.append(sorted(map(place_of, world.ledger.parked)))
        log.entries[0] = replace(log.entries[0], customer=moved)

    log.after_pause = move

    async def play() -> None:
        world.begin()
        await world.links.link({each.id: each.email for each in (ANN, BOB) if each.email})
        anns = world.links.by_customer[ANN.id].id
        for _ in range(3):  # the next try is after the pause
            await world.held.hold(HeldKind.CONTACT, {anns: silent(anns)})
        await world.carry()

    run(play())
    assert parked == [[1]]
    assert world.events.places_by_contact()[new] == [1, 5]
    world.assert_complete(outcomes)


class Bench:
    """Held contacts with lanes, and a clock. The lane of `ANNA` is at the sender, with two deliveries."""

    def __init__(self, parked_max: int = 9, left: Leftovers | None = None) -> None:
        self.now = 0.0
        self.ledger = FakeLedger()
        self.checkpoint = make_checkpoint(self.ledger, left=left)
        parking = Parking(self.checkpoint.reopened, parked_max)
        self.rows = FakeHeldRows()
        self.records = HeldRecords(self.rows, (), 300, clock=lambda: self.now, chance=lambda: 0)
        self.is_down = False
        self.held = HeldContacts(parking, self.records, is_down=lambda: self.is_down, clock=lambda: self.now)
        self.lanes = Lanes(parking.park_behind, self.held.leave)

    async def fill(self, first: int) -> Batch:
        for place in (first, first + 1):
            span = await self.checkpoint.track(position(place), 1)
            self.lanes.add(ANNA, delivery(place, span))
        (batch,) = self.lanes.ready()
        return batch

    async def hold(self, first: int = 1) -> None:
        """Have an order of Anna get no answer, while her lane is at the sender."""
        await self.fill(first)
        await self.records.hold(HeldKind.ORDER, {ORDER: silent(ANNA.id)})
        assert await self.held.hold(self.lanes, ANNA, position=position(first), error=HELD)


ANNA = contact()


async def test_what_is_held_is_due_at_its_next_try_and_not_while_it_is_tried() -> None:
    bench = Bench()
    await bench.hold()
    assert not await bench.held.poll()
    bench.now += 300
    assert await bench.held.poll()
    assert bench.held.take_due() == Due({ANNA.id}, {ANNA.id: {}})
    assert not await bench.held.poll()

    await bench.fill(3)  # behind the try, it goes to the lane
    await bench.records.hold(HeldKind.ORDER, {ORDER: silent(ANNA.id)})
    await bench.held.hold(bench.lanes, ANNA, position=position(1), error=HELD)
    bench.now += 300
    assert not await bench.held.poll()
    bench.now += 300
    assert await bench.held.poll()


async def test_what_another_process_asks_for_is_due_though_the_state_was_busy_before() -> None:
    bench = Bench()
    await bench.hold()
    bench.rows.ask(HeldKind.ORDER, ORDER)
    bench.rows.is_busy = True
    assert not await bench.held.poll()
    bench.rows.is_busy = False
    assert await bench.held.poll()


async def test_the_end_of_an_outage_makes_all_that_is_held_due() -> None:
    bench = Bench()
    await bench.hold()
    bench.is_down = True
    assert not await bench.held.poll()
    bench.is_down = False
    assert await bench.held.poll()
    assert bench.held.take_due() == Due({ANNA.id}, {ANNA.id: {}})


async def test_an_answer_makes_what_is_parked_due_at_once() -> None:
    bench = Bench()
    await bench.hold()

    await bench.records.end(HeldKind.ORDER, [ORDER])

    assert bench.held.take_due() == Due(set(), {ANNA.id: {}})
    await bench.fill(3)  # what is read now comes after what was parked


async def test_an_entry_of_a_held_contact_is_parked_at_once_and_a_check_goes_to_the_sender() -> None:
    bench = Bench()
    await bench.hold()
    span = await bench.checkpoint.track(position(3), 1)
    bench.lanes.add(ANNA, delivery(3, span))
    assert bench.lanes.ready() == []
    assert bench.checkpoint.reopened.parked_count == 3
    assert not bench.checkpoint.is_pending
    bench.lanes.add(ANNA, replace(delivery(3, span), is_entry=False))
    assert len(bench.lanes.ready()) == 1


async def test_an_entry_of_a_contact_that_an_earlier_run_held_is_parked_without_an_attempt() -> None:
    bench = Bench()
    await bench.records.hold(HeldKind.CONTACT, {ANNA.id: silent(ANNA.id)})
    bench.lanes.add(ANNA, delivery(1, await bench.checkpoint.track(position(1), 1)))

    assert bench.lanes.ready() == []
    assert bench.checkpoint.reopened.parked_count == 1


async def test_without_room_a_contact_is_not_held() -> None:
    bench = Bench(parked_max=1)
    batch = await bench.fill(1)

    assert not await bench.held.hold(bench.lanes, ANNA, position=position(1), error=HELD)
    assert [lane.batch for lane in bench.lanes.at_sender] == [batch]
    assert bench.checkpoint.reopened.parked_count == 0  # not even the one for which there is room


async def test_an_entry_of_a_held_contact_is_parked_also_when_there_is_no_room() -> None:
    bench = Bench(parked_max=2)
    await bench.hold()
    bench.lanes.add(ANNA, delivery(3, await bench.checkpoint.track(position(3), 1)))

    assert bench.lanes.ready() == []
    assert bench.checkpoint.reopened.parked_count == 3


async def test_a_check_of_a_held_contact_leaves_the_entry_at_its_position_alone() -> None:
    bench = Bench()
    span = bench.checkpoint.reopened.reopen(position(7), is_late=True)  # an entry of another contact
    assert span is not None
    await bench.fill(1)
    bench.lanes.add(ANNA, replace(delivery(7, span), is_entry=False))
    assert await bench.held.hold(bench.lanes, ANNA, position=position(1), error=HELD)

    assert position(7) in bench.checkpoint.reopened


async def test_an_event_that_may_have_arrived_stays_in_doubt_while_its_contact_is_held() -> None:
    bench = Bench(left=Leftovers(in_doubt=frozenset({position(1)})))
    await bench.fill(1)
    async with running(bench.checkpoint):
        await bench.held.hold(bench.lanes, ANNA, position=position(1), error=HELD)

    assert sorted(map(place_of, bench.ledger.parked)) == [1, 2]
    assert bench.ledger.commits[-1].intents == {position(1)}
    assert bench.checkpoint.is_in_doubt(position(1))


@pytest.mark.parametrize("is_in_doubt", [True, False])
async def test_an_event_that_gets_no_answer_is_recorded_with_its_place(is_in_doubt: bool) -> None:
    bench = Bench()
    await bench.fill(1)
    error = RecordsHeld(EVENTS, {ANNA.id: "500"}, is_in_doubt=is_in_doubt)
    assert await bench.held.hold(bench.lanes, ANNA, position=position(1), error=error)
    bench.now += 300
    assert await bench.held.poll() is not is_in_doubt  # one in doubt waits until it is asked for
    bench.rows.ask(HeldKind.EVENT, ANNA.id, discard=True)
    assert await bench.held.poll()
    assert bench.held.discarded(ANNA, position(1)) == "500"
    assert bench.held.discarded(ANNA, position(2)) is None
    bench.held.take_due()
    await bench.held.delivered(ANNA)
    assert bench.rows.rows == {}


def test_a_run_that_tries_only_what_is_due_leaves_all_else_held() -> None:
    world, _ = silent_world(ROWS)
    run(world.run())
    tries = len(world.order_delivery.upserted)

    async def play() -> None:
        world.begin()
        async with world.sync.working():
            await world.pipeline.run(up_to(world.size), tries_all_held=False)

    run(play())
    assert len(world.order_delivery.upserted) == tries
    world.held_rows.ask(HeldKind.ORDER, ORDER)
    run(play())
    assert len(world.order_delivery.upserted) == tries + 1


async def in_doubt() -> Bench:
    """Return a bench in which Anna's first event is in doubt, and an order of hers is held."""
    bench = Bench()
    await bench.hold()
    error = RecordsHeld(EVENTS, {ANNA.id: "500"}, is_in_doubt=True, sent=2)
    await bench.held.events.hold(ANNA.id, position(1), error)
    return bench


async def test_while_an_event_is_in_doubt_what_else_is_due_of_its_contact_is_tried_without_its_entries() -> (
    None
):
    bench = await in_doubt()
    bench.now += 300
    assert bench.held.take_due() == Due({ANNA.id}, {})
    bench.lanes.add(ANNA, delivery(3, await bench.checkpoint.track(position(3), 1)))  # during the try
    assert bench.lanes.ready() == []
    await bench.held.delivered(ANNA)
    assert bench.held.due() == set()


async def test_when_customers_get_another_contact_all_that_is_held_of_both_is_due() -> None:
    bench = await in_doubt()
    bobs = ContactId(2)
    await bench.records.hold(HeldKind.LIST, {bobs: silent(bobs)})
    bench.held.customers_moved([ANNA.id, ContactId(3)], [bobs])
    assert bench.held.take_due() == Due({ANNA.id, bobs}, {ANNA.id: {}, bobs: {}})
    assert bench.held.due() == set()


async def test_a_contact_that_customers_leave_is_taken_at_once_however_much_is_due() -> None:
    bench = await in_doubt()
    others = list(map(ContactId, range(2, TRIED_AT_ONCE + 9)))
    await bench.records.hold(HeldKind.LIST, {each: silent(each) for each in others})
    bench.held.customers_moved([ANNA.id], others)
    taken = bench.held.take_due()
    assert len(taken.checks) == TRIED_AT_ONCE + 1
    assert ANNA.id in taken.left


async def test_the_attempts_of_an_event_are_not_those_of_an_earlier_one_that_was_held() -> None:
    bench = await in_doubt()
    for place, sent in ((1, 3), (2, 1)):
        error = RecordsHeld(EVENTS, {ANNA.id: "502"}, is_in_doubt=True, sent=sent)
        await bench.held.events.hold(ANNA.id, position(place), error)
    held = bench.rows.rows[HeldKey(HeldKind.EVENT, ANNA.id)]
    assert (held.attempts, held.sent, held.fingerprint) == (1, 1, str(position(2)).encode())
    assert bench.held.events.sent(ANNA.id, position(1)) == 0


def test_the_last_tries_end_when_their_time_is_over_and_what_is_tried_stays_held() -> None:
    async def play() -> float:
        held = HeldContacts(Parking(make_checkpoint(FakeLedger()).reopened, 9), records := held_records())
        await records.hold(HeldKind.CONTACT, {ANNA.id: silent(ANNA.id)})
        with held.bounded(ANNA):  # not tried: it is not bounded
            await anyio.sleep(2 * LAST_TRIES_S)
        held.begin_last_tries()
        assert held.take_due() == Due({ANNA.id}, {ANNA.id: {}})
        began_at = anyio.current_time()
        with pytest.raises(RecordsHeld), held.bounded(ANNA):
            await anyio.sleep_forever()
        assert records.holds(ANNA.id)
        return anyio.current_time() - began_at

    assert run(play()) == pytest.approx(LAST_TRIES_S)


def test_a_try_that_is_under_way_when_the_last_tries_begin_ends_with_them() -> None:
    async def play() -> float:
        held = HeldContacts(Parking(make_checkpoint(FakeLedger()).reopened, 9), records := held_records())
        await records.hold(HeldKind.CONTACT, {ANNA.id: silent(ANNA.id)})
        await anyio.sleep(300)
        held.take_due()

        async def wait() -> None:
            with pytest.raises(RecordsHeld), held.bounded(ANNA):
                await anyio.sleep_forever()

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.sleep(1_000)
            held.begin_last_tries()
            began_at = anyio.current_time()
        return anyio.current_time() - began_at

    assert run(play()) == pytest.approx(LAST_TRIES_S)


def test_however_few_are_tried_at_once_each_is_tried_after_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_contacts, "TRIED_AT_ONCE", 1)
    world, outcomes = story([(ANN, EVENT), (BOB, EVENT), (ANN, EVENT)])

    async def play() -> None:
        world.begin()
        await world.links.link({each.id: each.email for each in (ANN, BOB) if each.email})
        for who in (ANN, BOB):
            await world.held.hold(
                HeldKind.CONTACT, {(its := world.links.by_customer[who.id].id): silent(its)}
            )
        await world.carry()

    run(play())
    assert world.held_rows.rows == {}
    world.assert_complete(outcomes)
