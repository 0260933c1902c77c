"""R7: requests, by endpoint. Speed under a limit comes from calls not made.

A backfill of more than 5,000 contacts, each with an order. In CI most of them are customers of whom the
log tells nothing: contacts are brought from the shop's rows, not from its log. The endpoints per log
entry are those of the backfill whose customers are all in the log. All requests count but events and the
four listings with which a process begins, whatever they are for.

Seen to fail: contacts per write (98.5) and per call (24.4) with activecampaign.contacts_per_import = 100;
orders per call (48.6) with batches that stay at the 50 orders they begin with; contacts (4,022) with 4,000
addresses of the 5,000 customers; breaches (84) with activecampaign.requests_per_second = 50 and
import_poll_s = 0.01.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from benchmarks import unpaced
from benchmarks.accounts import ready
from benchmarks.bench import Bench
from benchmarks.crowds import crowded
from benchmarks.figures import Figure

CUSTOMERS = 5_000
LISTINGS = {"listConnections", "listFields", "listLists", "listTags"}
READS = {"bulkImportInfo", "findContacts", "getContact", "listContactTags", "listContactLists"}
LEAST_PER_WRITE, LEAST_PER_CALL, LEAST_ORDERS_PER_CALL = 200, 30, 120


class Crowd(NamedTuple):
    """What a backfill of many contacts asked for, and what there was at its end."""

    contacts: int
    orders: int
    requests: Counter[str]  # by operation, at the receiver
    breaches: int


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    job = await unpaced.measured(bench, entries)
    crowd = await _carried(bench)
    writes, calls, order_calls = by_purpose(crowd.requests)
    return [
        *(
            Figure(f"R7: requests per 1,000 entries, {operation}", [count / job.entries * 1_000])
            for operation, count in sorted(job.requests.items())
        ),
        Figure("R7: contacts", [crowd.contacts], least=CUSTOMERS),
        Figure("R7: contacts per contact write", [crowd.contacts / writes], least=LEAST_PER_WRITE),
        Figure("R7: contacts per contact call", [crowd.contacts / calls], least=LEAST_PER_CALL),
        Figure("R7: orders per order call", [crowd.orders / order_calls], least=LEAST_ORDERS_PER_CALL),
        Figure("R7: breaches of limits and contract", [crowd.breaches], most=0),
    ]


async def _carried(bench: Bench) -> Crowd:
    """Carry the short history of a shop with many customers more."""
    history = await crowded(bench, CUSTOMERS)
    async with ready(bench, history.dsn) as (environ, activecampaign):
        before = await activecampaign.state()
        await bench.backfill(environ)
        state = await activecampaign.state()
    requests = Counter(state["requests"]) - Counter(before["requests"])
    return Crowd(state["contacts"], state["orders"], requests, sum(state["breaches"].values()))


def by_purpose(requests: Mapping[str, int]) -> tuple[int, int, int]:
    """Return how many were writes of contacts, all calls for contacts, and calls for orders."""
    orders = {name for name in requests if "ecom" in name.lower()}
    contacts = requests.keys() - orders - LISTINGS - {"trackEvent"}
    of_writes, of_contacts, of_orders = (
        sum(requests[name] for name in names) for names in (contacts - READS, contacts, orders)
    )
    return of_writes, of_contacts, of_orders
