"""A drain: which part of the work it stops, and how."""

from __future__ import annotations

import anyio
import anyio.lowlevel

from kiva_stream.runtime.shutdown import Drain


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
