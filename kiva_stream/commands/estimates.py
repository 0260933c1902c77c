"""Estimates of the requests that work takes, and of its time at the limits in the settings. Pure."""

from __future__ import annotations

import math
from typing import NamedTuple

from kiva_stream.settings.sections import ActiveCampaignSettings, SourceSettings
from kiva_stream.sync.batch_size import MOST_ORDERS

ROUND_TRIP_S = 0.1  # assumed between here and ActiveCampaign
POLLS = 2  # of an import's progress
IDS_A_PAGE = 100
LAST_PAGES = 2  # the empty ones that end the two listings of contact ids
SWAP_REQUESTS = 3  # of a week tag, at most: read its link, take it off, put another on
UNPACED_EVENTS_PER_SECOND = 1_000  # assumed where `events_per_second` is 0
MINUTE_S, HOUR_S = 60, 3_600


class Work(NamedTuple):
    """What is to be sent."""

    contacts: int = 0  # by imports
    orders: int = 0
    events: int = 0
    tags: int = 0  # to be swapped


def requests(work: Work, limits: ActiveCampaignSettings) -> dict[str, dict[str, int]]:
    """Return about how many requests the work takes, by phase and endpoint."""
    imports = math.ceil(work.contacts / limits.contacts_per_import)
    return {
        "contacts": {
            "POST /import/bulk_import": imports,
            "GET /import/info": POLLS * imports,
            "GET /contacts": math.ceil(work.contacts / IDS_A_PAGE) + LAST_PAGES,
        },
        "orders": {"POST /ecom/graphql": _order_batches(work.orders, limits.orders_per_batch)},
        "events": {"POST /event": work.events},
        "tags": {
            "GET /contacts/ID/contactTags": work.tags,
            "DELETE /contactTags": work.tags,
            "POST /contactTags": work.tags,
        },
    }


def seconds(work: Work, limits: ActiveCampaignSettings) -> dict[str, float]:
    """Return about how many seconds the work takes at ActiveCampaign, by phase."""
    wanted = requests(work, limits)
    each_s = request_s(limits)
    imports_s = wanted["contacts"]["POST /import/bulk_import"] * MINUTE_S / limits.bulk_imports_per_minute
    return {
        "contacts": max(sum(wanted["contacts"].values()) * each_s, imports_s),
        "orders": sum(wanted["orders"].values()) * each_s,
        "events": work.events / (limits.events_per_second or UNPACED_EVENTS_PER_SECOND),
        "tags": swaps_s(work.tags, limits),
    }


def _order_batches(orders: int, first: int) -> int:
    """Return how many batches take so many orders, the first of them `first`; accepted batches grow."""
    batches, size = 0, first
    while orders > 0:
        batches, orders, size = batches + 1, orders - size, min(2 * size, MOST_ORDERS)
    return batches


def reading_s(entries: int, source: SourceSettings) -> float:
    """Return the least seconds that reading so many log entries takes; 0 without a limit on it."""
    return entries / source.max_rows_per_s if source.max_rows_per_s else 0.0


def swaps_s(tags: int, limits: ActiveCampaignSettings) -> float:
    """Return about how many seconds it takes to swap this many week tags, with nothing else to do."""
    return tags * SWAP_REQUESTS * request_s(limits)


def request_s(limits: ActiveCampaignSettings) -> float:
    """Return the seconds of budget a request takes: it keeps its slot until a second after its answer."""
    return (1 + ROUND_TRIP_S) / limits.requests_per_second
