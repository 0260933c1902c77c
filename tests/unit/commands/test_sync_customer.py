"""The sync of one customer: what became of its orders."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from kiva_stream.commands.sync_customer import order_counts
from kiva_stream.model.ids import OrderId
from kiva_stream.model.orders import OrderSource, SentOrder

ONE, TWO, THREE = OrderId(1), OrderId(2), OrderId(3)
SENT = SentOrder(ONE, OrderSource.HISTORICAL, b"as it was", datetime(2018, 3, 4, tzinfo=UTC))
LATER = SENT.accepted_at + timedelta(days=1)


def test_an_order_that_was_not_there_was_sent() -> None:
    assert order_counts([ONE], {}, {ONE: SENT}) == {"sent": 1}


def test_an_order_that_is_as_it_was_is_unchanged() -> None:
    assert order_counts([ONE], {ONE: SENT}, {ONE: SENT}) == {"unchanged": 1}


def test_an_order_that_was_there_and_differed_was_sent() -> None:
    again = replace(SENT, fingerprint=b"as it is", accepted_at=LATER)
    assert order_counts([ONE], {ONE: SENT}, {ONE: again}) == {"sent": 1}


def test_an_order_that_activecampaign_refuses_is_refused_now_as_before() -> None:
    refused = replace(SENT, refused="422 finalAmount")
    assert order_counts([ONE], {}, {ONE: refused}) == {"refused": 1}
    assert order_counts([ONE], {ONE: refused}, {ONE: refused}) == {"refused": 1}


def test_an_order_that_was_refused_and_is_taken_now_was_sent() -> None:
    refused = replace(SENT, refused="422 finalAmount")
    assert order_counts([ONE], {ONE: refused}, {ONE: replace(SENT, accepted_at=LATER)}) == {"sent": 1}


def test_an_order_of_which_nothing_is_known_was_not_sent() -> None:
    assert order_counts([ONE], {}, {}) == {"not sent": 1}


def test_every_order_is_counted_once() -> None:
    two, three = replace(SENT, id=TWO), replace(SENT, id=THREE)
    counts = order_counts([ONE, TWO, THREE], {TWO: two}, {TWO: two, THREE: three})
    assert counts == {"not sent": 1, "unchanged": 1, "sent": 1}


def test_a_customer_without_orders_has_no_counts() -> None:
    assert order_counts([], {}, {}) == {}
