"""Lanes: what waits per contact, and what is at the sender."""

from __future__ import annotations

import anyio
from msgspec.structs import replace

from kiva_stream.model.outcomes import Span
from kiva_stream.pipeline.lanes import Lane, Lanes
from tests.support.entries import contact, delivery, position
from tests.unit.pipeline.builders import places


def never_parked(_lane: Lane) -> None:
    """Park nothing behind a batch."""


class ContactLane:
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
            one = replace(delivery(place, Span(position(99), 99)), event_line=None, is_entry=False)
            self.lanes.add(self.contact, one)

    def ready(self) -> list[list[int]]:
        return [places(each) for each in self.lanes.ready()]

    def next(self) -> list[int] | None:
        batch = self.lanes.next(self.contact)
        return places(batch) if batch else None


def test_deliveries_of_one_contact_are_one_batch_in_log_order() -> None:
    lane = ContactLane()
    lane.add(1, 2, 5)
    assert lane.ready() == [[1, 2, 5]]
    assert lane.ready() == []


def test_a_lane_has_at_most_one_batch_at_the_sender() -> None:
    lane = ContactLane()
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


def test_checks_of_a_contact_that_waits_do_not_pile_up_and_entries_keep_their_order() -> None:
    lane = ContactLane()
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


async def test_a_lane_is_idle_when_its_own_batch_is_done_whatever_others_do() -> None:
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
