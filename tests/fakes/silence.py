"""Silence of a fake account: a request is made again and again while it gets no answer."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from kiva_stream.errors import Unanswered


async def wait_for_answer(
    is_silent: Callable[[], bool], note: Callable[[], None], *, tries: float, every_s: float = 1.0
) -> None:
    """Wait while a request is silent; note each attempt, and raise Unanswered after so many."""
    while is_silent():
        note()
        tries -= 1
        if tries <= 0:
            raise Unanswered("500")
        await anyio.sleep(every_s)
