"""A drain: which part of the work it stops, and how; and the shutdown on signals, which begins one."""

from __future__ import annotations

import os
import signal

import anyio
import anyio.lowlevel
import pytest

from kiva_stream.errors import DrainTimeoutError
from kiva_stream.runtime.shutdown import Drain, GracefulShutdown


async def test_a_drain_cancels_interruptible_work_which_then_returns_none() -> None:
    drain = Drain()
    async with anyio.create_task_group() as group:
        group.start_soon(_begin_when_idle, drain)
        assert await drain.interrupt(_never) is None
    assert drain.has_begun


async def test_interruptible_work_returns_its_result_without_a_drain() -> None:
    async def work() -> int:
        return 7

    assert await Drain().interrupt(work) == 7


async def test_after_a_drain_interruptible_work_is_not_begun() -> None:
    async def work() -> int:
        begun.append(1)
        return 7

    begun: list[int] = []
    drain = Drain()
    drain.begin()
    assert await drain.interrupt(work) is None
    assert begun == []


async def test_a_result_that_is_there_when_the_drain_begins_is_dropped() -> None:
    async def work() -> int:
        drain.begin()  # the cancellation finds no await any more
        return 7

    drain = Drain()
    assert await drain.interrupt(work) is None


async def test_a_drain_stops_the_innermost_part_alone() -> None:
    async def work() -> None:
        with drain.stops_by(lambda: stopped.append("inner")):
            drain.begin()
            await anyio.lowlevel.checkpoint()  # it would be cancelled here
        stopped.append("returned")

    stopped: list[str] = []
    drain = Drain()
    await drain.interrupt(work)
    assert stopped == ["inner", "returned"]


async def _never() -> int:
    await anyio.sleep_forever()
    return 7


async def _begin_when_idle(drain: Drain) -> None:
    await anyio.wait_all_tasks_blocked()
    drain.begin()


class SignalledWork:
    """Work that sends itself signals, and ends by itself only if `drains`."""

    def __init__(self, *signals: int, drains: bool = False, timeout_s: float = 60.0) -> None:
        self.shutdown = GracefulShutdown(self._drain, timeout_s)
        self.drains = 0
        self.has_returned = False
        self._signals = list(signals)
        self._end = anyio.Event()
        self._is_drainable = drains

    async def go(self) -> None:
        await anyio.wait_all_tasks_blocked()  # the shutdown listens by then
        self._send()
        await self._end.wait()
        self.has_returned = True

    def _drain(self) -> None:
        self.drains += 1
        if self._is_drainable:
            self._end.set()
        self._send()

    def _send(self) -> None:
        if self._signals:
            os.kill(os.getpid(), self._signals.pop(0))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_begins_a_drain_and_work_that_returns_then_has_ended_in_time(number: int) -> None:
    work = SignalledWork(number, drains=True)
    await work.shutdown.run(work.go)
    assert (work.shutdown.signal, work.drains, work.has_returned) == (number, 1, True)
    assert not work.shutdown.was_cut_short


async def test_a_second_signal_cancels_the_work_at_once() -> None:
    work = SignalledWork(signal.SIGTERM, signal.SIGINT)
    await work.shutdown.run(work.go)
    assert (work.shutdown.signal, work.drains, work.has_returned) == (signal.SIGTERM, 1, False)
    assert work.shutdown.was_cut_short


async def test_work_that_does_not_return_in_time_is_cancelled_with_an_error() -> None:
    work = SignalledWork(signal.SIGTERM, timeout_s=0.01)
    with pytest.raises(DrainTimeoutError, match=r"did not finish within 0\.01 s"):
        await work.shutdown.run(work.go)
    assert (work.drains, work.has_returned, work.shutdown.was_cut_short) == (1, False, False)


async def test_work_without_a_signal_returns_as_if_there_were_no_shutdown() -> None:
    async def work() -> None:
        done.append(1)

    done: list[int] = []
    shutdown = GracefulShutdown(lambda: done.append(2), 60.0)
    await shutdown.run(work)
    assert (done, shutdown.signal) == ([1], None)
