"""Leftovers: what earlier runs left comes before the log."""

from __future__ import annotations

import pytest

from kiva_stream.model.entries import Change, Changes, ReopenedEntries
from kiva_stream.model.ids import ContactId
from kiva_stream.model.outcomes import Reason
from kiva_stream.pipeline import leftovers
from kiva_stream.pipeline.leftovers import LeftoversFirst
from tests.fakes.source import FakeEntries, FakeLog
from tests.fakes.state_ledger import FakeLedger
from tests.support.entries import customer, entry, moment, position, up_to


async def test_leftovers_come_first_in_log_order_and_those_above_the_watermark_where_they_are_read() -> None:
    log = FakeLog([entry(place, customer(place)) for place in range(1, 8)])
    changes = [Change(customer(1), moment(1))]
    replays = {position(3): Reason.NO_EMAIL, position(1): Reason.EVENT_REJECTED}
    left = FakeLedger()
    left.parked = dict.fromkeys([position(6), position(4), position(2)], ContactId(1))
    pages = [
        page
        async for page in LeftoversFirst(
            log, FakeEntries(log), parked=left, replays=replays, changes=changes
        ).pages(position(5), up_to(7))
    ]
    parked_page, replayed, changed, read = pages
    assert isinstance(parked_page, ReopenedEntries)
    assert isinstance(replayed, ReopenedEntries)
    assert parked_page.to_reopen == {position(2): None, position(4): None}
    assert [*replayed.to_reopen] == [position(1), position(3)]
    assert replayed.to_reopen == replays
    assert [each.position for each in parked_page.entries] == [position(2), position(4)]
    assert isinstance(changed, Changes)
    assert isinstance(read, list)
    assert [each.position for each in read] == [position(6), position(7)]


async def test_leftovers_come_a_page_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "PAGE_ROWS", 2)
    log = FakeLog([entry(place, customer(place)) for place in range(1, 6)])
    left = FakeLedger()
    left.parked = {position(place): ContactId(1) for place in range(1, 6)}
    pages = [
        page async for page in LeftoversFirst(log, FakeEntries(log), parked=left).pages(position(5), up_to(5))
    ]
    assert [len(page.to_reopen) for page in pages if isinstance(page, ReopenedEntries)] == [2, 2, 1]
