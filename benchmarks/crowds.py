"""Crowds: short histories of shops with thousands of customers more, each of them with an order."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.histories import History, execute

SHORT = 2_500  # entries, where the customers matter more than the log

_CUSTOMERS = """
INSERT INTO kiva.customers (id, site_id, email, first_name, last_name, created_at, updated_at)
SELECT 8000000 + n, 1, 'crowd' || n || '@example.com', 'Ann', 'Lee', now(), now()
FROM generate_series(1, $1) AS n;
INSERT INTO kiva.orders (id, site_id, customer_id, week_start, delivery_date, status, payment_status,
                         subtotal_cents, total_cents, created_at, paid_at, updated_at)
SELECT id, site_id, id, current_date, current_date, 'complete', 'completed', 3800, 3800, now(), now(), now()
FROM kiva.customers WHERE id > 8000000;
INSERT INTO kiva.order_items (order_id, name, category, qty, unit_price_cents)
SELECT id, 'Carrots', 'menu', 1, 0 FROM kiva.customers WHERE id > 8000000;
"""
_LOGOUTS = """
INSERT INTO kiva.system_log
    (site_id, occurred_at, inserted_at, category, action, actor_type, message, customer_id)
SELECT site_id, ago, ago, 'customer', 'logout', 'customer', 'Logged out', id
FROM generate_series(1, $1) AS turn, kiva.customers, (SELECT now() - interval '1 day' AS ago) AS stamps
WHERE id > 8000000
ORDER BY turn, id
"""


async def crowded(bench: Bench, customers: int) -> History:
    """Return a short history of a shop with so many customers more."""
    history = await bench.history(SHORT, "crowd")
    await execute(history.dsn, _CUSTOMERS.replace("$1", str(customers)))
    return history


async def by_turns(bench: Bench, customers: int, times: int) -> History:
    """Return a history in whose log so many customers come by turns, so often; each is an event."""
    history = await bench.history(SHORT, "turns")
    await execute(history.dsn, _CUSTOMERS.replace("$1", str(customers)))
    await execute(history.dsn, _LOGOUTS.replace("$1", str(times)))
    return history._replace(entries=SHORT + customers * times)
