"""Sleeps that take no time, waits for a condition, and errors out of groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import anyio
import anyio.lowlevel


async def no_time(_seconds: float, /) -> None:
    """Implement Sleep without time: let other tasks run once, and return."""
    await anyio.lowlevel.checkpoint()


async def until(condition: Callable[[], object]) -> None:
    """Return when a condition holds. Raises TimeoutError after ten seconds."""
    with anyio.fail_after(10):
        while not condition():
            await anyio.lowlevel.checkpoint()


@contextmanager
def raises_one(kind: type[BaseException]) -> Iterator[None]:
    """Expect errors of this kind, however deep in groups, and none of another kind."""
    try:
        yield
    except BaseException as error:
        kinds = {type(each) for each in leaves(error)}
        if kinds != {kind}:
            raise
    else:
        raise AssertionError(f"no {kind.__name__} was raised")


def leaves(error: BaseException) -> Iterable[BaseException]:
    """Yield the errors in a group, however deep; of another error, the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error
