"""What is sent of an order, and what is not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from graphql import parse, validate
from hypothesis import given
from hypothesis import strategies as st

from kiva_stream.activecampaign.orders import QUERY, order_input
from kiva_stream.model.ids import CustomerId, Email, OrderId
from kiva_stream.model.orders import DesiredOrder, LineItem, OrderSource
from kiva_stream.sandbox.activecampaign.order_calls import schema

MAYBE = st.sampled_from(["", "x"])
LINES = st.builds(
    LineItem,
    id=st.just("1"),
    product_id=MAYBE,
    name=MAYBE,
    category=MAYBE,
    quantity=st.just(1),
    price_cents=st.just(0),
)


def desired(status: str, currency: str, lines: list[LineItem]) -> DesiredOrder:
    return DesiredOrder(
        id=OrderId(4),
        customer_id=CustomerId(7),
        email=Email("ann@example.com"),
        created_at=datetime(2024, 3, 2, tzinfo=UTC),
        normalized_status="COMPLETED",
        store_status=status,
        currency=currency,
        total_cents=0,
        discounts_cents=0,
        source=OrderSource.HISTORICAL,
        lines=tuple(lines),
    )


def values(of: object) -> Iterator[object]:
    """Yield a value, and all that is in it."""
    yield of
    inner = of.values() if isinstance(of, dict) else of if isinstance(of, list) else ()
    for each in inner:
        yield from values(each)


@given(MAYBE, MAYBE, st.lists(LINES, max_size=2))
def test_no_empty_text_and_no_empty_object_is_sent(status: str, currency: str, lines: list[LineItem]) -> None:
    sent = order_input(desired(status, currency, lines), 3)
    assert not any(each in ("", {}, None) for each in values(sent))
    assert len(sent["lineItems"]) == len(lines)


def test_an_item_without_a_product_is_sent_without_a_product_id() -> None:
    def item(product: str) -> dict[str, Any]:
        line = LineItem("1", product, "Kale", "menu", 1, 350)
        sent: dict[str, Any] = order_input(desired("complete", "USD", [line]), 3)["lineItems"][0]
        return sent

    assert item("31")["productStorePrimaryId"] == "31"
    assert item("").keys() == item("31").keys() - {"productStorePrimaryId"}


def test_an_order_says_nothing_of_marketing_lists_and_names() -> None:
    sent = order_input(desired("complete", "USD", [LineItem("1", "31", "Kale", "menu", 1, 350)]), 3)
    assert not sent.keys() & {
        "acceptsMarketing",
        "listId",
        "customerData",
        "billingAddress",
        "shippingAddress",
    }


def test_the_orders_are_a_list_without_nulls_which_fits_any_nullability_of_the_argument() -> None:
    assert "$orders: [OrderInput!]!" in QUERY
    assert not validate(schema(), parse(QUERY))
