"""The wait for a site that another process holds: the site is held as soon as that one has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TypeVar

import anyio

from kiva_stream.errors import HeldError
from kiva_stream.observability.logs import log

T = TypeVar("T")

WAIT_S = 5.0  # between two attempts to acquire a lease that another process holds


@asynccontextmanager
async def held_when_free(
    holding: Callable[[], AbstractAsyncContextManager[T]], report: Callable[[HeldError], None], *, wait: bool
) -> AsyncIterator[T]:
    """Acquire the site lease.

    If another process holds it: with `wait`, report that once and retry; otherwise raise HeldError.
    """
    has_reported = False
    while True:
        async with AsyncExitStack() as stack:
            try:
                given = await stack.enter_async_context(holding())
            except HeldError as error:
                if not wait:
                    raise
                if not has_reported:
                    report(error)
                    has_reported = True
            else:
                yield given
                return
        await anyio.sleep(WAIT_S)


def report_wait(error: HeldError) -> None:
    """Log which process is waited for."""
    log.info("waiting for the process that holds the site", why=str(error))
