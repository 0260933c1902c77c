"""Duplicates: which events the shop wrote twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiva_stream.model.classifications import Noise
from kiva_stream.model.entries import Entry
from kiva_stream.pipeline.duplicates import Duplicates
from tests.support.entries import customer, entry, event, moment
from tests.unit.pipeline.builders import same

ANN, BOB = customer(1), customer(2)


def repeats(*entries: Entry, window: int = 100, within_s: float = 2) -> list[bool]:
    """Return of each entry, all of them events, whether it is a repeat."""
    duplicates = Duplicates(window, within_s)
    return [duplicates.compare_and_add(each, event(1)) for each in entries]


@pytest.mark.parametrize(
    ("apart_s", "is_duplicate"),
    [(0, True), (1.999, True), (2, True), (2.001, False), (-2, True), (-2.001, False)],
)
def test_the_same_entry_within_two_seconds_of_inserted_at_is_a_duplicate(
    apart_s: float, is_duplicate: bool
) -> None:
    assert repeats(same(1, 10), same(2, 10 + apart_s)) == [False, is_duplicate]


@pytest.mark.parametrize(
    "change",
    [
        {"customer_id": BOB.id, "customer": BOB},
        {"action": "login.cookie"},
        {"message": "Logged out."},
        {"data": "{}"},
    ],
)
def test_an_entry_of_another_customer_action_message_or_data_is_no_duplicate(
    change: dict[str, object],
) -> None:
    assert repeats(same(1, 10), same(2, 10, **change)) == [False, False]


def test_duplicates_may_differ_in_occurred_at_and_actor() -> None:
    later = same(2, 10, occurred_at=moment(99), actor_type="admin", admin_user="wayne")
    assert repeats(same(1, 10), later) == [False, True]


def test_each_of_a_row_of_repeats_is_compared_with_the_one_before_it() -> None:
    assert repeats(same(1, 10), same(2, 11.5), same(3, 13), same(4, 15.1)) == [False, True, True, False]


@pytest.mark.parametrize(("between", "is_duplicate"), [(2, True), (3, False)])
@pytest.mark.parametrize("kind", ["events", "others"])
def test_only_the_window_of_positions_before_an_entry_counts(
    between: int, is_duplicate: bool, kind: str
) -> None:
    duplicates = Duplicates(3, 2)
    duplicates.compare_and_add(same(1, 10), event(1))
    for place in range(2, 2 + between):
        duplicates.compare_and_add(entry(place, BOB), event(place) if kind == "events" else Noise())
    assert duplicates.compare_and_add(same(9, 10), event(9)) == is_duplicate


@given(
    st.lists(st.tuples(st.sampled_from("abc "), st.integers(0, 8)), max_size=25),
    st.integers(1, 6),
)
def test_duplicates_are_those_of_the_definition(rows: list[tuple[str, int]], window: int) -> None:
    """A blank is an entry that is no event; seconds may go back, as web nodes' clocks do not agree."""
    duplicates = Duplicates(window, 2)
    for at, (text, second) in enumerate(rows):
        if text == " ":
            duplicates.compare_and_add(entry(at + 1, ANN), Noise())
            continue
        earlier = rows[max(0, at - window) : at]
        expected = any(each == text and abs(second - then) <= 2 for each, then in earlier)
        assert duplicates.compare_and_add(same(at + 1, second, message=text), event(1)) == expected


def test_events_outside_the_window_are_forgotten() -> None:
    duplicates = Duplicates(3, 2)
    for place in range(1, 1_000):
        duplicates.compare_and_add(entry(place, ANN), event(place))
    assert len(duplicates._seen) <= 4
    assert len(duplicates._order) <= 4
