"""The contacts that must exist when the history ends: accounts by address, and what each should show."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from kiva_stream.sandbox.generator.clock import SECOND
from kiva_stream.sandbox.generator.mix import WEEKS
from kiva_stream.sandbox.generator.population import CustomerAccount, on_week
from kiva_stream.sandbox.generator.shop import Shop

STATUSES = ("active", "paused", "pending", "cancelled", "expired", "dead")  # best first
ENDED = {"cancelled", "expired", "dead"}
STALE_EVERY = 100  # accounts whose stored next delivery is in the past
LEFT_OVER_EVERY = 10  # of those who cancelled: their next delivery stays stored
BOX_GONE_EVERY, BOX_GONE_FIRST = 200, 11  # accounts
ERASED = {"erased", "deleted"}


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
    """Yield the contacts of a site: every usable address of accounts neither test nor erased."""
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
        yield _contact(shop, email, customers, _tag(found))


def _contact(shop: Shop, email: str, customers: list[CustomerAccount], tag: str) -> ExpectedContact:
    best = min(customers, key=lambda a: (STATUSES.index(a.status), -a.newest_order_ms, a.id))
    subscribed = all(customer.opt_in and not customer.blacklisted for customer in customers)
    return ExpectedContact(
        shop.site.id,
        email,
        _printable(best.first_name),
        _printable(best.last_name),
        best.phone or "",
        str(best.id),
        "subscribe" if subscribed else "unsubscribe",
        ",".join(str(customer.id) for customer in customers),
        best.status,
        best.box.name if best.box and not box_is_gone(best) else None,
        None if best.status == "cancelled" else next_delivery(shop, best),
        _cancel_date(shop, best),
        None if best.birthday and best.birthday > today(shop).isoformat() else best.birthday,
        tag,
    )


def today(shop: Shop) -> date:
    """Return the last day of the history."""
    return shop.start + timedelta(weeks=WEEKS - 1, days=4)


def next_delivery(shop: Shop, customer: CustomerAccount) -> str | None:
    """Return the next delivery as the shop has stored it, now and then one that is over."""
    left_over = customer.status == "cancelled" and customer.id % LEFT_OVER_EVERY == 0
    if customer.frequency is None or not (customer.status == "active" or left_over):
        return None
    monday = shop.start + timedelta(weeks=WEEKS)
    if customer.id % STALE_EVERY == 0:
        monday -= timedelta(weeks=4)
    weeks = (monday + timedelta(weeks=n) for n in range(8))
    first = next((week for week in weeks if on_week(customer, week)), monday)
    return (first + timedelta(days=customer.weekday - 1)).isoformat()


def box_is_gone(customer: CustomerAccount) -> bool:
    """Whether the row of the account's box type is no longer there (domain.md 6.5, row 41)."""
    return customer.id % BOX_GONE_EVERY == BOX_GONE_FIRST


def _cancel_date(shop: Shop, customer: CustomerAccount) -> str | None:
    if customer.cancelled_ms is None or customer.status not in ENDED:
        return None
    return datetime.fromtimestamp(customer.cancelled_ms / SECOND, UTC).astimezone(shop.zone).date().isoformat()


def _tag(statuses: set[str]) -> str:
    if "open" in statuses:
        return "open order"
    return "closed order" if statuses & {"closed", "complete"} else "no order"


def _printable(text: str) -> str:
    """Leave out control characters, and NUL in the six characters in which a text column holds it."""
    text = text.replace("\\u0000", "")
    return "".join(letter for letter in text if letter >= " " and letter != "\x7f").strip()
