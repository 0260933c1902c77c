"""Late entries: gaps of ids, what appears in them, and at which pace a log is read. Pure; time is virtual."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import chain, islice
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiva_stream.model.entries import Entry, ReopenedEntries
from kiva_stream.model.positions import DAY1, HighWaterMark, IdGap, Position
from kiva_stream.pipeline import late_arrivals
from kiva_stream.pipeline.late_arrivals import LateArrivals, LogWithLateArrivals
from kiva_stream.settings.sections import SourceSettings
from kiva_stream.source.log import Range, SystemLog
from tests.fakes.source import FakeLog
from tests.support.entries import customer, entry, moment
from tests.support.virtual_time import now, run

FAR = HighWaterMark(Position(0, 2**62), moment(10**6))
SEEN = moment(0)


def at(log_id: int) -> Entry:
    return entry(1, customer(1), position=Position(0, log_id))


class FakeGaps:
    """Stands for the state's gaps, and for the log that has entries of some ids."""

    def __init__(self, *gaps: IdGap) -> None:
        self.gaps = list(gaps)
        self.there: set[int] = set()
        self.parked: list[int] = []
        self.forgotten: list[float] = []

    async def in_id_gaps(self, gaps: Sequence[IdGap], count: int) -> list[Entry]:
        ids = sorted(each for each in self.there if any(gap.first <= each <= gap.last for gap in gaps))
        return [at(each) for each in ids[:count]]

    async def record(self, after: int, until: int, gaps: Sequence[IdGap]) -> None:
        raise NotImplementedError

    async def page(self, after: int, until: int, count: int) -> list[IdGap]:
        return [gap for gap in sorted(self.gaps) if gap.first > after and gap.last <= until][:count]

    async def record_found(
        self, before: Sequence[IdGap], after: Sequence[IdGap], found: Sequence[Position]
    ) -> None:
        self.gaps = [gap for gap in self.gaps if gap not in before] + list(after)
        self.parked += [position.id for position in found]

    async def expire(self, keep_s: float) -> None:
        self.forgotten.append(keep_s)


def given_out(gaps: FakeGaps, until: int = 2**62) -> list[list[int]]:
    """Return what is late, by its pages."""

    async def story() -> list[list[int]]:
        found = LateArrivals(gaps, gaps, 60).pages(Position(0, until))
        return [[each.position.id for each in page.entries] async for page in found]

    return run(story())


@given(st.sets(st.integers(5, 30)))
def test_a_gap_without_some_ids_has_just_the_other_ids(ids: set[int]) -> None:
    left = IdGap(5, 30, SEEN).without(ids)
    assert sorted(each for gap in left for each in range(gap.first, gap.last + 1)) == sorted(
        set(range(5, 31)) - ids
    )
    assert all(gap.first <= gap.last for gap in left)


def test_an_entry_that_appears_in_a_gap_is_given_once_and_parked_before() -> None:
    gaps = FakeGaps(IdGap(3, 9, SEEN), IdGap(20, 20, SEEN))
    assert given_out(gaps) == []
    gaps.there = {5, 20, 21}
    assert given_out(gaps) == [[5, 20]]
    assert gaps.parked == [5, 20]
    assert sorted(gaps.gaps) == [IdGap(3, 4, SEEN), IdGap(6, 9, SEEN)]
    assert given_out(gaps) == []


def test_a_late_entry_is_counted_as_late() -> None:
    gaps = FakeGaps(IdGap(3, 9, SEEN))
    gaps.there = {4}

    async def story() -> list[ReopenedEntries]:
        return [page async for page in LateArrivals(gaps, gaps, 60).pages(Position(0, 10))]

    (page,) = run(story())
    assert [each.notes for each in page.entries] == [("late",)]
    assert page.to_reopen == {Position(0, 4): None}
    assert page.are_late


def test_a_gap_above_what_has_been_read_is_left_to_the_reading() -> None:
    gaps = FakeGaps(IdGap(3, 9, SEEN))
    gaps.there = {4}
    assert given_out(gaps, until=8) == []
    assert gaps.gaps == [IdGap(3, 9, SEEN)]


def test_many_late_entries_come_in_pages_and_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_arrivals, "PAGE_GAPS", 2)
    monkeypatch.setattr(late_arrivals, "PAGE_ROWS", 3)
    gaps = FakeGaps(*(IdGap(low, low + 5, SEEN) for low in range(10, 100, 10)))
    gaps.there = {each for each in range(200) if each % 2}
    pages = given_out(gaps)
    assert sorted(chain.from_iterable(pages)) == [
        each for each in range(10, 100) if each % 2 and each % 10 < 6
    ]
    assert max(map(len, pages)) == 3


def test_gaps_are_forgotten_after_they_were_looked_at() -> None:
    gaps = FakeGaps()
    assert given_out(gaps) == []
    assert gaps.forgotten == [60]


def test_a_log_that_is_read_once_has_what_is_late_before_and_after_it() -> None:
    gaps = FakeGaps(IdGap(1, 2, SEEN), IdGap(6, 6, SEEN))
    gaps.there = {1, 6}

    async def story() -> list[list[int]]:
        log = LogWithLateArrivals(FakeLog([at(4), at(7)], page_rows=1), LateArrivals(gaps, gaps, 60))
        pages = log.pages(Position(0, 3), FAR)
        return [
            [each.position.id for each in (page.entries if isinstance(page, ReopenedEntries) else page)]  # type: ignore[union-attr]
            async for page in pages
        ]

    assert run(story()) == [[1], [4], [7], [6]]


# Pace


class FakeSource:
    """Stands for the source: so many rows of noise, in ranges of three pages."""

    def __init__(self, pages: int, rows: int) -> None:
        self._rows = iter(
            [[self._row(page * rows + row + 1) for row in range(rows)] for page in range(pages)]
        )

    @staticmethod
    def _row(log_id: int) -> tuple[Any, ...]:
        return (1, log_id, moment(0), moment(0), "noise", None, None, "", None, None)

    async def read(self, _reading: object) -> Range:
        pages = list(islice(self._rows, 3))
        return Range(pages, is_last=len(pages) < 3)


class APageAtATime(FakeSource):
    """Stands for the source of a log that had grown by a page each time it is looked at."""

    async def read(self, _reading: object) -> Range:
        return Range(list(islice(self._rows, 1)), is_last=True)


def read_at(max_rows_per_s: int) -> list[float]:
    """Return when each of seven pages of 100 rows came, by whoever needs a second for the third."""

    async def story() -> list[float]:
        settings = SourceSettings(dsn="postgresql://shop", site_id=1, max_rows_per_s=max_rows_per_s)
        log = SystemLog(FakeSource(7, 100), settings, None)  # type: ignore[arg-type]
        began_at, came = now(), []
        async for _ in _pages(log):
            came.append(round(now() - began_at, 1))
            if len(came) == 3:
                await anyio.sleep(9)
        return came

    return run(story())


async def _pages(log: SystemLog) -> AsyncIterator[list[Entry]]:
    async for page in log.pages(DAY1, HighWaterMark(Position(2, 0), moment(10)), settle=False):
        yield page


def test_rows_come_no_faster_than_they_may_and_what_was_missed_is_not_made_up_for() -> None:
    assert read_at(50) == [0, 2, 4, 13, 15, 17, 19]


def test_the_pace_is_kept_from_one_look_at_the_log_to_the_next() -> None:
    async def story() -> list[float]:
        settings = SourceSettings(dsn="postgresql://shop", site_id=1, max_rows_per_s=50)
        log = SystemLog(APageAtATime(3, 100), settings, None)  # type: ignore[arg-type]
        began_at = now()
        return [round(now() - began_at, 1) for _ in range(3) async for _ in _pages(log)]

    assert run(story()) == [0, 2, 4]


def test_without_a_pace_rows_come_as_fast_as_they_go() -> None:
    assert read_at(0) == [0, 0, 0, 9, 9, 9, 9]
