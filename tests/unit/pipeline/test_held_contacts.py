"""A contact that gets no answer is held: its entries lie in the state alone, and all others go on."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kiva_stream.model.checkpoint import Leftovers
from kiva_stream.model.customers import Customer
from kiva_stream.model.deliveries import Batch
from kiva_stream.model.ids import OrderId
from kiva_stream.pipeline.held_contacts import MOST_S, HeldContacts
from kiva_stream.pipeline.lanes import Lanes
from kiva_stream.pipeline.parking import Parking
from tests.fakes.state_ledger import FakeLedger
from tests.support.entries import EVENT, contact, delivery, place_of, position
from tests.support.pipeline_world import ANN, BOB, World, story
from tests.support.virtual_time import run
from tests.unit.pipeline.builders import make_checkpoint, running

ORDER = OrderId(77)
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


class Bench:
    """Held contacts with lanes, and a clock. The lane of `ANNA` is at the sender, with two deliveries."""

    def __init__(self, parked_max: int = 9, left: Leftovers | None = None) -> None:
        self.now = 0.0
        self.ledger = FakeLedger()
        self.checkpoint = make_checkpoint(self.ledger, left=left)
        parking = Parking(self.checkpoint.reopened, parked_max)
        self.held = HeldContacts(parking, 300, clock=lambda: self.now, chance=lambda: 0)
        self.lanes = Lanes(parking.park_behind, self.held.leave)

    async def fill(self, first: int) -> Batch:
        for place in (first, first + 1):
            span = await self.checkpoint.track(position(place), 1)
            self.lanes.add(ANNA, delivery(place, span))
        (batch,) = self.lanes.ready()
        return batch


ANNA = contact()


async def test_each_try_comes_after_twice_the_time_and_at_the_latest_after_a_day() -> None:
    bench = Bench(parked_max=100)
    waits = []
    for number in range(12):
        await bench.fill(2 * number + 1)
        assert bench.held.hold(bench.lanes, ANNA, "500")
        began_at = bench.now
        while not bench.held.has_due:
            bench.now += 300
        waits.append(bench.now - began_at)
        assert bench.held.take_due() == [ANNA.id]

    assert waits[:4] == [300, 600, 1_200, 2_400]
    assert waits[-2:] == [MOST_S, MOST_S]


async def test_an_answer_makes_what_is_parked_due_at_once_and_begins_the_waits_anew() -> None:
    bench = Bench()
    await bench.fill(1)
    bench.held.hold(bench.lanes, ANNA, "500")
    assert not bench.held.has_due

    bench.held.answered(ANNA)

    assert bench.held.take_due() == [ANNA.id]


async def test_an_entry_of_a_held_contact_is_parked_at_once_and_a_check_goes_to_the_sender() -> None:
    bench = Bench()
    await bench.fill(1)
    bench.held.hold(bench.lanes, ANNA, "500")
    span = await bench.checkpoint.track(position(3), 1)
    bench.lanes.add(ANNA, delivery(3, span))
    assert bench.lanes.ready() == []
    assert bench.checkpoint.reopened.parked_count == 3
    assert not bench.checkpoint.is_pending


async def test_without_room_a_contact_is_not_held() -> None:
    bench = Bench(parked_max=1)
    batch = await bench.fill(1)

    assert not bench.held.hold(bench.lanes, ANNA, "500")
    assert [lane.batch for lane in bench.lanes.at_sender] == [batch]
    assert bench.checkpoint.reopened.parked_count == 0  # not even the one for which there is room


async def test_an_entry_of_a_held_contact_is_parked_also_when_there_is_no_room() -> None:
    bench = Bench(parked_max=2)
    await bench.fill(1)
    assert bench.held.hold(bench.lanes, ANNA, "500")
    bench.lanes.add(ANNA, delivery(3, await bench.checkpoint.track(position(3), 1)))

    assert bench.lanes.ready() == []
    assert bench.checkpoint.reopened.parked_count == 3


async def test_a_check_of_a_held_contact_leaves_the_entry_at_its_position_alone() -> None:
    bench = Bench()
    span = bench.checkpoint.reopened.reopen(position(7), is_late=True)  # an entry of another contact
    assert span is not None
    await bench.fill(1)
    bench.lanes.add(ANNA, replace(delivery(7, span), is_entry=False))
    assert bench.held.hold(bench.lanes, ANNA, "500")

    assert position(7) in bench.checkpoint.reopened


async def test_an_event_that_may_have_arrived_stays_in_doubt_while_its_contact_is_held() -> None:
    bench = Bench(left=Leftovers(in_doubt=frozenset({position(1)})))
    await bench.fill(1)
    async with running(bench.checkpoint):
        bench.held.hold(bench.lanes, ANNA, "500")

    assert sorted(map(place_of, bench.ledger.parked)) == [1, 2]
    assert bench.ledger.commits[-1].intents == {position(1)}
    assert bench.checkpoint.is_in_doubt(position(1))
