"""What is a discrepancy and what is none: of contacts, week tags, orders and events. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kiva_stream.model.contacts import DesiredContact, ListStatus, ShownContact
from kiva_stream.model.ids import CustomerId, Email, OrderId
from kiva_stream.model.orders import DesiredOrder, LineItem, OrderSource, ShownOrder
from kiva_stream.model.positions import Position
from kiva_stream.model.tracked_events import LoggedEvent
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.verification.discrepancies import (
    DiscrepancyKind,
    EventDifferences,
    ExpectedEvent,
    compare_events,
    contact_differences,
    order_difference,
    tag_difference,
)

AT = datetime(2026, 11, 26, 12, 0, 0, 500_000, tzinfo=UTC)
TITLES = {
    "customer_id": "Kiva Customer ID",
    "status": "Kiva Status",
    "box_type": "Kiva Box Type",
    "next_delivery": "Kiva Next Delivery",
    "cancel_date": "Kiva Cancel Date",
    "birthday": "Kiva Birthday",
}
ANN = DesiredContact(
    Email("ann@example.org"), "Ann", "", "", "7", ListStatus.KEEP, status="active", box_type="Box M"
)
SHOWN = ShownContact(
    Email("ann@example.org"),
    "Ann",
    "Archer",
    "+1 555",
    {"customer_id": "7", "status": "active", "box_type": "Box M", "birthday": ""},
    is_subscribed=True,
)


def kinds(desired: DesiredContact, shown: ShownContact) -> list[DiscrepancyKind]:
    return [difference.kind for difference in contact_differences(desired, shown, TITLES)]


def test_a_contact_as_it_is_wanted_has_no_discrepancy_whatever_was_not_sent() -> None:
    assert kinds(ANN, SHOWN) == []  # last name and phone are empty at the shop: those there stay


@pytest.mark.parametrize(
    ("desired", "shown", "found"),
    [
        (ANN, replace(SHOWN, email=Email("other@example.org")), [DiscrepancyKind.ADDRESS]),
        (ANN, replace(SHOWN, first_name="Anne"), [DiscrepancyKind.FIELDS]),
        (ANN, replace(SHOWN, fields={**SHOWN.fields, "status": "paused"}), [DiscrepancyKind.FIELDS]),
        (ANN, replace(SHOWN, fields={**SHOWN.fields, "cancel_date": "2020-01-01"}), [DiscrepancyKind.FIELDS]),
        (replace(ANN, box_type=None), replace(SHOWN, fields={**SHOWN.fields, "box_type": "any"}), []),
        (replace(ANN, list_status=ListStatus.UNSUBSCRIBE), SHOWN, [DiscrepancyKind.LIST]),
        (replace(ANN, list_status=ListStatus.UNSUBSCRIBE), replace(SHOWN, is_subscribed=False), []),
        (ANN, replace(SHOWN, is_subscribed=False), []),  # who left the list by themselves stays off it
    ],
)
def test_what_differs_of_a_contact_is_a_discrepancy(
    desired: DesiredContact, shown: ShownContact, found: list[DiscrepancyKind]
) -> None:
    assert kinds(desired, shown) == found


def test_a_discrepancy_names_what_differs_and_quotes_no_value() -> None:
    desired = replace(ANN, first_name="Annabel", birthday="1904-05-06")
    (difference,) = contact_differences(desired, SHOWN, TITLES)
    assert difference.what == "not as at the shop: first name, Kiva Birthday"


@pytest.mark.parametrize(
    ("wanted", "there", "is_discrepancy"),
    [
        (WeekTag.OPEN, {WeekTag.OPEN}, False),
        (WeekTag.OPEN, set(), True),
        (WeekTag.OPEN, {WeekTag.NONE}, True),
        (WeekTag.OPEN, {WeekTag.OPEN, WeekTag.NONE}, True),
        (None, set(), False),
        (None, {WeekTag.OPEN}, True),
    ],
)
def test_any_week_tags_but_the_one_wanted_are_a_discrepancy(
    wanted: WeekTag | None, there: set[WeekTag], *, is_discrepancy: bool
) -> None:
    assert (tag_difference(wanted, there) is not None) is is_discrepancy


LINES = (LineItem("1", "11", "Kale", "menu", 2, 350), LineItem("2", "12", "Eggs", "addon", 1, 499))
ORDER = DesiredOrder(
    OrderId(4),
    CustomerId(7),
    Email("ann@example.org"),
    AT,
    "COMPLETED",
    "complete",
    "USD",
    3150,
    100,
    OrderSource.HISTORICAL,
    LINES,
)
SHOWN_ORDER = ShownOrder(
    "7",
    "2026-11-26T12:00:00Z",
    "COMPLETED",
    "complete",
    "usd",
    Decimal("3150.00"),
    Decimal(100),
    "HISTORICAL",
    (("2", "12", "Eggs", "addon", 1, Decimal(499)), ("1", "11", "Kale", "menu", 2, Decimal("350.0"))),
)


def test_an_order_as_it_is_wanted_has_no_discrepancy_in_whatever_order_its_items_come() -> None:
    assert order_difference(ORDER, SHOWN_ORDER) is None


def test_an_order_that_is_not_there_is_a_discrepancy() -> None:
    difference = order_difference(ORDER, None)
    assert difference
    assert difference.kind is DiscrepancyKind.NO_ORDER


@pytest.mark.parametrize(
    ("shown", "name"),
    [
        (replace(SHOWN_ORDER, customer_id="8"), "customer id"),
        (replace(SHOWN_ORDER, created_at="2026-11-26T12:00:01Z"), "created at"),
        (replace(SHOWN_ORDER, normalized_status="REFUNDED"), "normalized status"),
        (replace(SHOWN_ORDER, total_cents=Decimal("3150.01")), "total cents"),
        (replace(SHOWN_ORDER, source="REAL_TIME"), "source"),
        (replace(SHOWN_ORDER, lines=SHOWN_ORDER.lines[:1]), "lines"),
    ],
)
def test_whatever_differs_of_an_order_is_named(shown: ShownOrder, name: str) -> None:
    difference = order_difference(ORDER, shown)
    assert difference
    assert (difference.kind, difference.what) == (DiscrepancyKind.ORDER, f"order 4 differs: {name}")


# --- events


def event(number: int, *, delivered: int | None = 0, at: str | None = "x") -> ExpectedEvent:
    """Return the event of an entry, delivered some minutes after the first."""
    moment = None if delivered is None else AT + timedelta(minutes=delivered)
    return ExpectedEvent(Position(number, number), 1, "Log In", at, f"at={at}; log={number}", moment)


def listed(*numbers: int, at: str = "x", name: str = "Log In") -> list[LoggedEvent]:
    return [LoggedEvent(name, f"at={at}; log={number}", None) for number in numbers]


def found(expected: Sequence[ExpectedEvent], logged: Sequence[LoggedEvent]) -> EventDifferences:
    return compare_events(expected, logged, {"Log In"})


def ids(events: Sequence[ExpectedEvent]) -> list[int]:
    return [each.position.id for each in events]


@given(st.lists(st.integers(1, 50), unique=True).map(sorted))
def test_a_log_that_lists_each_event_once_and_in_order_has_no_discrepancy(numbers: list[int]) -> None:
    assert found([event(number) for number in numbers], listed(*numbers)) == EventDifferences(
        [], [], [], [], []
    )


def test_a_missing_event_is_told_apart_from_what_the_log_may_have_dropped() -> None:
    result = found([event(number) for number in (1, 2, 3, 4)], listed(2, 4))
    assert (ids(result.missing), ids(result.not_listed)) == ([3], [1])


def test_a_log_that_lists_nothing_may_have_dropped_all() -> None:
    result = found([event(1), event(2)], [])
    assert (ids(result.missing), ids(result.not_listed)) == ([], [1, 2])


def test_an_event_delivered_before_the_oldest_listed_may_have_been_dropped_whatever_its_position() -> None:
    replayed, early = event(1, delivered=9), event(2, delivered=5)
    result = found([replayed, early], listed(1))
    assert (ids(result.missing), ids(result.not_listed)) == ([], [2])


def test_an_event_that_the_state_knows_nothing_of_is_missing_by_its_position() -> None:
    assert ids(found([event(1), event(2, delivered=None), event(3)], listed(1, 3)).missing) == [2]


def test_a_repeated_event_is_not_out_of_order() -> None:
    result = found([event(1), event(2), event(3)], listed(1, 2, 3, 2))
    assert (ids(result.repeated), result.out_of_order) == ([2], [])


def test_an_event_after_a_later_one_is_out_of_order_unless_the_ledger_says_it_came_late() -> None:
    logged = listed(1, 3, 2)
    assert ids(found([event(1), event(2), event(3)], logged).out_of_order) == [2]
    assert ids(found([event(1), event(2, delivered=9), event(3)], logged).out_of_order) == []
    assert ids(found([event(1), event(2, delivered=None), event(3)], logged).out_of_order) == [2]


def test_an_unexpected_event_is_returned_with_its_name_and_mark() -> None:
    result = found([event(1)], [*listed(1, 7), *listed(1, at="y")])
    assert [(name, mark.at, mark.log) for name, mark in result.unexpected] == [
        ("Log In", "x", 7),
        ("Log In", "y", 1),
    ]


def test_an_event_whose_entry_cannot_be_read_any_more_is_known_by_name_and_log() -> None:
    assert found([event(1, at=None)], listed(1, at="y")) == EventDifferences([], [], [], [], [])


def test_events_of_other_names_are_passed_over() -> None:
    logged = [*listed(1), *listed(2, name="Page visited"), LoggedEvent("Log In", "by hand", None)]
    assert found([event(1)], logged) == EventDifferences([], [], [], [], [])


@pytest.mark.parametrize("lost", [1, 2, 5])
def test_a_listed_event_whose_data_is_cut_is_known_by_what_lies_within(lost: int) -> None:
    whole = f"{'x' * (250 + lost - len('; at=x; log=11'))}; at=x; log=11"
    cut = LoggedEvent("Log In", whole[:250], None)
    assert found([event(11)], [cut]) == EventDifferences([], [], [], [], [])
