"""Hops: an item handed from stage to stage at once where that is possible, else as anyio does it.

anyio's `send` and `receive` give way to all other tasks each time: 24 µs a hop instead of 3, with 20 who
receive, and there are many batches.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

T = TypeVar("T")


async def put(stream: MemoryObjectSendStream[T], item: T) -> None:
    """Send an item, when there is room for it. Raises what `send` raises."""
    try:
        stream.send_nowait(item)
    except anyio.WouldBlock:
        await stream.send(item)


async def take(stream: MemoryObjectReceiveStream[T]) -> T | None:
    """Receive an item, when there is one; None: there are no more."""
    with suppress(anyio.EndOfStream):
        try:
            return stream.receive_nowait()
        except anyio.WouldBlock:
            return await stream.receive()
    return None
