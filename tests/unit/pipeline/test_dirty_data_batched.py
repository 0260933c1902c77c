"""The rows of the dirty-data catalogue that the batcher decides, one test a row; on fakes."""

from __future__ import annotations

import anyio

from tests.support.entries import EVENT, customer, entry, position
from tests.support.pipeline_world import AGAIN, ANN, World, story
from tests.support.virtual_time import run

LATENCY_S = 0.1


async def test_row_31_an_exact_duplicate_within_two_seconds_is_one_event() -> None:
    world, outcomes = story([(ANN, EVENT), (ANN, AGAIN)])
    await world.run_with_snapshot()
    assert outcomes == {1: "delivered", 2: "skipped duplicate"}
    world.assert_complete(outcomes)


def test_row_46_a_hot_account_does_not_delay_others() -> None:
    hot, others = customer(1), [customer(number) for number in range(2, 52)]
    entries = [entry(place, hot) for place in range(1, 2_501)]
    entries += [entry(place, others[place % 50]) for place in range(2_501, 2_601)]
    world = World(entries, page_rows=2_600, window=20_000, max_in_flight=200)
    world.link_everybody()
    world.events.latency = lambda _place: anyio.sleep(LATENCY_S)
    arrived_at: dict[int, float] = {}

    def note_arrival() -> None:
        arrived_at[world.events.places()[-1]] = anyio.current_time()

    world.events.on_arrival = note_arrival

    async def carry() -> float:
        world.begin()
        await world.sync.snapshot(position(world.size), lambda _count: None)
        started_at = anyio.current_time()
        await world.carry()
        return started_at

    started_at = run(carry())
    assert max(arrived_at[place] for place in range(2_501, 2_601)) < started_at + 3 * LATENCY_S
    assert world.events.places(hot.email) == list(range(1, 2_501))
