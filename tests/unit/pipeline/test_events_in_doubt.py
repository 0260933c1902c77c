"""An event in doubt waits for a replay, and all later events of its contact wait for it, wherever it moves.

Look-ups are off in all of these worlds. Ann's first event gets no answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import anyio
import pytest

from kiva_stream.errors import UnknownOutcome
from kiva_stream.model.customers import Customer
from kiva_stream.model.held_records import HeldKind
from kiva_stream.model.ids import Email, OrderId
from tests.fakes.state_held import silent
from tests.support.entries import EVENT, place_of, position
from tests.support.pipeline_world import ANN, BOB, TWIN, World, story
from tests.support.virtual_time import run

HELD_S, LONG_S = 300.0, 9_000.0
NEW = Email("new@example.org")
OLD, BOBS = Email("customer1@example.org"), Email("customer2@example.org")
ORDER = OrderId(77)


def world_of(rows: Iterable[Customer], *, silent_place: int = 1) -> tuple[World, dict[int, str]]:
    """Return a world in which an event gets no answer."""
    world, outcomes = story([(who, EVENT) for who in rows], page_rows=1, retry_held_s=HELD_S)
    world.events.latency = lambda place: anyio.sleep(0 if place == silent_place else 10)
    world.events.answers[silent_place] = [UnknownOutcome("500") for _ in range(99)]
    return world, outcomes


def parked(world: World) -> dict[int, Email]:
    """Return the places of the parked entries, with the address of the contact that they wait for."""
    links = world.links.by_id
    return {place_of(at): links[whose].email for at, whose in sorted(world.ledger.parked.items())}


def carry(world: World) -> None:
    run(world.run(within_s=LONG_S))


def replay(world: World) -> None:
    """Replay what is held, now that it is answered."""
    world.events.answers.clear()
    world.held_rows.ask_all()
    carry(world)


def assert_came_in_order(world: World, outcomes: dict[int, str], **places: list[int]) -> None:
    world.assert_complete(outcomes)
    assert world.ledger.parked == {}
    assert world.held_rows.rows == {}
    assert {each: list(dict.fromkeys(world.events.places(Email(each)))) for each in places} == places


def test_a_restart_leaves_it_in_doubt_with_its_attempts_and_parks_what_comes_after_it() -> None:
    world, outcomes = world_of([ANN, BOB, BOB, ANN, BOB])
    run(world.run(3, within_s=LONG_S))
    assert world.events.places(OLD) == [1, 1]
    (held,) = world.held_rows.rows.values()
    assert (held.sent, held.due_in_s) == (2, math.inf)

    for _ in range(3):
        carry(world)
    assert world.events.places(OLD) == [1, 1]
    assert parked(world) == {1: OLD, 4: OLD}
    assert world.held_rows.rows[held.key] == held

    replay(world)
    assert_came_in_order(world, outcomes, **{OLD: [1, 4]})
    rows = [row for commit in world.ledger.commits for row in commit.delivered]
    assert [row.attempts for row in rows if row.position == position(1)] == [3]


def test_a_replay_without_an_answer_sends_it_once_and_leaves_it_in_doubt() -> None:
    world, _ = world_of([ANN, BOB, BOB])
    carry(world)
    world.held_rows.ask_all()
    carry(world)

    assert world.events.places(OLD) == [1, 1, 1]
    (held,) = world.held_rows.rows.values()
    assert (held.sent, held.due_in_s) == (3, math.inf)


def test_a_held_order_of_its_contact_is_tried_without_it() -> None:
    world, outcomes = world_of([ANN, *[BOB] * 3, ANN, *[BOB] * 3])
    world.orders.paid = {ANN.id: [ORDER]}
    sent: list[list[int]] = []
    world.order_delivery.on_upsert = lambda: sent.append(world.events.places(OLD))

    def hold() -> None:
        world.order_delivery.upserted.clear()

    async def play() -> None:
        world.begin()
        await world.carry(4)
        anns = world.links.by_customer[ANN.id].id
        await world.held.hold(HeldKind.ORDER, {ORDER: silent(anns)})

    run(play())
    hold()
    carry(world)  # its last tries include the order

    assert world.order_delivery.upserted == [[ORDER]]
    assert world.events.places(OLD) == [1, 1]
    assert parked(world) == {1: OLD, 5: OLD}
    assert [key.kind for key in world.held_rows.rows] == [HeldKind.EVENT]
    replay(world)
    assert_came_in_order(world, outcomes, **{OLD: [1, 5]})


@pytest.mark.parametrize("is_same_run", [True, False])
@pytest.mark.parametrize("is_renamed", [True, False])
def test_it_moves_with_its_customer_and_so_does_what_is_parked_behind_it(
    *, is_same_run: bool, is_renamed: bool
) -> None:
    world, outcomes = world_of([ANN, *[BOB] * 3, ANN, *[BOB] * 3, ANN])
    if not is_renamed:
        world.contacts.refused_alone = {NEW}  # as a new address of a contact; an import takes it
    if is_same_run:
        world.log.before[9] = lambda: world.shop.change(ANN, email=NEW)
    else:
        run(world.run(8, within_s=LONG_S))
        world.shop.change(ANN, email=NEW)
    carry(world)

    assert parked(world) == {1: NEW, 5: NEW, 9: NEW}
    assert world.events.places(OLD) == [1, 1]
    assert world.events.places(NEW) == []
    world.contacts.refused_alone = set()
    replay(world)
    assert_came_in_order(world, outcomes, **{NEW: [1, 5, 9]})


@pytest.mark.parametrize("is_same_run", [True, False])
def test_another_customer_of_the_contact_who_leaves_it_takes_along_their_own_entries(
    *, is_same_run: bool
) -> None:
    world, outcomes = world_of([ANN, *[BOB] * 3, TWIN, ANN, *[BOB] * 3, TWIN])
    if is_same_run:
        world.log.before[10] = lambda: world.shop.change(TWIN, email=NEW)
    else:
        run(world.run(9, within_s=LONG_S))
        world.shop.change(TWIN, email=NEW)
    carry(world)

    assert world.events.places(NEW) == [5, 10]
    assert parked(world) == {1: OLD, 6: OLD}
    replay(world)
    assert_came_in_order(world, outcomes, **{OLD: [1, 6], NEW: [5, 10]})


def test_a_crash_after_the_move_leaves_it_in_doubt() -> None:
    world, outcomes = world_of([ANN, *[BOB] * 3, ANN])
    carry(world)
    world.shop.change(ANN, email=NEW)
    run(world.links.relink([ANN.id], NEW, None))  # and nothing else was stored
    carry(world)

    assert world.events.places(NEW) == []
    assert parked(world) == {1: NEW, 5: NEW}
    replay(world)
    assert_came_in_order(world, outcomes, **{NEW: [1, 5]})


def test_where_two_contacts_become_one_all_that_is_parked_goes_in_log_order() -> None:
    world, outcomes = world_of([ANN, *[BOB] * 4, ANN, BOB, ANN])

    async def hold_bob() -> None:
        world.begin()
        bobs = world.links.by_customer[BOB.id].id
        for _ in range(9):
            await world.held.hold(HeldKind.LIST, {bobs: silent(bobs)})

    run(world.run(5, within_s=LONG_S))
    run(hold_bob())
    world.log.before[8] = lambda: world.shop.change(ANN, email=BOBS)
    carry(world)

    assert parked(world).keys() == {1, 6, 7, 8}
    assert set(parked(world).values()) == {BOBS}
    world.events.arrivals.clear()  # Bob's, of which some came before Ann's at this address
    replay(world)
    assert_came_in_order(world, outcomes, **{BOBS: [1, 6, 7, 8]})


def test_two_events_in_doubt_of_contacts_that_become_one_both_wait_for_a_replay() -> None:
    world, outcomes = world_of([ANN, TWIN, *[BOB] * 5, ANN])
    world.shop.change(TWIN, email=NEW)
    world.events.answers[2] = [UnknownOutcome("500") for _ in range(99)]
    run(world.run(7, within_s=LONG_S))
    world.shop.change(TWIN, email=OLD)
    carry(world)
    carry(world)

    assert parked(world) == {1: OLD, 2: OLD, 8: OLD}
    assert len(world.events.places()) == 2 + 2 + 5
    replay(world)
    assert_came_in_order(world, outcomes)
    assert [each.place for each in world.events.arrivals][-3:] == [1, 2, 8]
