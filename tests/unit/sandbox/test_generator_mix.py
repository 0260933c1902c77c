from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kiva_stream.model.event_catalog import CATALOG
from kiva_stream.sandbox.generator.mix import GENERATED, KINDS, RAMP, WEEKS, Quotas, by_week, totals


def share_of(sort: str) -> float:
    return sum(kind.share for kind in KINDS.values() if kind.sort == sort)


@pytest.mark.parametrize(("sort", "percent"), [("event", 50.2), ("sync_only", 19.8), ("noise", 30.0)])
def test_the_three_classes_have_their_shares(sort: str, percent: float) -> None:
    assert share_of(sort) == pytest.approx(percent)


def test_every_event_line_of_the_catalog_is_a_kind_with_its_share() -> None:
    assert {line.number: line.pct for line in CATALOG.events} == {
        key: kind.share for key, kind in KINDS.items() if kind.sort == "event"
    }


@given(st.integers(0, 5_000_000))
def test_the_kinds_add_up_to_the_entries_asked_for(entries: int) -> None:
    counts = totals(entries)
    assert sum(counts.values()) == entries
    assert all(abs(count - entries * KINDS[key].share / 100) <= 1 for key, count in counts.items())


@example(0, 1.0)
@given(st.integers(0, 100_000), st.floats(0, 1))
def test_the_weeks_of_a_kind_add_up_and_none_is_negative(total: int, earliness: float) -> None:
    weeks = by_week(total, RAMP, earliness)
    assert len(weeks) == WEEKS
    assert sum(weeks) == total
    assert min(weeks) >= 0


def test_the_weeks_grow_in_a_line_from_800_to_6200_completed_orders() -> None:
    quotas = Quotas(2_500_000)
    completed = [quotas.take(41, week) for week in range(WEEKS)]
    assert sum(completed) == 180_000
    assert completed[-1] / completed[0] == pytest.approx(6200 / 800, rel=0.02)
    assert completed[26] == pytest.approx((completed[0] + completed[-1]) / 2, rel=0.02)


def test_more_orders_are_generated_in_the_last_week_than_will_be_closed() -> None:
    assert sum(GENERATED) > sum(RAMP)
    assert GENERATED[:-1] == RAMP[:-1]
