"""The contacts that must exist when the history ends: customers by address, and what each contact shows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from kiva_stream.sandbox.generator.clock import SECOND
from kiva_stream.sandbox.generator.mix import WEEKS
from kiva_stream.sandbox.generator.population import CustomerAccount
from kiva_stream.sandbox.generator.shop import Shop
from kiva_stream.sandbox.generator.stored_columns import box_is_gone, next_delivery

STATUSES = ("active", "paused", "pending", "cancelled", "expired", "dead")  # best first
ENDED = {"cancelled", "expired", "dead"}


class ExpectedContact(NamedTuple):
    """A row of the ground truth's `contact`."""

    site_id: int
    email: str
    first_name: str
    last_name: str
    phone: str
    kiva_customer_id: str
    list_status: str
    customer_ids: str
    status: str
    box_type: str | None
    next_delivery: str | None
    cancel_date: str | None
    birthday: str | None
    tag: str


def expected_contacts(shop: Shop) -> Iterator[ExpectedContact]:
    """Yield the contacts of a site: one for each usable address of customers neither test nor erased."""
    by_address: dict[str, list[CustomerAccount]] = {}
    for customer in shop.population.customers:
        if customer.address.key and customer.exclusion == "":
            by_address.setdefault(customer.address.key, []).append(customer)
    statuses: dict[int, set[str]] = {}
    current = shop.calendar(WEEKS - 1).mondays[0]
    for order in shop.orders_of_last_week():
        if order.week == current:
            statuses.setdefault(order.customer_id, set()).add(order.status)
    for email, customers in by_address.items():
        found = set().union(*(statuses.get(customer.id, ()) for customer in customers))
        yield _contact(shop, email, customers, tag=_tag(found))


def _contact(shop: Shop, email: str, customers: list[CustomerAccount], *, tag: str) -> ExpectedContact:
    best = min(customers, key=lambda a: (STATUSES.index(a.status), -a.newest_order_ms, a.id))
    subscribed = all(customer.opt_in and not customer.blacklisted for customer in customers)
    return ExpectedContact(
        site_id=shop.site.id,
        email=email,
        first_name=_printable(best.first_name),
        last_name=_printable(best.last_name),
        phone=best.phone or "",
        kiva_customer_id=str(best.id),
        list_status="subscribe" if subscribed else "unsubscribe",
        customer_ids=",".join(str(customer.id) for customer in customers),
        status=best.status,
        box_type=best.box.name if best.box and not box_is_gone(best) else None,
        next_delivery=None if best.status == "cancelled" else next_delivery(shop, best),
        cancel_date=_cancel_date(shop, best),
        birthday=None if best.birthday and best.birthday > today(shop).isoformat() else best.birthday,
        tag=tag,
    )


def today(shop: Shop) -> date:
    """Return the last day of the history."""
    return shop.start + timedelta(weeks=WEEKS - 1, days=4)


def _cancel_date(shop: Shop, customer: CustomerAccount) -> str | None:
    if customer.cancelled_ms is None or customer.status not in ENDED:
        return None
    return (
        datetime.fromtimestamp(customer.cancelled_ms / SECOND, UTC).astimezone(shop.zone).date().isoformat()
    )


def _tag(statuses: set[str]) -> str:
    if "open" in statuses:
        return "open order"
    return "closed order" if statuses & {"closed", "complete"} else "no order"


def _printable(text: str) -> str:
    """Remove control characters, and NUL in the six characters in which a text column stores it."""
    text = text.replace("\\u0000", "")
    return "".join(letter for letter in text if letter >= " " and letter != "\x7f").strip()
