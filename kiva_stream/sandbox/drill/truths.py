"""What the truth of a history says of single contacts and orders."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from kiva_stream.sandbox.drill.site import SITE_ID, DrillError
from kiva_stream.sandbox.process import LocalActiveCampaign

# Contacts of one customer with several events and orders, and the newest order of each.
_CONTACTS = """
SELECT c.email, CAST(c.kiva_customer_id AS INTEGER), c.phone, max(o.order_id)
FROM contact c JOIN customer_order o USING (site_id, email)
WHERE c.site_id = :site AND c.phone <> '' AND c.customer_ids NOT LIKE '%,%'
  AND (SELECT count(*) FROM entry e WHERE e.email = c.email AND e.outcome = 'delivered') >= 3
GROUP BY c.email
HAVING count(*) >= 2
ORDER BY c.email
LIMIT :count
"""
_EXPECTED = """
SELECT 'event', CAST(log_id AS TEXT), email FROM entry WHERE site_id = :site AND outcome = 'delivered'
UNION ALL SELECT 'contact', email, email FROM contact WHERE site_id = :site
UNION ALL SELECT 'order', CAST(order_id AS TEXT), email FROM customer_order WHERE site_id = :site
"""


class KnownContact(NamedTuple):
    """A contact of the truth, and one of its orders."""

    email: str
    customer: int
    phone: str
    order: int


def known_contacts(path: Path, count: int) -> list[KnownContact]:
    """Return so many contacts of one customer each. Raises DrillError when the history has not as many."""
    with closing(sqlite3.connect(path)) as truth:
        rows = truth.execute(_CONTACTS, {"site": SITE_ID, "count": count}).fetchall()
    if len(rows) < count:
        raise DrillError(f"the history has no {count} contacts with several orders: more entries are needed")
    return [KnownContact(*row) for row in rows]


async def missing_of_others(path: Path, activecampaign: LocalActiveCampaign, emails: Collection[str]) -> int:
    """Return how many contacts, orders and events have not arrived, but for those of some addresses."""
    with closing(sqlite3.connect(path)) as truth:
        rows = truth.execute(_EXPECTED, {"site": SITE_ID}).fetchall()
    expected = {(kind, name) for kind, name, email in rows if email not in emails}
    events = {
        ("event", row["eventdata"].rpartition("log=")[2]) async for row in activecampaign.rows("events")
    }
    contacts = {("contact", row["email"]) async for row in activecampaign.rows("contacts")}
    orders = {("order", row["storeOrderId"]) async for row in activecampaign.rows("orders")}
    return len(expected - events - contacts - orders)
