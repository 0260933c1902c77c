"""Hops: an item handed from stage to stage at once where that is possible, else as anyio does it.

anyio's `send` and `receive` give way to all other tasks each time. For as many items as there are batches
that costs more than the rest of the hop.
"""

from __future__ import annotations

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


async def take(stream: MemoryObjectReceiveStream[T]) -> T:
    """Receive an item, when there is one. Raises what `receive` raises: EndOfStream after the last."""
    try:
        return stream.receive_nowait()
    except anyio.WouldBlock:
        return await stream.receive()
