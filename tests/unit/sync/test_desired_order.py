"""The order that ActiveCampaign should show for an order of the shop."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kiva_stream.model.ids import ContactId, CustomerId, Email, OrderId
from kiva_stream.model.orders import DesiredOrder, LineItem, Order, OrderItem, OrderSource
from kiva_stream.sync.desired_order import MAX_NAME, desired_order, fingerprint, invalid, order_source

ANN = Email("ann@example.com")
PAID = datetime(2018, 11, 29, 2, tzinfo=UTC)
DAY_S = 86_400
KALE = OrderItem(
    id=9, product_id=31, name="Kale", category="addon", qty=Decimal("2.00"), unit_price_cents=350
)
ORDER = Order(
    id=OrderId(184201),
    customer_id=CustomerId(5123),
    status="complete",
    payment_status="completed",
    created_at=datetime(2018, 11, 23, 17, 30, tzinfo=UTC),
    paid_at=PAID,
    total_cents=4250,
    discount_cents=300,
    credit_cents=50,
    items=(KALE,),
)


def desired(*, was_accepted: bool = False, **changes: Any) -> DesiredOrder:  # noqa: ANN401  columns are of any type
    """Return what is wanted of the order above, but for the changes."""
    return desired_order(
        replace(ORDER, **changes),
        ANN,
        currency="USD",
        source=OrderSource.HISTORICAL,
        was_accepted=was_accepted,
    )


def line(**changes: Any) -> LineItem | None:  # noqa: ANN401
    """Return the line of the item above, but for the changes; None when it is left out."""
    lines = desired(items=(replace(KALE, **changes),)).lines
    return lines[0] if lines else None


def made(**changes: Any) -> LineItem:  # noqa: ANN401
    """Return the line of an item that has one."""
    found = line(**changes)
    assert found is not None
    return found


def test_an_order_is_shown_as_the_shop_has_it() -> None:
    assert desired() == DesiredOrder(
        id=OrderId(184201),
        customer_id=CustomerId(5123),
        email=ANN,
        created_at=ORDER.created_at,
        normalized_status="COMPLETED",
        store_status="complete",
        currency="USD",
        total_cents=4250,
        discounts_cents=350,
        source=OrderSource.HISTORICAL,
        lines=(LineItem("9", "31", "Kale", "addon", quantity=2, price_cents=350),),
    )


def test_items_keep_their_order() -> None:
    items = [replace(KALE, id=number) for number in (3, 7, 9)]
    assert [line.id for line in desired(items=tuple(items)).lines] == ["3", "7", "9"]


@pytest.mark.parametrize(
    ("status", "payment_status", "paid_at", "was_accepted", "shown"),
    [
        ("complete", "refunded", PAID, True, "REFUNDED"),
        ("cancelled", "refunded", None, False, "REFUNDED"),  # the first that fits
        ("cancelled", "completed", PAID, False, "CANCELLED"),
        ("skipped", "failed", None, True, "CANCELLED"),
        ("complete", "failed", None, True, "FAILED"),
        ("complete", "failed", PAID, True, "COMPLETED"),  # paid_at says that it is paid
        ("closed", "pending", None, True, "FAILED"),
        ("open", "completed", None, True, "COMPLETED"),
        ("open", "completed", PAID, False, "COMPLETED"),
    ],
)
def test_the_first_status_that_fits_is_shown(
    status: str, payment_status: str, paid_at: datetime | None, was_accepted: bool, shown: str
) -> None:
    order = desired(status=status, payment_status=payment_status, paid_at=paid_at, was_accepted=was_accepted)
    assert (order.normalized_status, order.store_status) == (shown, status)


def test_row_35_a_negative_total_cannot_be_sent_and_says_why() -> None:
    assert invalid(replace(ORDER, total_cents=-1)) == "its total is negative"


@pytest.mark.parametrize("total", [0, 1, 1_000_001, 4250])
def test_row_35_any_other_total_is_sent_though_the_lines_do_not_add_up(total: int) -> None:
    assert invalid(replace(ORDER, total_cents=total)) == ""
    assert desired(total_cents=total).total_cents == total


@pytest.mark.parametrize("qty", ["1", "3.00", "1.5"])
def test_a_negative_price_is_0_and_counted_and_the_total_stands(qty: str) -> None:
    odd = replace(KALE, unit_price_cents=-350, qty=Decimal(qty))
    order = desired(items=(odd, KALE, odd, replace(odd, qty=Decimal(0))))
    assert [line.price_cents for line in order.lines] == [0, 350, 0]
    assert order.notes == ("negative_price",) * 2
    assert order.total_cents == ORDER.total_cents


@pytest.mark.parametrize(("discount", "credit", "shown"), [(-300, 50, 0), (0, -1, 0), (-300, 350, 50)])
def test_a_negative_discount_is_0_and_counted_and_the_total_stands(
    discount: int, credit: int, shown: int
) -> None:
    order = desired(discount_cents=discount, credit_cents=credit)
    assert order.discounts_cents == shown
    assert order.notes == (() if shown else ("negative_discount",))
    assert order.total_cents == ORDER.total_cents


@pytest.mark.parametrize("category", ["menu", "sub", "addon"])
def test_a_known_category_is_shown(category: str) -> None:
    assert made(category=category).category == category
    assert desired(items=(replace(KALE, category=category),)).notes == ()


@pytest.mark.parametrize("category", ["", "Addon", "gift", "menu "])
def test_row_37_an_unknown_category_is_other_and_counted_for_each_line(category: str) -> None:
    odd = replace(KALE, category=category)
    order = desired(items=(odd, KALE, odd, replace(odd, qty=Decimal(0))))
    assert [line.category for line in order.lines] == ["other", "addon", "other"]
    assert order.notes == ("other_category",) * 2


@pytest.mark.parametrize("name", ["", "  ", "\x00\n", "\\u0000"])
def test_row_37_an_empty_name_is_an_unknown_item(name: str) -> None:
    assert made(name=name).name == "Unknown item"
    assert made(name=name, qty=Decimal("1.5")).name == "Unknown item (1.5)"


@pytest.mark.parametrize("qty", ["0", "0.00", "-1", "-1.5", "NaN", "Infinity", "-Infinity", "2147483648"])
def test_row_38_an_item_without_a_usable_quantity_is_left_out(qty: str) -> None:
    assert line(qty=Decimal(qty)) is None


@pytest.mark.parametrize(
    ("qty", "price", "shown", "line_price"),
    [
        ("1.50", 350, "Kale (1.5)", 525),
        ("0.25", 350, "Kale (0.25)", 88),  # 87.5
        ("0.33", 350, "Kale (0.33)", 116),  # 115.5
        ("0.01", 10, "Kale (0.01)", 0),
        ("10.10", 100, "Kale (10.1)", 1010),
    ],
)
def test_row_38_a_fraction_is_one_thing_with_its_quantity_in_the_name(
    qty: str, price: int, shown: str, line_price: int
) -> None:
    found = made(qty=Decimal(qty), unit_price_cents=price)
    assert (found.quantity, found.name, found.price_cents) == (1, shown, line_price)


@pytest.mark.parametrize("qty", ["3", "3.00", "2147483647", "1E+2"])
def test_a_whole_quantity_is_sent_with_the_price_of_one(qty: str) -> None:
    found = made(qty=Decimal(qty))
    assert (found.quantity, found.name, found.price_cents) == (int(Decimal(qty)), "Kale", 350)


def test_an_item_without_a_product_has_no_product_id() -> None:
    assert made(product_id=None).product_id == ""


def test_names_are_clean_and_of_bounded_length() -> None:
    assert made(name=" Kale\r\n<b>💚\ud800\x07 ").name == "Kale <b>💚"
    assert made(name="k" * 300).name == "k" * MAX_NAME
    long = made(name="k" * 300, qty=Decimal("1.5")).name
    assert len(long) <= MAX_NAME
    assert long.endswith("k (1.5)")
    assert len(made(qty=Decimal("1E-2000")).name) <= MAX_NAME


@pytest.mark.parametrize(
    ("age", "source"),
    [
        (timedelta(0), OrderSource.REAL_TIME),
        (timedelta(seconds=DAY_S), OrderSource.REAL_TIME),
        (timedelta(seconds=DAY_S + 1), OrderSource.HISTORICAL),
        (timedelta(minutes=-5), OrderSource.REAL_TIME),  # a web node's clock
    ],
)
def test_automations_may_start_on_an_order_paid_a_short_time_ago(age: timedelta, source: OrderSource) -> None:
    assert order_source(ORDER, PAID + age, DAY_S) is source


def test_an_order_paid_at_an_unknown_time_starts_no_automations() -> None:
    assert order_source(replace(ORDER, paid_at=None), PAID, DAY_S) is OrderSource.HISTORICAL


def test_the_fingerprint_leaves_out_the_address_and_the_notes() -> None:
    order = desired()
    same = replace(order, email=Email("lee@example.com"), notes=("other_category",))
    assert fingerprint(same, ContactId(1)) == fingerprint(order, ContactId(1))
    assert len(fingerprint(order, ContactId(1))) == 16


def test_the_fingerprint_is_another_for_another_contact() -> None:
    assert fingerprint(desired(), ContactId(1)) != fingerprint(desired(), ContactId(2))


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "closed"},
        {"payment_status": "refunded"},
        {"total_cents": 4251},
        {"discount_cents": 301},
        {"credit_cents": 0},
        {"created_at": PAID},
        {"customer_id": CustomerId(5124)},
        {"items": ()},
        {"items": (replace(KALE, category="sub"),)},
        {"items": (replace(KALE, qty=Decimal(3)),)},
        {"items": (replace(KALE, name="Chard"),)},
        {"items": (replace(KALE, unit_price_cents=351),)},
    ],
)
def test_the_fingerprint_is_another_when_something_shown_differs(changes: dict[str, Any]) -> None:
    assert fingerprint(desired(**changes), ContactId(1)) != fingerprint(desired(), ContactId(1))


@given(
    st.builds(
        OrderItem,
        id=st.integers(1, 2**63 - 1),
        product_id=st.none() | st.integers(1, 2**63 - 1),
        name=st.text(),
        category=st.text(),
        qty=st.decimals(),
        unit_price_cents=st.integers(-(2**63), 2**63 - 1),
    )
)
def test_no_item_is_too_odd_to_be_shown_or_left_out(item: OrderItem) -> None:
    order = desired(items=(item,))
    assert fingerprint(order, ContactId(1))
    for found in order.lines:
        assert found.name.encode()
        assert len(found.name) <= MAX_NAME
        assert 0 < found.quantity < 2**31
