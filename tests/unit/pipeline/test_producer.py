"""The producer: pages in log order, each tracked before it is sent on, no further than the window allows."""

from __future__ import annotations

from functools import partial

import anyio
import pytest

from kiva_stream.errors import SourceError
from kiva_stream.model.outcomes import SYNCED
from kiva_stream.model.pages import Page
from kiva_stream.model.positions import DAY1
from kiva_stream.pipeline.producer import produce
from tests.fakes.source import FakeLog
from tests.fakes.state_ledger import FakeLedger
from tests.support.entries import customer, entry, position, up_to
from tests.support.waiting import until
from tests.unit.pipeline.builders import make_checkpoint

ANN = customer(1)


async def test_entries_above_the_checkpoint_up_to_the_mark_are_sent_on_page_by_page() -> None:
    log = FakeLog([entry(place, ANN) for place in range(1, 10)], page_rows=3)
    send, receive = anyio.create_memory_object_stream[Page](10)
    await produce(log, make_checkpoint(FakeLedger()), send, after=position(2), mark=up_to(8))
    with receive, anyio.fail_after(5):
        pages = [page async for page in receive]  # ends, since the stream is closed
    assert [[each.position for each in page.entries] for page in pages] == [
        [position(3), position(4), position(5)],
        [position(6), position(7), position(8)],
    ]
    assert [(page.span.last, page.span.size) for page in pages] == [(position(5), 3), (position(8), 3)]


async def test_a_page_is_sent_on_only_when_the_window_has_room_for_it() -> None:
    log = FakeLog([entry(place, ANN) for place in range(1, 10)], page_rows=2)
    checkpoint = make_checkpoint(FakeLedger(), window=4)
    send, receive = anyio.create_memory_object_stream[Page](10)
    async with anyio.create_task_group() as group, receive:
        group.start_soon(checkpoint.run)
        group.start_soon(partial(produce, log, checkpoint, send, after=DAY1, mark=up_to(9)))
        await anyio.wait_all_tasks_blocked()
        assert send.statistics().current_buffer_used == 2
        assert len(log.read) == 6  # what waits for room is the one page read ahead
        first = receive.receive_nowait()
        for _ in range(2):
            first.span.resolve(SYNCED)
        checkpoint.request_commit()
        await until(lambda: len(log.read) == 8)
        assert send.statistics().current_buffer_used == 2
        group.cancel_scope.cancel()


async def test_pages_wait_until_they_are_received() -> None:
    log = FakeLog([entry(place, ANN) for place in range(1, 10)], page_rows=1)
    send, receive = anyio.create_memory_object_stream[Page](1)
    async with anyio.create_task_group() as group, receive:
        checkpoint = make_checkpoint(FakeLedger())
        group.start_soon(partial(produce, log, checkpoint, send, after=DAY1, mark=up_to(9)))
        await anyio.wait_all_tasks_blocked()
        assert len(log.read) == 2
        group.cancel_scope.cancel()


async def test_a_source_that_is_gone_closes_the_stream_after_the_pages_read() -> None:
    log = FakeLog([entry(place, ANN) for place in range(1, 10)], page_rows=2)
    log.breaks_after = 2
    send, receive = anyio.create_memory_object_stream[Page](10)
    with pytest.raises(SourceError):
        await produce(log, make_checkpoint(FakeLedger()), send, after=DAY1, mark=up_to(9))
    with receive, anyio.fail_after(5):
        assert [page.span.last async for page in receive] == [position(2), position(4)]
