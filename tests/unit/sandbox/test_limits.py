"""The sandbox's sliding windows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kiva_stream.sandbox.activecampaign.rate_limits import Peak, SlidingWindow


def test_a_window_admits_no_more_than_its_limit() -> None:
    window = SlidingWindow(1.0)

    assert [window.admit(0.1 * step, 5) for step in range(7)] == [True] * 5 + [False] * 2


def test_a_window_slides_so_that_each_slot_is_free_one_period_later() -> None:
    window = SlidingWindow(1.0)
    for at in (0.0, 0.5):
        window.admit(at, 2)

    assert not window.admit(0.875, 2)
    assert window.admit(1.0, 2)
    assert not window.admit(1.375, 2)
    assert window.admit(1.5, 2)


def test_a_limit_of_zero_is_no_limit() -> None:
    window = SlidingWindow(1.0)

    assert all(window.admit(0.0, 0) for _ in range(1000))


@given(st.lists(st.floats(0, 10), max_size=60))
def test_no_sliding_second_admits_more_than_the_limit_whatever_arrives(times: list[float]) -> None:
    window = SlidingWindow(1.0)

    taken = [at for at in sorted(times) if window.admit(at, 5)]

    assert all(sum(end - 1.0 < at <= end for at in taken) <= 5 for end in taken)


def test_the_peak_is_the_busiest_sliding_second_not_the_busiest_calendar_second() -> None:
    peak = Peak()
    for at in (0.5, 0.875, 1.0, 1.25, 1.5, 3.0):
        peak.count(at)

    assert peak.highest == 4
