"""Draining: waits that a drain gives up."""

from __future__ import annotations

import anyio
import pytest

from kiva_stream.errors import DrainedError
from kiva_stream.pipeline.draining import Draining


async def test_a_wait_that_begins_after_a_drain_is_given_up_at_once() -> None:
    draining = Draining()
    draining.begin()
    with pytest.raises(DrainedError), anyio.fail_after(1), draining.unless_drained():
        await anyio.sleep_forever()


async def test_a_drain_ends_a_sleep_that_is_under_way() -> None:
    draining = Draining(anyio.sleep)
    ended: list[bool] = []

    async def sleep() -> None:
        with pytest.raises(DrainedError):
            await draining.sleep(1e6)
        ended.append(True)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(sleep)
            await anyio.wait_all_tasks_blocked()
            assert ended == []
            draining.begin()
    assert ended == [True]
