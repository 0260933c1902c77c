"""The log tail: which pages come in which order, and when, while a shop changes. In virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from kiva_stream.model.entries import Change, Changes, Entry, ReopenedEntries
from kiva_stream.model.positions import DAY1, HighWaterMark, Position
from kiva_stream.observability.incidents import Incidents
from kiva_stream.observability.logs import ThrottledWarning
from kiva_stream.runtime import log_tail
from kiva_stream.runtime.id_order import IdOrder
from kiva_stream.runtime.log_tail import HIDES_FOR_S, ChangeTail, LogTail
from tests.support.entries import account, customer, entry, moment, position
from tests.support.virtual_time import now, run
from tests.unit.runtime.growing_shop import VIRTUAL_TIME, Story, second, second_of, source_settings

UNUSED_MARK = HighWaterMark(DAY1, moment(0))
ANN, BOB = customer(1), customer(2)
row = partial(entry, who=ANN)


@pytest.fixture(autouse=True)
def _virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_tail, "time", VIRTUAL_TIME)
    monkeypatch.setattr(log_tail, "ThrottledWarning", partial(ThrottledWarning, clock=now))


class OutOfOrder:
    """Stands for DeadLetterReplay and LateArrivals: yields the same pages at every poll."""

    def __init__(self, reopened: list[ReopenedEntries]) -> None:
        self._reopened = reopened

    async def pages(self, _until: Position) -> AsyncIterator[ReopenedEntries]:
        for each in self._reopened:
            yield each


class Followed(Story):
    """A log tail whose reader needs `takes_s` for each page: `came` is what came, in order, with its second.

    Of a poll that is `read_at`, of an entry its txid and customer, of a change its customer.
    """

    def __init__(self, *entries: Entry, for_s: float = 90, takes_s: float = 0, **changes: object) -> None:
        super().__init__(*entries)
        self.came: list[tuple[float, str, Any]] = []
        self.reopened: list[ReopenedEntries] = []
        self.incidents = Incidents()
        self._takes_s = takes_s
        self.is_full = False
        settings = source_settings(**changes)
        out_of_order: Any = OutOfOrder(self.reopened)
        log, horizon, shop_changes = self.source
        self.change_tail = ChangeTail(shop_changes, moment(0), settings.updated_overlap_s)
        self.tail = LogTail(
            log,
            horizon=horizon,
            changes=self.change_tail,
            settings=settings,
            for_s=for_s,
            on_poll=self._polled,
            reopened=[out_of_order],
            id_order=IdOrder(self.source[1], moment(0), self.incidents),
            incidents=self.incidents,
            is_full=lambda: self.is_full,
        )

    def run(self, after: Position = DAY1) -> None:
        run(self.play(self._follow(after)))

    def all(self, kind: str) -> list[tuple[float, Any]]:
        return [(when, what) for when, each, what in self.came if each == kind]

    async def _polled(self, read_at: datetime | None) -> None:
        await anyio.lowlevel.checkpoint()
        self.came.append((second(), "poll", read_at and second_of(read_at)))

    async def _follow(self, after: Position) -> None:
        async for page in self.tail.pages(after, UNUSED_MARK):
            if isinstance(page, Changes):
                self.came += [(second(), "change", each.customer) for each in page.changes]
            elif isinstance(page, ReopenedEntries):
                self.came.append((second(), "reopened", page))
            else:
                self.came += [(second(), "entry", (each.position.txid, each.customer)) for each in page]
            await anyio.sleep(self._takes_s)


def test_reopened_entries_come_at_every_poll_before_the_entries() -> None:
    shop = Followed(row(1), for_s=30)
    shop.reopened.append(ReopenedEntries({position(9): None}, []))
    shop.run()
    kinds = [(when, kind) for when, kind, _ in shop.came if kind != "poll"]
    assert kinds == [(0, "reopened"), (0, "entry"), (20, "reopened")]


def test_entries_above_where_it_begins_come_in_log_order_over_the_polls_and_each_once() -> None:
    shop = Followed(*map(row, range(1, 6)))
    shop.at(5, shop.log.entries.extend, [row(6), row(7)])
    shop.at(45, shop.log.entries.append, row(8))
    shop.run(after=position(2))
    places = [(when, place) for when, (place, _) in shop.all("entry")]
    assert places == [(0, 3), (0, 4), (0, 5), (20, 6), (20, 7), (60, 8)]


def test_an_entry_comes_with_its_customer_as_at_its_own_poll() -> None:
    shop = Followed(row(1))
    moved = replace(ANN, email="new@example.org")
    shop.at(5, shop.log.entries.append, row(2))
    shop.at(5, setattr, shop.log, "people", {ANN.id: account(moved)})
    shop.run()
    assert shop.all("entry") == [(0, (1, ANN)), (20, (2, moved))]


def test_polls_keep_their_interval_however_long_the_pages_take_until_they_take_longer() -> None:
    shop = Followed(row(1), takes_s=15)
    shop.at(30, shop.log.entries.extend, map(row, range(2, 6)))  # two pages: half a minute
    shop.run()
    assert [when for when, _ in shop.all("poll")] == [0, 20, 40, 70]


def test_the_tail_ends_with_the_poll_in_which_its_time_is_over() -> None:
    shop = Followed(for_s=41)
    shop.run()
    assert (len(shop.all("poll")), shop.ended_at) == (3, 60)


def test_a_poll_is_given_none_at_first_then_the_moment_of_the_look_whose_entries_were_all_yielded() -> None:
    shop = Followed(row(1), row(2), row(3), for_s=50, takes_s=5)  # what is committed meanwhile was not read
    shop.at(2, shop.log.entries.append, row(4))
    shop.run()
    assert shop.all("poll") == [(0, None), (20, 0), (40, 20)]
    assert [kind for _, kind, _ in shop.came] == ["poll", *["entry"] * 3, "poll", "entry", "poll"]


# Changes


def test_what_the_shop_changed_comes_before_the_entries_of_the_same_poll() -> None:
    shop = Followed(row(1), for_s=30)
    shop.changes.rows.append(Change(ANN, moment(0.5)))
    shop.change_at(5, BOB, 4.5)
    shop.at(5, shop.log.entries.append, row(2))
    shop.run()
    assert [kind for _, kind, _ in shop.came] == ["poll", "change", "entry"] * 2


def test_a_change_comes_once_although_its_row_is_looked_at_again() -> None:
    shop = Followed()
    shop.change_at(6, ANN, 5.5)
    shop.change_at(26, ANN, 25.5)  # another one
    shop.run()
    assert shop.all("change") == [(20, ANN), (40, ANN)]
    assert sum(since <= 5.5 for since in shop.changes.asked) == 4  # of five looks


@pytest.mark.parametrize(("updated_s", "came_s"), [(35.5, 60), (1.5, 80)])
def test_a_change_whose_commit_is_late_comes_at_once_or_with_the_next_full_look_back(
    updated_s: float, came_s: float
) -> None:
    shop = Followed()
    shop.change_at(45, ANN, updated_s)  # the last look was at 40
    shop.run()
    assert shop.all("change") == [(came_s, ANN)]


def test_what_is_changed_while_changes_are_out_is_found_without_any_overlap() -> None:
    shop = Followed(updated_overlap_s=0, takes_s=5)
    shop.change_at(6, ANN, 5.5)
    shop.change_at(22, BOB, 21.5)  # Ann's change is out
    shop.run()
    assert shop.all("change") == [(20, ANN), (40, BOB)]


@pytest.mark.parametrize(("updated_s", "came"), [(0, [0.7, 30.1]), (0.1, [0.7])])
def test_a_change_of_a_whole_second_may_hide_another_until_the_next_full_look_back(
    updated_s: float, came: list[float]
) -> None:
    shop = Followed(for_s=45, poll_interval_s=0.7, updated_overlap_s=60)
    shop.change_at(0.2, ANN, updated_s)  # and again at 0.9, within the second: the row looks the same
    shop.run()
    assert [when for when, _ in shop.all("change")] == came


def test_a_change_of_a_whole_second_may_hide_another_however_short_the_overlap() -> None:
    shop = Followed(for_s=45, poll_interval_s=0.7, updated_overlap_s=20)
    shop.change_at(0.2, ANN, 0)
    shop.run()
    assert len(shop.all("change")) == 2


def test_a_change_of_a_whole_second_is_not_given_again_for_the_whole_overlap() -> None:
    shop = Followed(for_s=1_000, poll_interval_s=60, updated_overlap_s=3_600)
    shop.change_at(0.2, ANN, 0)
    shop.run()
    assert len(shop.all("change")) <= 1 + HIDES_FOR_S / 60


def test_is_yielding_is_true_while_a_page_of_changes_is_not_taken() -> None:
    shop = Followed(for_s=30)
    shop.changes.rows.append(Change(ANN, moment(0.5)))
    waits: list[bool] = []

    async def take() -> None:
        waits.extend([shop.tail.is_yielding async for _ in shop.tail.pages(DAY1, UNUSED_MARK)])

    run(shop.play(take()))
    assert (waits, shop.tail.is_yielding) == ([True], False)


@pytest.mark.parametrize(
    ("overlap_s", "since"),
    [(3600, [-3600, -30, 20 - 3600, 10, 60 - 3600]), (10, [-10, -10, 10, 30, 50])],
)
def test_a_look_goes_back_half_a_minute_and_once_in_that_time_the_whole_overlap(
    overlap_s: float, since: list[float]
) -> None:
    shop = Followed(updated_overlap_s=overlap_s)
    shop.run()
    assert shop.changes.asked == since  # at 0, 20, 40, 60, 80: back from the look before


def test_yielded_changes_are_remembered_for_the_overlap_only() -> None:
    shop = Followed(for_s=1_000, updated_overlap_s=100)
    remembered: list[int] = []
    for when in range(0, 970, 10):
        shop.change_at(when + 1, ANN, when + 0.5)
        shop.at(when + 2, lambda: remembered.append(shop.change_tail.remembered))
    shop.run()
    assert len(shop.all("change")) == 97
    assert max(remembered) == 10


def held_up(for_s: float) -> Followed:
    shop = Followed(for_s=for_s, poll_interval_s=25, horizon_alarm_s=90)
    shop.log.why = "a lock"
    return shop


def warned(shop: Followed) -> list[float]:
    """Return for how long the log was held up at each warning."""
    with capture_logs() as lines:
        shop.run()
    return [line["for_s"] for line in lines if line["event"] == "the log is held up"]


def test_a_held_up_log_is_warned_of_when_it_lasts_and_then_at_most_once_a_minute() -> None:
    assert warned(held_up(for_s=90)) == []
    assert warned(held_up(for_s=260)) == [100, 175, 250]  # polls are every 25 s


def test_a_held_up_log_that_goes_on_for_a_bit_is_timed_anew() -> None:
    shop = held_up(for_s=190)
    shop.at(60, shop.log.entries.append, row(1))  # read at 75
    assert warned(shop) == [100]


def test_a_log_that_is_held_up_no_more_is_not_warned_of_and_timed_anew() -> None:
    shop = held_up(for_s=290)
    shop.at(130, setattr, shop.log, "why", None)
    shop.at(160, setattr, shop.log, "why", "a lock")  # seen at 175
    assert warned(shop) == [100, 100]


def test_a_log_that_is_held_up_is_an_incident_until_it_is_read_on() -> None:
    shop = held_up(for_s=190)
    told: list[list[str]] = []
    for when_s in (99, 101, 149, 160):
        shop.at(when_s, lambda: told.append([each.why for each in shop.incidents.all()]))
    shop.at(120, setattr, shop.log, "why", "a clock")
    shop.at(151, shop.log.entries.append, row(1))  # read at 175
    shop.at(189, lambda: told.append([each.why for each in shop.incidents.all()]))
    shop.run()
    assert told == [
        [],
        ["a lock It has been seen for 100 s."],
        ["a clock It has been seen for 125 s."],
        ["a clock It has been seen for 150 s."],
        [],
    ]


# Ids that begin anew


def test_a_log_whose_ids_have_begun_anew_is_an_incident_and_is_not_read_on_meanwhile() -> None:
    shop = Followed(row(1), for_s=90)
    told: list[list[str]] = []
    shop.at(5, setattr, shop.log, "restarts", "ids have begun anew")
    shop.at(6, shop.log.entries.append, row(2))
    for when_s in (19, 21, 61):
        shop.at(when_s, lambda: told.append([each.why for each in shop.incidents.all()]))
    shop.at(50, setattr, shop.log, "restarts", None)
    shop.run()
    assert told == [[], ["ids have begun anew"], []]
    assert [when for when, _ in shop.all("entry")] == [0, 60]
    assert [read_at for _, read_at in shop.all("poll")] == [None, 0, 0, 0, 60]


@pytest.mark.parametrize("is_used", [True, False])
def test_entries_that_were_read_by_id_move_the_moment_after_which_ids_have_begun_anew(is_used: bool) -> None:
    newest = moment(1000)
    shop = Followed(*[replace(row(number), inserted_at=newest) for number in (1, 2, 3)], for_s=30)
    shop.log.is_used = is_used
    shop.run()
    assert shop.log.read_by == [moment(0), moment(0) if is_used else newest]


def test_while_so_many_are_parked_changes_come_and_no_entries_and_nothing_counts_as_read() -> None:
    shop = Followed(row(1), for_s=70)
    shop.is_full = True
    shop.change_at(5, ANN, 4.5)
    shop.at(45, setattr, shop, "is_full", False)
    shop.run()
    assert [(when, txid) for when, (txid, _) in shop.all("entry")] == [(60, 1)]
    assert [who for _, who in shop.all("change")] == [ANN]
    assert [read_at for _, read_at in shop.all("poll")] == [None, None, None, None]
