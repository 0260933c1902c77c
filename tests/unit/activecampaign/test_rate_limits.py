"""The budgets hold at the receiver, whatever lies between; all in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiva_stream.activecampaign.pause import Pause
from kiva_stream.activecampaign.rate_limits import Budget, import_budget, request_budget
from tests.support.virtual_time import now, run
from tests.unit.activecampaign.windows import most_in

SECOND = 1.0
MINUTE = 60.0


async def ask(budgets: Sequence[Budget], arrivals: list[float], there_s: float, back_s: float) -> None:
    """Make a request that arrives after `there_s` and is answered after `back_s` more."""
    first, *others = budgets
    async with first:
        if others:
            await ask(others, arrivals, there_s, back_s)
            return
        await asyncio.sleep(there_s)
        arrivals.append(now())
        await asyncio.sleep(back_s)


def pause() -> Pause:
    return Pause(asyncio.sleep, now)


latencies = st.floats(min_value=0, max_value=0.5)
requests = st.tuples(st.floats(min_value=0, max_value=4), latencies, latencies)


@settings(max_examples=60, deadline=None)
@given(load=st.lists(requests, max_size=40), per_second=st.integers(min_value=1, max_value=7))
def test_no_sliding_second_at_the_receiver_holds_more_than_the_limit(
    load: list[tuple[float, float, float]], per_second: int
) -> None:
    async def story() -> list[float]:
        budget = request_budget(per_second, pause(), now)
        arrivals: list[float] = []

        async def later(start_s: float, there_s: float, back_s: float) -> None:
            await asyncio.sleep(start_s)
            await ask([budget], arrivals, there_s, back_s)

        await asyncio.gather(*(later(*request) for request in load))
        return arrivals

    arrivals = run(story())

    assert len(arrivals) == len(load)
    assert most_in(SECOND, arrivals) <= per_second


@settings(max_examples=20, deadline=None)
@given(round_trips=st.lists(st.floats(min_value=0, max_value=0.08), min_size=100, max_size=100))
def test_with_a_backlog_nine_tenths_of_the_limit_are_used(round_trips: list[float]) -> None:
    async def story() -> float:
        budget = request_budget(5, pause(), now)
        began = now()
        await asyncio.gather(*(ask([budget], [], trip / 2, trip / 2) for trip in round_trips))
        return now() - began - SECOND  # the first second belongs to the process before

    assert len(round_trips) / run(story()) >= 0.9 * 5


def test_a_process_starts_with_its_budget_spent() -> None:
    async def story() -> tuple[float, list[float]]:
        budget = request_budget(5, pause(), now)
        began = now()
        arrivals: list[float] = []
        await asyncio.gather(*(ask([budget], arrivals, 0, 0) for _ in range(5)))
        return began, arrivals

    began, arrivals = run(story())

    assert min(arrivals) - began >= SECOND
    assert max(arrivals) - began < SECOND + 0.05


def test_requests_take_slots_first_come_first_served() -> None:
    async def story() -> list[int]:
        budget = request_budget(2, pause(), now)
        served: list[int] = []

        async def request(number: int) -> None:
            async with budget:
                served.append(number)

        await asyncio.gather(*(request(number) for number in range(20)))
        return served

    assert run(story()) == list(range(20))


class Served:
    """A budget of which it is noted who was served, and when."""

    def __init__(self, slots: int = 2) -> None:
        self.pause = pause()
        self.budget = request_budget(slots, self.pause, now)
        self.names: list[str] = []
        self.times: list[float] = []

    def ask(self, name: str, *, low_priority: bool = False) -> asyncio.Task[None]:
        """Have a request made, which takes no time."""
        return asyncio.create_task(self._ask(name, low_priority))

    async def _ask(self, name: str, low_priority: bool) -> None:
        async with self.budget.low_priority() if low_priority else self.budget:
            self.names.append(name)
            self.times.append(now())


def test_low_priority_requests_take_slots_behind_all_others_in_their_own_order() -> None:
    async def story() -> list[str]:
        served = Served()
        behind = [served.ask(f"behind {number}", low_priority=True) for number in range(6)]
        await asyncio.sleep(0.5)
        first = [served.ask(f"first {number}") for number in range(6)]
        await asyncio.sleep(1)  # the first two are served by now
        first += [served.ask(f"late {number}") for number in range(3)]
        await asyncio.gather(*behind, *first)
        return served.names

    assert run(story()) == [
        *(f"first {number}" for number in range(6)),
        *(f"late {number}" for number in range(3)),
        *(f"behind {number}" for number in range(6)),
    ]


def test_a_request_that_comes_while_one_of_low_priority_waits_takes_the_slot_first() -> None:
    async def story() -> tuple[list[str], float]:
        served = Served(slots=1)
        behind = served.ask("behind", low_priority=True)
        await asyncio.sleep(SECOND)  # its slot is nearly ready
        await asyncio.gather(behind, served.ask("first"))
        return served.names, served.times[1] - served.times[0]

    names, apart_s = run(story())

    assert names == ["first", "behind"]
    assert SECOND <= apart_s < 1.1


@settings(max_examples=60, deadline=None)
@given(
    load=st.lists(
        st.tuples(st.floats(min_value=0, max_value=6), st.booleans(), latencies, st.booleans()), max_size=40
    )
)
def test_no_low_priority_request_passes_a_waiting_one_whatever_is_cancelled(
    load: list[tuple[float, bool, float, bool]],
) -> None:
    waiting = 0
    arrivals: list[float] = []
    passed: list[int] = []

    async def request(budget: Budget, low_priority: bool, trip_s: float) -> None:
        nonlocal waiting
        waiting += not low_priority
        try:
            async with AsyncExitStack() as slots:
                try:
                    await slots.enter_async_context(budget.low_priority() if low_priority else budget)
                finally:
                    waiting -= not low_priority
                if low_priority:
                    passed.append(waiting)
                arrivals.append(now())
                await asyncio.sleep(trip_s)
        except asyncio.CancelledError:
            pass

    async def later(
        budget: Budget, start_s: float, low_priority: bool, trip_s: float, gives_up: bool
    ) -> None:
        await asyncio.sleep(start_s)
        asked = asyncio.create_task(request(budget, low_priority, trip_s))
        if gives_up:
            await asyncio.sleep(trip_s)
            asked.cancel()
        await asked

    async def story() -> float:
        budget = request_budget(3, pause(), now)
        await asyncio.gather(*(later(budget, *each) for each in load))
        await asyncio.sleep(2 * SECOND)
        began = now()
        async with AsyncExitStack() as slots:  # no slot was lost
            for _ in range(3):
                await slots.enter_async_context(budget)
        return now() - began

    assert run(story()) < 0.01
    assert not any(passed)
    assert most_in(SECOND, arrivals) <= 3


def test_low_priority_requests_use_all_slots_that_are_left() -> None:
    async def story() -> tuple[Counter[str], float]:
        served = Served(slots=5)
        behind = [served.ask("behind", low_priority=True) for _ in range(200)]
        began = now()
        for _ in range(20):
            await asyncio.gather(served.ask("first"), served.ask("first"))
            await asyncio.sleep(SECOND - now() % SECOND)
        took_s = now() - began - SECOND  # the first second belongs to the process before
        for task in behind:
            task.cancel()
        return Counter(served.names), took_s

    counts, took_s = run(story())

    assert counts["first"] == 40
    assert (counts["first"] + counts["behind"]) / took_s >= 0.9 * 5


def test_low_priority_requests_alone_use_nine_tenths_of_the_limit() -> None:
    async def story() -> list[float]:
        served = Served(slots=5)
        await asyncio.gather(*(served.ask("behind", low_priority=True) for _ in range(100)))
        return served.times

    times = run(story())

    assert most_in(SECOND, times) <= 5
    assert (len(times) - 1) / (times[-1] - times[0]) >= 0.9 * 5


@pytest.mark.parametrize("low_priority", [False, True])
@pytest.mark.parametrize("after_s", [0.0, 0.5, 1.2])
def test_a_request_cancelled_in_the_queue_costs_no_slot(*, low_priority: bool, after_s: float) -> None:
    async def story() -> list[str]:
        served = Served(slots=1)
        stays = served.ask("served")
        given_up = [served.ask("given up", low_priority=low_priority) for _ in range(3)]
        last = served.ask("last", low_priority=low_priority)
        await asyncio.sleep(after_s)
        for task in given_up:
            task.cancel()
        await asyncio.gather(stays, last)
        async with served.budget:
            return served.names

    assert run(story()) == ["served", "last"]


def test_a_pause_holds_low_priority_requests_too() -> None:
    async def story() -> float:
        served = Served()
        asked = served.ask("behind", low_priority=True)
        began = now()
        await asyncio.sleep(0.5)
        served.pause.extend(30)
        await asked
        return now() - began

    assert run(story()) >= 30.5


def test_a_failed_low_priority_request_keeps_its_slot_for_a_second_too() -> None:
    async def story() -> list[float]:
        budget = request_budget(1, pause(), now)
        times: list[float] = []
        for _ in range(3):
            with suppress(ConnectionError):
                async with budget.low_priority():
                    times.append(now())
                    raise ConnectionError
        return times

    assert all(later - earlier >= SECOND for earlier, later in pairwise(run(story())))


def test_a_failed_request_keeps_its_slot_for_a_second_too() -> None:
    async def story() -> list[float]:
        budget = request_budget(1, pause(), now)
        times: list[float] = []
        for _ in range(3):
            with suppress(ConnectionError):
                async with budget:
                    times.append(now())
                    raise ConnectionError
        return times

    assert all(later - earlier >= SECOND for earlier, later in pairwise(run(story())))


def test_a_request_cancelled_before_its_slot_leaves_it_to_the_next() -> None:
    async def story() -> list[float]:
        budget = request_budget(1, pause(), now)
        arrivals: list[float] = []
        gives_up = asyncio.create_task(ask([budget], [], 0, 0))
        stays = asyncio.create_task(ask([budget], arrivals, 0, 0))
        await asyncio.sleep(0.5)
        gives_up.cancel()
        await asyncio.sleep(0)
        began = now()
        await stays
        return [arrivals[0] - began]

    [waited_s] = run(story())

    assert 0.5 <= waited_s < 0.6


def test_a_pause_stops_all_requests_and_is_never_shortened() -> None:
    async def story() -> list[float]:
        wait = pause()
        budget = request_budget(5, wait, now)
        arrivals: list[float] = []
        waiting = [asyncio.create_task(ask([budget], arrivals, 0, 0)) for _ in range(8)]
        began = now()
        await asyncio.sleep(0.5)  # all of them wait by now: for a slot, or in the queue
        wait.extend(30)
        wait.extend(10)
        await asyncio.gather(*waiting)
        return [arrival - began for arrival in arrivals]

    assert min(run(story())) >= 30.5


@settings(max_examples=30, deadline=None)
@given(
    per_minute=st.sampled_from([1, 2, 20, 100]),
    runs=st.lists(st.floats(min_value=0.1, max_value=40), min_size=1, max_size=4),
    there_s=st.lists(st.floats(min_value=0, max_value=0.3), min_size=8, max_size=8),
)
def test_no_sliding_minute_holds_more_imports_than_the_limit_across_restarts(
    per_minute: int, runs: list[float], there_s: list[float]
) -> None:
    async def process(lifetime_s: float, arrivals: list[float]) -> None:
        stop = pause()
        budgets = [import_budget(per_minute, stop, now), request_budget(5, stop, now)]

        async def importer() -> None:
            while True:
                await ask(budgets, arrivals, there_s[len(arrivals) % 8], 0.02)

        importers = [asyncio.create_task(importer()) for _ in range(6)]
        await asyncio.sleep(lifetime_s)
        for task in importers:
            task.cancel()
        await asyncio.gather(*importers, return_exceptions=True)

    async def story() -> list[float]:
        arrivals: list[float] = []
        for lifetime_s in runs:
            await process(lifetime_s, arrivals)
        return arrivals

    assert most_in(MINUTE, run(story())) <= per_minute


def test_imports_use_most_of_their_minute() -> None:
    async def story() -> float:
        budget = import_budget(100, pause(), now)
        began = now()
        await asyncio.gather(*(ask([budget], [], 0.02, 0.02) for _ in range(200)))
        return now() - began

    assert 200 / run(story()) * MINUTE >= 90


def test_a_pause_does_not_pile_up_imports() -> None:
    async def story() -> list[float]:
        wait = pause()
        budgets = [import_budget(100, wait, now), request_budget(5, wait, now)]
        arrivals: list[float] = []
        waiting = [asyncio.create_task(ask(budgets, arrivals, 0, 0)) for _ in range(150)]
        await asyncio.sleep(5)
        wait.extend(50)
        await asyncio.gather(*waiting)
        return arrivals

    assert most_in(MINUTE, run(story())) <= 100
