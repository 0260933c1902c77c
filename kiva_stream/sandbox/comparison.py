"""Compares the sandbox with the ground truth: what was lost, repeated, changed or out of order."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from kiva_stream.sandbox.process import LocalActiveCampaign

REALTIME_MAX_AGE_S = 86_400  # an order paid longer ago than this, when first sent, is historical

# Eventdata ends with this and the id of its entry.
_LOG_MARK = "log="
_LIST = "all customers"
_LIST_STATUS = {1: "subscribe", 2: "unsubscribe"}  # by ActiveCampaign's number
_WEEK_TAGS = {"open order", "closed order", "no order"}
_FIELDS = (
    "Kiva Customer ID",
    "Kiva Status",
    "Kiva Box Type",
    "Kiva Next Delivery",
    "Kiva Cancel Date",
    "Kiva Birthday",
)

_ARRIVED = """
CREATE TEMP TABLE arrived (
  seq INTEGER PRIMARY KEY, log_id INTEGER NOT NULL, email TEXT, name TEXT NOT NULL, eventdata TEXT NOT NULL
);
CREATE TEMP TABLE shown (
  email TEXT PRIMARY KEY, first_name TEXT, last_name TEXT, phone TEXT, list_status TEXT, tag TEXT,
  customer_id TEXT, status TEXT, box_type TEXT, next_delivery TEXT, cancel_date TEXT, birthday TEXT
);
CREATE TEMP TABLE sent_order (
  order_id TEXT, order_number TEXT, email TEXT, customer_id TEXT, normalized_status TEXT, source TEXT,
  currency TEXT, total_cents INTEGER, discounts_cents INTEGER, created_at TEXT
);
CREATE TEMP TABLE sent_item (
  order_id TEXT, item_id TEXT, product_id TEXT, name TEXT, category TEXT,
  quantity INTEGER, price_cents INTEGER
);
"""

_INDEX = """
CREATE INDEX temp.arrived_log ON arrived (log_id);
CREATE INDEX temp.sent_order_id ON sent_order (order_id);
"""

_EXPECTED = "SELECT * FROM entry WHERE site_id = :site AND outcome = 'delivered'"

_CONTACTS = """
SELECT email, first_name, last_name, phone, list_status, tag, kiva_customer_id, status,
       coalesce(box_type, ''), coalesce(next_delivery, ''), coalesce(cancel_date, ''), coalesce(birthday, '')
FROM contact WHERE site_id = :site
"""

_ORDERS = """
SELECT CAST(order_id AS TEXT) AS order_id, CAST(order_id AS TEXT) AS order_number, email,
       CAST(customer_id AS TEXT) AS customer_id, normalized_status,
       CASE WHEN paid_ms > :historical_until_ms THEN 'REAL_TIME' ELSE 'HISTORICAL' END AS source,
       currency, total_cents, discounts_cents, created_at
FROM customer_order WHERE site_id = :site
"""

_ITEMS = """
SELECT CAST(order_id AS TEXT) AS order_id, CAST(line_id AS TEXT), CAST(product_id AS TEXT), name, category,
       quantity, price_cents
FROM order_line WHERE site_id = :site
"""

_QUERIES = {
    "expected": f"SELECT count(*) FROM ({_EXPECTED})",
    "arrived": "SELECT count(*) FROM arrived",
    "lost": f"SELECT count(*) FROM ({_EXPECTED}) e WHERE e.log_id NOT IN (SELECT log_id FROM arrived)",
    "unexpected": f"SELECT count(*) FROM arrived WHERE log_id NOT IN (SELECT log_id FROM ({_EXPECTED}))",
    "repeated": "SELECT count(*) - count(DISTINCT log_id) FROM arrived",
    "changed": f"""
        SELECT count(*) FROM ({_EXPECTED}) e JOIN arrived a USING (log_id)
        WHERE (a.email, a.name, a.eventdata) IS NOT (e.email, e.ac_name, e.eventdata)""",
    # Repeats are counted above; the order is that of the first arrivals.
    "out_of_order": f"""
        SELECT count(*) FROM (
          SELECT e.ord, max(e.ord) OVER (
            PARTITION BY a.email ORDER BY a.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
          FROM (SELECT min(seq) AS seq, log_id, email FROM arrived GROUP BY log_id) a
          JOIN ({_EXPECTED}) e USING (log_id))
        WHERE ord < before""",
    "contacts": "SELECT count(*) FROM shown",
    "contacts_wrong": f"SELECT count(*) FROM ({_CONTACTS} EXCEPT SELECT * FROM shown)",
    "contacts_unexpected": """
        SELECT count(*) FROM shown WHERE email NOT IN (SELECT email FROM contact WHERE site_id = :site)""",
    "tags_wrong": """
        SELECT count(*) FROM contact c JOIN shown s USING (email)
        WHERE c.site_id = :site AND c.tag IS NOT s.tag""",
    "orders_expected": f"SELECT count(*) FROM ({_ORDERS})",
    "orders_arrived": "SELECT count(*) FROM sent_order",
    "orders_lost": f"""
        SELECT count(*) FROM ({_ORDERS}) WHERE order_id NOT IN (SELECT order_id FROM sent_order)""",
    # An order that exists twice, on two connections, is one too many.
    "orders_unexpected": f"""
        SELECT count(*) FILTER (WHERE order_id NOT IN (SELECT order_id FROM ({_ORDERS})))
               + count(*) - count(DISTINCT order_id)
        FROM sent_order""",
    "orders_changed": f"""
        SELECT count(*) FROM (
          SELECT order_id FROM (SELECT * FROM ({_ORDERS}) EXCEPT SELECT * FROM sent_order)
          UNION SELECT order_id FROM (SELECT * FROM ({_ITEMS}) EXCEPT SELECT * FROM sent_item)
          UNION SELECT order_id FROM (SELECT * FROM sent_item EXCEPT SELECT * FROM ({_ITEMS}))
          UNION SELECT order_id FROM sent_item GROUP BY order_id, item_id HAVING count(*) > 1)
        WHERE order_id IN (SELECT order_id FROM sent_order)
          AND order_id IN (SELECT order_id FROM ({_ORDERS}))""",
}
_NOT_DIFFERENCES = {"expected", "arrived", "contacts", "orders_expected", "orders_arrived"}


class Comparison(msgspec.Struct, frozen=True):
    """The differences of an account from the truth.

    All figures but `expected`, `arrived`, `contacts`, `orders_expected` and `orders_arrived` should be 0.
    """

    expected: int  # events
    arrived: int  # events
    lost: int
    unexpected: int
    repeated: int
    changed: int  # to another contact, of another name, or with other eventdata
    out_of_order: int  # for their contact, by position
    contacts: int
    contacts_wrong: int  # missing, or with another name, field, list status or week tag
    contacts_unexpected: int
    tags_wrong: int  # contacts with none, with several, or with the wrong one of the three
    orders_expected: int
    orders_arrived: int
    orders_lost: int
    orders_unexpected: int
    orders_changed: int  # of another contact, or with other content or items

    @property
    def differences(self) -> int:
        """Return the sum of all figures that should be 0."""
        figures: dict[str, int] = msgspec.structs.asdict(self)
        return sum(figure for name, figure in figures.items() if name not in _NOT_DIFFERENCES)

    @property
    def is_exact(self) -> bool:
        """Whether all that must arrive is there, each event once and in order, and nothing else."""
        same = self.expected == self.arrived and self.orders_expected == self.orders_arrived
        return same and not self.differences


def compare(
    truth: Path,
    site_id: int,
    *,
    events: Iterable[Mapping[str, Any]],
    contacts: Iterable[Mapping[str, Any]],
    orders: Iterable[Mapping[str, Any]],
    sent_at: float | None = None,
) -> Comparison:
    """Compare the events (in the order of arrival), contacts and orders of a sandbox with a truth.

    `sent_at` is when the orders were first sent, in seconds since 1970, by default now. It decides which of
    them are historical.
    """
    moment_s = time.time() if sent_at is None else sent_at
    parameters = {"site": site_id, "historical_until_ms": (moment_s - REALTIME_MAX_AGE_S) * 1000}
    with closing(sqlite3.connect(truth)) as database:
        database.executescript(_ARRIVED)
        database.executemany("INSERT INTO arrived VALUES (?, ?, ?, ?, ?)", _arrivals(events))
        database.executemany(f"INSERT INTO shown VALUES ({_marks(12)})", map(_shown, contacts))
        for order in orders:
            database.execute(f"INSERT INTO sent_order VALUES ({_marks(10)})", _sent(order))
            database.executemany(f"INSERT INTO sent_item VALUES ({_marks(7)})", _items(order))
        database.executescript(_INDEX)
        figures = {name: database.execute(sql, parameters).fetchone()[0] for name, sql in _QUERIES.items()}
        return Comparison(**figures)


async def compare_arrived(truth: Path, site_id: int, activecampaign: LocalActiveCampaign) -> Comparison:
    """Compare all that a local ActiveCampaign has with a truth."""
    events = [event async for event in activecampaign.rows("events")]
    contacts = [contact async for contact in activecampaign.rows("contacts")]
    orders = [order async for order in activecampaign.rows("orders")]
    return compare(truth, site_id, events=events, contacts=contacts, orders=orders)


def counts_of(equation: Mapping[str, Any]) -> Counter[str]:
    """Return the outcomes of `status --json` under the generator's names, for instance `skipped noise`."""
    counts = Counter({"delivered": equation["delivered"], "synced": equation["synced"]})
    for kind in ("skipped", "dead"):
        counts.update({f"{kind} {why}": count for why, count in equation[kind].items()})
    return counts


def _marks(count: int) -> str:
    return ",".join("?" * count)


def _arrivals(events: Iterable[Mapping[str, Any]]) -> Iterator[tuple[object, ...]]:
    for seq, event in enumerate(events):
        log_id = event["eventdata"].rpartition(_LOG_MARK)[2]
        yield seq, int(log_id), event["email"], event["name"], event["eventdata"]


def _shown(contact: Mapping[str, Any]) -> tuple[object, ...]:
    """Return the row of a contact. A field without a value equals an empty one."""
    tags = ", ".join(sorted(_WEEK_TAGS.intersection(contact["tags"])))
    return (
        contact["email"],
        contact["first_name"],
        contact["last_name"],
        contact["phone"],
        _LIST_STATUS.get(contact["lists"].get(_LIST)),
        tags,
        *(contact["fields"].get(title, "") for title in _FIELDS),
    )


def _sent(order: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        order["storeOrderId"],
        order["orderNumber"],
        order["contact_email"],
        order.get("storeCustomerId"),
        order.get("normalizedStatus"),
        order["creationSource"],
        order["currency"],
        _cents(order["finalAmount"]),
        _cents(order.get("discountsAmount") or 0),
        order["storeCreatedDate"],
    )


def _items(order: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    for item in order.get("lineItems") or ():
        yield (
            order["storeOrderId"],
            item.get("storeLineItemId"),
            item.get("productStorePrimaryId"),
            item.get("name"),
            item.get("category"),
            item.get("quantity"),
            _cents(item.get("priceAmount") or 0),
        )


def _cents(amount: float) -> float:
    """Return an amount of whole units in cents, including parts of a cent."""
    return round(amount * 100, 4)
