"""Sends to a memory stream and receives from it, without a task switch unless it is full or empty.

anyio's `send` and `receive` always yield to the event loop. With 20 receivers that costs 24 µs an item,
not 3.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

T = TypeVar("T")


async def put(stream: MemoryObjectSendStream[T], item: T) -> None:
    """Send an item; wait for room if there is none. Raises what `send` raises."""
    try:
        stream.send_nowait(item)
    except anyio.WouldBlock:
        await stream.send(item)


async def take(stream: MemoryObjectReceiveStream[T]) -> T | None:
    """Receive an item; wait for one if there is none. None: the stream has ended."""
    with suppress(anyio.EndOfStream):
        try:
            return stream.receive_nowait()
        except anyio.WouldBlock:
            return await stream.receive()
    return None
