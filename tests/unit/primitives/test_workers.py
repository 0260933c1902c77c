"""for_each: every item is worked once, a bounded number at a time, and an error ends all."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from kiva_stream.primitives.workers import for_each
from tests.support.waiting import raises_one, until


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


@pytest.mark.parametrize("at_once", [1, 3, 20])
async def test_every_item_is_worked_once(at_once: int) -> None:
    worked: list[int] = []

    async def work(number: int) -> None:
        await anyio.lowlevel.checkpoint()
        worked.append(number)

    await for_each(numbers(10), work, at_once=at_once)
    assert sorted(worked) == list(range(10))


async def test_no_more_items_are_drawn_than_are_worked_and_one() -> None:
    begun: list[int] = []
    drawn: list[int] = []
    gate = anyio.Event()

    async def items() -> AsyncIterator[int]:
        async for number in numbers(10):
            drawn.append(number)
            yield number

    async def work(number: int) -> None:
        begun.append(number)
        await gate.wait()

    async with anyio.create_task_group() as group:
        group.start_soon(lambda: for_each(items(), work, at_once=2))
        await until(lambda: len(drawn) == 3)
        await anyio.wait_all_tasks_blocked()
        assert (begun, drawn) == ([0, 1], [0, 1, 2])
        gate.set()
    assert begun == list(range(10))


async def test_an_error_cancels_the_other_tasks_and_is_raised() -> None:
    async def work(number: int) -> None:
        if number == 1:
            raise ValueError("no")
        await anyio.sleep_forever()

    with anyio.fail_after(10), raises_one(ValueError):
        await for_each(numbers(10), work, at_once=2)
