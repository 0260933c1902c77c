"""Orders of a customer, their weeks, and the contacts whose week tags follow them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from msgspec.structs import replace

from kiva_stream.model.contacts import Contact, ContactRecord, ContactStatus
from kiva_stream.model.customers import Customer
from kiva_stream.model.ids import ContactId, CustomerId, Email, OrderId
from kiva_stream.model.orders import Order, OrderItem
from tests.support.entries import customer
from tests.support.virtual_time import now as virtual_now

NOON = datetime(2018, 11, 27, 12, tzinfo=UTC)  # of the first day that these tests speak of
ITEM = OrderItem(id=1, product_id=7, name="Kale", category="menu", qty=Decimal(1), unit_price_cents=350)
WEEK = date(2018, 11, 26)
NEXT_WEEK = WEEK + timedelta(days=7)
LINKED, NEW, REJECTED = ContactStatus.LINKED, ContactStatus.NEW, ContactStatus.REJECTED


def wall_clock() -> datetime:
    """Return the time of day, which goes as the virtual loop does."""
    return NOON + timedelta(seconds=virtual_now())


def order(number: int, **changes: object) -> Order:
    """Return a customer's only order, paid long ago, but for the changes."""
    paid = Order(
        id=OrderId(number),
        customer_id=CustomerId(number),
        status="complete",
        payment_status="completed",
        created_at=NOON - timedelta(days=40),
        paid_at=NOON - timedelta(days=30),
        total_cents=100 * number,
        discount_cents=0,
        credit_cents=0,
        items=(ITEM,),
    )
    return replace(paid, **changes)


def linked(
    number: int, *customers: Customer, status: ContactStatus = LINKED, email: str = "", **known: object
) -> ContactRecord:
    """Return the contact of these customers, else of the customer of that number."""
    who = customers or (customer(number),)
    contact = Contact(ContactId(number), Email(email or str(who[0].email)), status)
    return replace(ContactRecord(contact, tuple(each.id for each in who), b"sent"), **known)
