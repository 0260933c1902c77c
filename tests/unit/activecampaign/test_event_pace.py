"""The pace of events, and what throttling does to it. In virtual time."""

from __future__ import annotations

import asyncio

import pytest

from kiva_stream.activecampaign.event_pace import EventPace
from kiva_stream.activecampaign.pause import Pause
from tests.support.virtual_time import now, run
from tests.unit.activecampaign.windows import most_in

SECOND = 1.0


def pause() -> Pause:
    return Pause(asyncio.sleep, now)


async def events(pace: EventPace, count: int) -> list[float]:
    """Return when each of `count` events, all wanted now, was admitted."""
    times: list[float] = []

    async def send() -> None:
        await pace.acquire()
        times.append(now())

    await asyncio.gather(*(send() for _ in range(count)))
    return times


@pytest.mark.parametrize("per_second", [1, 2, 5, 60, 500])
def test_no_sliding_second_has_more_events_than_the_setting(per_second: int) -> None:
    times = run(events(EventPace(per_second, Pause(asyncio.sleep, now)), per_second * 5))

    assert most_in(SECOND, times) <= per_second


@pytest.mark.parametrize("per_second", [60, 500])
def test_events_use_nine_tenths_of_their_setting(per_second: int) -> None:
    times = run(events(EventPace(per_second, Pause(asyncio.sleep, now)), per_second * 10))

    assert len(times) / (times[-1] - times[0]) >= 0.9 * per_second


def test_a_setting_of_0_sends_events_as_fast_as_they_come() -> None:
    times = run(events(EventPace(0, Pause(asyncio.sleep, now)), 10_000))

    assert times[-1] - times[0] < 0.001


def test_events_that_waited_for_a_pause_are_paced_after_it() -> None:
    async def story() -> list[float]:
        wait = pause()
        pace = EventPace(10, wait)
        wait.extend(30)
        began = now()
        return [time - began for time in await events(pace, 50)]

    times = run(story())

    assert min(times) >= 30
    assert most_in(SECOND, times) <= 10


def test_events_are_admitted_in_the_order_of_their_calls() -> None:
    async def story() -> list[int]:
        pace = EventPace(60, pause())
        order: list[int] = []

        async def send(number: int) -> None:
            await pace.acquire()
            order.append(number)

        await asyncio.gather(*(send(number) for number in range(200)))
        return order

    assert run(story()) == list(range(200))


class Throttled:
    """A pace, its changes, and when events were admitted; more events are always waiting."""

    def __init__(self, per_second: float, minimum: float = 1) -> None:
        self.pause = pause()
        self.rates: list[tuple[float, float]] = []
        self.pace = EventPace(
            per_second,
            self.pause,
            minimum=minimum,
            clock=now,
            on_change=lambda *rates: self.rates.append(rates),
        )
        self.times: list[float] = []

    async def send(self, for_s: float, apart_s: float = 0.0) -> None:
        """Send events for a while."""
        ends_at = now() + for_s
        while now() < ends_at:
            await self.pace.acquire()
            self.times.append(now())
            if apart_s:
                await asyncio.sleep(apart_s)

    def throttle(self, wait_s: float) -> None:
        """Answer an event with throttling."""
        self.pace.slow_down(wait_s)
        self.pause.extend(wait_s)

    def per_second(self, first_s: float, last_s: float) -> float:
        """Return the rate between two moments."""
        return sum(first_s <= at < last_s for at in self.times) / (last_s - first_s)


def test_throttling_halves_the_pace_once_for_all_events_under_way() -> None:
    async def story() -> tuple[list[tuple[float, float]], float]:
        events = Throttled(60)
        await events.send(2)
        for _ in range(20):
            events.throttle(5)
        began = now()
        await events.send(6)
        return events.rates, events.per_second(began + 5, began + 6)

    rates, per_second = run(story())

    assert rates == [(30, 60)]
    assert per_second == pytest.approx(30, rel=0.1)


def test_a_halved_pace_is_not_lowered_by_sending_on() -> None:
    async def story() -> list[tuple[float, float]]:
        events = Throttled(60)
        events.throttle(0)
        await events.send(0.5)
        return events.rates

    assert run(story()) == [(30, 60)]


def test_the_pace_never_falls_below_its_minimum() -> None:
    async def story() -> list[float]:
        events = Throttled(60, minimum=7)
        for _ in range(6):
            events.throttle(2)
            await asyncio.sleep(2)
        return [rate for rate, _ in events.rates]

    assert run(story()) == [30, 15, 7.5, 7, 7, 7]


def test_a_pace_set_below_the_minimum_is_not_changed_by_throttling() -> None:
    async def story() -> list[tuple[float, float]]:
        events = Throttled(2, minimum=7)
        events.throttle(0)
        return events.rates

    assert run(story()) == [(2, 2)]


def test_the_pace_recovers_by_a_twentieth_of_the_ceiling_every_second() -> None:
    async def story() -> tuple[list[float], float, list[float]]:
        events = Throttled(60)
        events.throttle(5)
        began = now()
        await events.send(25)
        return [rate for rate, _ in events.rates], events.per_second(began + 17, began + 25), events.times

    rates, per_second, times = run(story())

    assert rates == [30, 33, 36, 39, 42, 45, 48, 51, 54, 57, 60]
    assert per_second == pytest.approx(60, rel=0.1)
    assert most_in(SECOND, times) <= 60  # whatever changes in the middle of it


def test_an_event_waiting_to_be_admitted_keeps_a_pause_that_begins_meanwhile() -> None:
    async def story() -> float:
        events = Throttled(1)
        await events.pace.acquire()
        began = now()
        waiting = asyncio.create_task(events.pace.acquire())
        await asyncio.sleep(0.5)
        events.pause.extend(30)
        await waiting
        return now() - began

    assert run(story()) >= 30.5


def test_without_a_limit_the_first_throttling_takes_the_measured_rate_as_the_ceiling() -> None:
    async def story() -> tuple[list[tuple[float, float]], float]:
        events = Throttled(0)
        await events.send(3, apart_s=0.005)  # 200 a second
        events.throttle(2)
        began = now()
        await events.send(2.9)
        return events.rates, events.per_second(began + 2, began + 2.9)

    [(rate, ceiling)], per_second = run(story())

    assert ceiling == pytest.approx(200, rel=0.05)
    assert rate == ceiling / 2
    assert per_second == pytest.approx(rate, rel=0.1)


def test_without_a_limit_there_is_none_again_once_the_pace_has_recovered() -> None:
    async def story() -> float:
        events = Throttled(0)
        await events.send(3, apart_s=0.02)
        events.throttle(2)
        for _ in range(12):
            await asyncio.sleep(1)
            await events.pace.acquire()
        began = now()
        for _ in range(10_000):
            await events.pace.acquire()
        return now() - began

    assert run(story()) < 0.1


def test_without_a_limit_events_that_waited_for_throttling_are_paced_after_it() -> None:
    async def story() -> float:
        events = Throttled(0)
        await events.send(2, apart_s=0.1)  # ten a second
        events.pause.extend(1)
        began = now()
        waiting = [asyncio.create_task(events.pace.acquire()) for _ in range(50)]
        await asyncio.sleep(0.5)
        events.throttle(4.5)
        await asyncio.gather(*waiting)
        return now() - began

    assert 5 + 50 / 10 < run(story()) < 5 + 50 / 5
