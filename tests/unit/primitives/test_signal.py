"""Signal: every waiting task is woken, and no notification is remembered."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from kiva_stream.primitives.signal import Signal


async def test_notify_wakes_every_task_that_waits() -> None:
    signal, woken = Signal(), []

    async def waiter(name: str) -> None:
        await signal.wait()
        woken.append(name)

    async with anyio.create_task_group() as group:
        group.start_soon(waiter, "first")
        group.start_soon(waiter, "second")
        await checkpoint()
        assert woken == []
        signal.notify()
    assert sorted(woken) == ["first", "second"]


async def test_a_notification_is_not_remembered_by_a_later_wait() -> None:
    signal = Signal()
    signal.notify()
    with anyio.move_on_after(0) as scope:
        await signal.wait()
    assert scope.cancelled_caught


async def test_a_task_that_waits_again_needs_another_notification() -> None:
    signal, seen = Signal(), []

    async def waiter() -> None:
        for number in range(2):
            await signal.wait()
            seen.append(number)

    async with anyio.create_task_group() as group:
        group.start_soon(waiter)
        await checkpoint()
        signal.notify()
        await checkpoint()
        assert seen == [0]
        signal.notify()
    assert seen == [0, 1]


@pytest.mark.parametrize("notifications", [0, 3])
async def test_wait_until_returns_when_the_condition_is_true(notifications: int) -> None:
    signal, left = Signal(), notifications

    async def work() -> None:
        nonlocal left
        while left:
            await checkpoint()
            left -= 1
            signal.notify()

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await signal.wait_until(lambda: not left)
    assert left == 0
