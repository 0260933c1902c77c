"""Parking: which entries are parked, when, and how many."""

from __future__ import annotations

import anyio
from msgspec.structs import replace

from kiva_stream.model.deliveries import Batch, Delivery
from kiva_stream.model.ids import ContactId
from kiva_stream.model.outcomes import DELIVERED, Span
from kiva_stream.pipeline.group_commit import GroupCommit
from kiva_stream.pipeline.lanes import Lanes
from kiva_stream.pipeline.parking import (
    POLL_S,
    UP_FOR_S,
    Parking,
    began_waiting_for_answer,
    began_waiting_for_contact,
)
from kiva_stream.pipeline.reopened_spans import ReopenedSpans
from tests.fakes.state_ledger import FakeLedger
from tests.support.entries import contact, delivery, place_of, position
from tests.support.virtual_time import run
from tests.support.waiting import no_time, until
from tests.unit.pipeline.builders import CONTACT, make_checkpoint, running


class WatchedSpans(ReopenedSpans):
    """Notes the places of the entries that are parked, in order."""

    def __init__(self) -> None:
        super().__init__(0, GroupCommit(0.02, no_time))
        self.parked: list[int] = []

    def park(self, one: Delivery, whose: ContactId) -> Delivery:
        self.parked.append(place_of(one.position))
        return super().park(one, whose)


class ParkedLane:
    """One contact's lane, whose batch is to be parked from the moment 10 on; `most` entries may be parked.

    `parked` are the places of the entries that were parked, in order.
    """

    def __init__(self, *places: int, most: int = 99) -> None:
        self.reopened = WatchedSpans()
        self.parking = Parking(self.reopened, most)
        self.lanes = Lanes(self.parking.park_behind)
        self.add(*places)
        (self.batch,) = self.lanes.ready()
        self.batch.park_from(10.0)

    @property
    def parked(self) -> list[int]:
        return self.reopened.parked

    def add(self, *places: int, is_entry: bool = True) -> None:
        for place in places:
            one = delivery(place, Span(position(99), 99))
            self.lanes.add(contact(), replace(one, is_entry=is_entry))

    def park_waiting(self, now: float, most: int = 99) -> None:
        Parking(self.reopened, most).park_waiting(self.lanes, now)


async def test_a_lane_whose_sender_waits_long_is_parked_with_all_that_comes_after() -> None:
    lane = ParkedLane(1, 2)
    lane.add(3)
    lane.park_waiting(9.9)
    assert lane.parked == []
    lane.park_waiting(10.0)
    lane.add(4)
    assert lane.parked == [1, 2, 3, 4]
    assert lane.batch.current.span.size == 1


async def test_a_delivery_that_comes_when_the_wait_is_over_is_not_parked() -> None:
    lane = ParkedLane(1, 2)
    lane.park_waiting(10.0)
    lane.batch.finish_current()
    lane.batch.park_from(20.0)
    lane.add(3)
    assert lane.parked == [1, 2]
    lane.park_waiting(20.0)
    assert lane.parked == [1, 2, 3]


async def test_when_there_is_no_room_nothing_later_is_parked_before_what_came_earlier() -> None:
    lane = ParkedLane(1, 2)
    lane.park_waiting(10.0, most=1)
    lane.add(3)
    assert lane.parked == [1]
    lane.park_waiting(10.0)
    assert lane.parked == [1, 2, 3]


async def test_a_delivery_that_finds_no_room_behind_a_parked_lane_keeps_later_ones_from_being_parked() -> (
    None
):
    lane = ParkedLane(1, 2, most=2)
    lane.park_waiting(10.0)
    lane.add(3)
    lane.batch.deliveries[0].span.resolve(DELIVERED)
    lane.reopened.take_resolved()  # which makes room
    lane.add(4)
    assert lane.parked == [1, 2]


async def test_a_batch_that_no_sender_has_taken_yet_is_not_parked() -> None:
    lane = ParkedLane(1)
    lane.batch.end_wait()
    lane.park_waiting(1e9)
    assert lane.parked == []


async def test_a_wait_for_a_contact_is_parked_later_than_one_for_an_answer_and_the_first_wait_counts() -> (
    None
):
    batch = Batch(contact(), [])
    began_waiting_for_contact(batch, 100.0)
    assert batch.park_at == 130.0
    batch.end_wait()
    began_waiting_for_answer(batch, 100.0)
    began_waiting_for_answer(batch, 104.0)
    assert batch.park_at == 105.0


# With a checkpoint


def parked_or_not(parking: Parking, one: Delivery) -> Delivery:
    """Have a delivery wait at the sender; return it as the sender has it from then on."""
    lanes = Lanes(parking.park_behind)
    lanes.add(contact(), one)
    (batch,) = lanes.ready()
    batch.park_from(0.0)
    parking.park_waiting(lanes, 1.0)
    return batch.deliveries[0]


async def test_no_more_are_parked_than_may_be_and_each_outcome_makes_room_for_another() -> None:
    checkpoint = make_checkpoint(ledger := FakeLedger())
    parking = Parking(checkpoint.reopened, parked_max=2)
    span = await checkpoint.track(position(3), 3)
    one, two, three = (delivery(place, span) for place in (1, 2, 3))
    async with running(checkpoint):
        parked = parked_or_not(parking, one)
        assert parked is not one
        assert parked_or_not(parking, two) is not two
        assert parked_or_not(parking, three) is three
        await until(lambda: len(ledger.parked) == 2)
        checkpoint.record_delivered(parked, CONTACT, 1)
        await until(lambda: ledger.delivered)
        assert parked_or_not(parking, three) is not three


async def test_entries_that_earlier_runs_parked_take_room_too() -> None:
    ledger = FakeLedger()
    ledger.parked = {position(1): CONTACT}
    checkpoint = make_checkpoint(ledger)
    one = delivery(2, await checkpoint.track(position(2), 1))
    assert parked_or_not(Parking(checkpoint.reopened, parked_max=1), one) is one


async def test_an_entry_is_parked_once_and_a_change_never() -> None:
    checkpoint = make_checkpoint(FakeLedger())
    parking = Parking(checkpoint.reopened, parked_max=9)
    span = await checkpoint.track(position(1), 1)
    parked = parked_or_not(parking, delivery(1, span))
    assert parked_or_not(parking, parked) is parked
    change = replace(delivery(2, Span(position(2), 1)), is_entry=False)
    assert parked_or_not(parking, change) is change
    assert (span.pending, parked.span.pending, change.span.pending) == (0, 1, 1)


# The poll


def test_while_the_account_is_down_and_a_little_after_nothing_is_parked() -> None:
    outage = [True] * 20  # so many times the poll finds the account down

    async def story() -> list[list[int]]:
        lane = ParkedLane(1)
        parking = Parking(lane.reopened, 99, lambda: bool(outage and outage.pop()))
        lane.batch.park_from(anyio.current_time())
        seen = []
        async with anyio.create_task_group() as group:
            group.start_soon(parking.run, lane.lanes)
            for seconds in (20 * POLL_S + UP_FOR_S - 0.5, POLL_S):
                await anyio.sleep(seconds)
                seen.append(list(lane.parked))
            group.cancel_scope.cancel()
        return seen

    assert run(story()) == [[], [1]]
