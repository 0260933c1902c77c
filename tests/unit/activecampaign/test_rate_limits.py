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

from kiva_stream.activecampaign.rate_limits import Budget, Pace, Pause, import_budget, request_budget
from tests.virtual_time import now, run

SECOND = 1.0
MINUTE = 60.0


def most_in(window_s: float, times: Sequence[float]) -> int:
    """Return the most of the times in any window; both its ends do not count at once."""
    ordered = sorted(times)
    return max(
        (sum(start <= time < start + window_s - 1e-6 for time in ordered) for start in ordered), default=0
    )


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


def test_who_waits_is_served_first_come_first_served() -> None:
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

    def ask(self, name: str, *, yields: bool = False) -> asyncio.Task[None]:
        """Have a request made, which takes no time."""
        return asyncio.create_task(self._ask(name, yields))

    async def _ask(self, name: str, yields: bool) -> None:
        async with self.budget.behind() if yields else self.budget:
            self.names.append(name)
            self.times.append(now())


def test_who_yields_is_served_behind_all_who_wait_and_keeps_its_order() -> None:
    async def story() -> list[str]:
        served = Served()
        behind = [served.ask(f"behind {number}", yields=True) for number in range(6)]
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


def test_who_comes_while_one_that_yields_waits_for_a_slot_is_served_before() -> None:
    async def story() -> tuple[list[str], float]:
        served = Served(slots=1)
        behind = served.ask("behind", yields=True)
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
def test_nobody_who_yields_passes_one_who_waits_whatever_comes_when_and_gives_up(
    load: list[tuple[float, bool, float, bool]],
) -> None:
    waiting = 0
    arrivals: list[float] = []
    passed: list[int] = []

    async def request(budget: Budget, yields: bool, trip_s: float) -> None:
        nonlocal waiting
        waiting += not yields
        try:
            async with AsyncExitStack() as slots:
                try:
                    await slots.enter_async_context(budget.behind() if yields else budget)
                finally:
                    waiting -= not yields
                if yields:
                    passed.append(waiting)
                arrivals.append(now())
                await asyncio.sleep(trip_s)
        except asyncio.CancelledError:
            pass

    async def later(budget: Budget, start_s: float, yields: bool, trip_s: float, gives_up: bool) -> None:
        await asyncio.sleep(start_s)
        asked = asyncio.create_task(request(budget, yields, trip_s))
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


def test_who_yields_gets_all_that_is_left() -> None:
    async def story() -> tuple[Counter[str], float]:
        served = Served(slots=5)
        behind = [served.ask("behind", yields=True) for _ in range(200)]
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


def test_who_yields_alone_uses_nine_tenths_of_the_limit() -> None:
    async def story() -> list[float]:
        served = Served(slots=5)
        await asyncio.gather(*(served.ask("behind", yields=True) for _ in range(100)))
        return served.times

    times = run(story())

    assert most_in(SECOND, times) <= 5
    assert (len(times) - 1) / (times[-1] - times[0]) >= 0.9 * 5


@pytest.mark.parametrize("yields", [False, True])
@pytest.mark.parametrize("after_s", [0.0, 0.5, 1.2])
def test_one_of_many_who_gives_up_costs_nobody_a_slot(*, yields: bool, after_s: float) -> None:
    async def story() -> list[str]:
        served = Served(slots=1)
        stays = served.ask("served")
        given_up = [served.ask("given up", yields=yields) for _ in range(3)]
        last = served.ask("last", yields=yields)
        await asyncio.sleep(after_s)
        for task in given_up:
            task.cancel()
        await asyncio.gather(stays, last)
        async with served.budget:
            return served.names

    assert run(story()) == ["served", "last"]


def test_a_pause_holds_those_who_yield_too() -> None:
    async def story() -> float:
        served = Served()
        asked = served.ask("behind", yields=True)
        began = now()
        await asyncio.sleep(0.5)
        served.pause.ask(30)
        await asked
        return now() - began

    assert run(story()) >= 30.5


def test_a_request_behind_that_fails_keeps_its_slot_for_a_second_too() -> None:
    async def story() -> list[float]:
        budget = request_budget(1, pause(), now)
        times: list[float] = []
        for _ in range(3):
            with suppress(ConnectionError):
                async with budget.behind():
                    times.append(now())
                    raise ConnectionError
        return times

    assert all(later - earlier >= SECOND for earlier, later in pairwise(run(story())))


def test_a_request_that_fails_keeps_its_slot_for_a_second_too() -> None:
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


def test_who_gives_up_waiting_leaves_its_slot_to_the_next() -> None:
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


def test_a_pause_stops_all_and_is_never_shortened() -> None:
    async def story() -> list[float]:
        wait = pause()
        budget = request_budget(5, wait, now)
        arrivals: list[float] = []
        waiting = [asyncio.create_task(ask([budget], arrivals, 0, 0)) for _ in range(8)]
        began = now()
        await asyncio.sleep(0.5)  # all of them wait by now: for a slot, or in the queue
        wait.ask(30)
        wait.ask(10)
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
        wait.ask(50)
        await asyncio.gather(*waiting)
        return arrivals

    assert most_in(MINUTE, run(story())) <= 100


async def events(pace: Pace, count: int) -> list[float]:
    """Return when each of `count` events, all wanted now, had its turn."""
    times: list[float] = []

    async def send() -> None:
        await pace.turn()
        times.append(now())

    await asyncio.gather(*(send() for _ in range(count)))
    return times


@pytest.mark.parametrize("per_second", [1, 2, 5, 60, 500])
def test_no_sliding_second_has_more_events_than_the_setting(per_second: int) -> None:
    times = run(events(Pace(per_second, Pause(asyncio.sleep, now)), per_second * 5))

    assert most_in(SECOND, times) <= per_second


@pytest.mark.parametrize("per_second", [60, 500])
def test_events_use_nine_tenths_of_their_setting(per_second: int) -> None:
    times = run(events(Pace(per_second, Pause(asyncio.sleep, now)), per_second * 10))

    assert len(times) / (times[-1] - times[0]) >= 0.9 * per_second


def test_a_setting_of_0_lets_events_go_as_fast_as_they_come() -> None:
    times = run(events(Pace(0, Pause(asyncio.sleep, now)), 10_000))

    assert times[-1] - times[0] < 0.001


def test_events_of_a_pause_are_paced_when_it_is_over() -> None:
    async def story() -> list[float]:
        wait = pause()
        pace = Pace(10, wait)
        wait.ask(30)
        began = now()
        return [time - began for time in await events(pace, 50)]

    times = run(story())

    assert min(times) >= 30
    assert most_in(SECOND, times) <= 10


def test_turns_are_handed_out_in_the_order_they_were_asked_for() -> None:
    async def story() -> list[int]:
        pace = Pace(60, pause())
        order: list[int] = []

        async def send(number: int) -> None:
            await pace.turn()
            order.append(number)

        await asyncio.gather(*(send(number) for number in range(200)))
        return order

    assert run(story()) == list(range(200))


# What throttling does to the pace of events


class Throttled:
    """A pace, and what it was at each second of the story; many events are always wanted."""

    def __init__(self, per_second: float, minimum: float = 1) -> None:
        self.pause = pause()
        self.told: list[tuple[float, float]] = []
        self.pace = Pace(per_second, self.pause, minimum, now, lambda *rates: self.told.append(rates))
        self.times: list[float] = []

    async def send(self, for_s: float, apart_s: float = 0.0) -> None:
        """Send events for a while."""
        ends_at = now() + for_s
        while now() < ends_at:
            await self.pace.turn()
            self.times.append(now())
            if apart_s:
                await asyncio.sleep(apart_s)

    def throttle(self, wait_s: float) -> None:
        """Answer an event that way."""
        self.pace.throttled(wait_s)
        self.pause.ask(wait_s)

    def per_second(self, first_s: float, last_s: float) -> float:
        """Return the rate between two moments."""
        return sum(first_s <= at < last_s for at in self.times) / (last_s - first_s)


def test_throttling_halves_the_pace_once_for_all_that_were_under_way() -> None:
    async def story() -> tuple[list[tuple[float, float]], float]:
        events = Throttled(60)
        await events.send(2)
        for _ in range(20):
            events.throttle(5)
        began = now()
        await events.send(6)
        return events.told, events.per_second(began + 5, began + 6)

    told, per_second = run(story())

    assert told == [(30, 60)]
    assert per_second == pytest.approx(30, rel=0.1)


def test_a_pace_that_was_halved_is_not_lowered_by_going_on() -> None:
    async def story() -> list[tuple[float, float]]:
        events = Throttled(60)
        events.throttle(0)
        await events.send(0.5)
        return events.told

    assert run(story()) == [(30, 60)]


def test_the_pace_never_falls_below_its_minimum() -> None:
    async def story() -> list[float]:
        events = Throttled(60, minimum=7)
        for _ in range(6):
            events.throttle(2)
            await asyncio.sleep(2)
        return [rate for rate, _ in events.told]

    assert run(story()) == [30, 15, 7.5, 7, 7, 7]


def test_a_pace_that_is_set_below_the_minimum_stays_as_it_is() -> None:
    async def story() -> list[tuple[float, float]]:
        events = Throttled(2, minimum=7)
        events.throttle(0)
        return events.told

    assert run(story()) == [(2, 2)]


def test_the_pace_comes_back_by_a_twentieth_of_the_ceiling_every_second() -> None:
    async def story() -> tuple[list[float], float, list[float]]:
        events = Throttled(60)
        events.throttle(5)
        began = now()
        await events.send(25)
        return [rate for rate, _ in events.told], events.per_second(began + 17, began + 25), events.times

    rates, per_second, times = run(story())

    assert rates == [30, 33, 36, 39, 42, 45, 48, 51, 54, 57, 60]
    assert per_second == pytest.approx(60, rel=0.1)
    assert most_in(SECOND, times) <= 60  # whatever changes in the middle of it


def test_who_waits_for_a_turn_keeps_a_pause_that_begins_meanwhile() -> None:
    async def story() -> float:
        events = Throttled(1)
        await events.pace.turn()
        began = now()
        waiting = asyncio.create_task(events.pace.turn())
        await asyncio.sleep(0.5)
        events.pause.ask(30)
        await waiting
        return now() - began

    assert run(story()) >= 30.5


def test_without_a_pace_the_first_throttling_makes_one_of_how_fast_it_went() -> None:
    async def story() -> tuple[list[tuple[float, float]], float]:
        events = Throttled(0)
        await events.send(3, apart_s=0.005)  # 200 a second
        events.throttle(2)
        began = now()
        await events.send(2.9)
        return events.told, events.per_second(began + 2, began + 2.9)

    [(rate, ceiling)], per_second = run(story())

    assert ceiling == pytest.approx(200, rel=0.05)
    assert rate == ceiling / 2
    assert per_second == pytest.approx(rate, rel=0.1)


def test_without_a_pace_there_is_none_again_when_it_is_back_where_it_was() -> None:
    async def story() -> float:
        events = Throttled(0)
        await events.send(3, apart_s=0.02)
        events.throttle(2)
        for _ in range(12):
            await asyncio.sleep(1)
            await events.pace.turn()
        began = now()
        for _ in range(10_000):
            await events.pace.turn()
        return now() - began

    assert run(story()) < 0.1


def test_those_who_waited_for_a_pause_without_a_pace_are_paced_after_it() -> None:
    async def story() -> float:
        events = Throttled(0)
        await events.send(2, apart_s=0.1)  # ten a second
        events.pause.ask(1)
        began = now()
        waiting = [asyncio.create_task(events.pace.turn()) for _ in range(50)]
        await asyncio.sleep(0.5)
        events.throttle(4.5)
        await asyncio.gather(*waiting)
        return now() - began

    assert 5 + 50 / 10 < run(story()) < 5 + 50 / 5
