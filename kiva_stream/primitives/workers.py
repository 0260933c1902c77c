"""A bounded number of tasks for a stream of items."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

T = TypeVar("T")


async def for_each(items: AsyncIterator[T], work: Callable[[T], Awaitable[object]], *, at_once: int) -> None:
    """Call `work` with every item, with up to `at_once` of them at a time.

    The next item is drawn when the one before it was handed to a task.
    Raises ExceptionGroups of what `items` and `work` raise; the other tasks are cancelled then.
    """
    send, receive = anyio.create_memory_object_stream[T]()
    async with anyio.create_task_group() as tasks, receive:
        for _ in range(at_once):
            tasks.start_soon(_work_each, receive.clone(), work)
        async with send:
            async for item in items:
                await send.send(item)


async def _work_each(items: MemoryObjectReceiveStream[T], work: Callable[[T], Awaitable[object]]) -> None:
    async with items:
        async for item in items:
            await work(item)
