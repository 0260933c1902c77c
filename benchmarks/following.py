"""Following at the documented limits: entries stay in time while a new week's tags use up the account.

60 entries a second are written, 5 requests a second allowed, and a week has just opened in which every
contact's tag is another one: minutes of work off the log. The lag of an event is measured in the state,
from the moment the entry was written to the commit of its outcome; `delay_s` is 0, so it is readable at
once.

The lag and the requests a second are the machine's too, and reported: on this one 4.5 to 4.7, fewer where
the entries fall on 50 contacts instead of 150, since one that becomes due again before its swap is left
for the next look. R6 has the share of the limit that is used.

Seen to fail: breaches (84) with activecampaign.requests_per_second = 50; two tags at once (34) where the
right one is put on before the others are taken off. That tags are left at the end says that there was
enough to do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import asyncpg

from benchmarks.accounts import ready
from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.histories import SITE_ID
from benchmarks.writer import PER_SECOND, WRITTEN, Writer
from kiva_stream.sandbox.process import LocalActiveCampaign

ENTRIES = 20_000
POLL_S = 2
SECONDS = 30  # in 20 the first and the last request decided: 4.30 to 4.65; 4.60 in 30
SCHEMA = "following"
LOOK_EVERY_S = 0.1
PATIENCE_S = 60  # for what must come; where it does not, something is lost
SETTINGS = {
    "KIVA_STREAM__SOURCE__DELAY_S": "0",
    "KIVA_STREAM__SOURCE__POLL_INTERVAL_S": str(POLL_S),
    "KIVA_STREAM__ACTIVECAMPAIGN__ORDER_SETTLE_S": "1",
}

_NEW_WEEK = """
INSERT INTO kiva.orders (id, site_id, customer_id, week_start, delivery_date, status,
                         subtotal_cents, total_cents, created_at, updated_at)
SELECT 9000000 + id, site_id, id, current_date + 70, current_date + 70, 'open', 1, 1, now(), now()
FROM kiva.customers WHERE site_id = $1
"""
_OPEN = (
    "INSERT INTO kiva.delivery_weeks (site_id, week_start, opened_at) VALUES ($1, current_date + 70, now())"
)
_LAGS = f"""
SELECT extract(epoch FROM d.delivered_at - l.inserted_at)::float8
FROM kiva.system_log l LEFT JOIN {SCHEMA}.ledger d ON (d.txid, d.log_id) = (l.txid::text::bigint, l.id)
WHERE l.site_id = $1 AND {WRITTEN}
"""


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    async with _followed(bench, entries or ENTRIES) as (dsn, activecampaign):
        shop = await asyncpg.connect(dsn)
        try:
            await shop.execute(_NEW_WEEK, SITE_ID)
            await shop.execute(_OPEN, SITE_ID)
            with anyio.fail_after(PATIENCE_S):
                await _until_tags_change(activecampaign)
            before = await _requests(activecampaign)
            seconds = await Writer(shop).write(PER_SECOND * SECONDS)
            rate = (await _requests(activecampaign) - before) / seconds
            left = await shop.fetchval(f"SELECT count(*) FROM {SCHEMA}.tag_due")
            with anyio.fail_after(PATIENCE_S):
                lags = await _lags(shop)
        finally:
            await shop.close()
        state = await activecampaign.state()
    return [
        Figure("following: entries written a second", [len(lags) / seconds]),
        Figure("following: event lag in s, the longest", [max(lags)]),
        Figure("following: event lag in s, the median", [sorted(lags)[len(lags) // 2]]),
        Figure("following: REST requests a second", [rate]),
        Figure("following: tags still to be swapped at the end", [left], least=1),
        Figure("following: moments with two of the three week tags", [state["tag_overlaps"]], most=0),
        Figure("following: breaches of limits and contract", [sum(state["breaches"].values())], most=0),
    ]


@asynccontextmanager
async def _followed(bench: Bench, entries: int) -> AsyncIterator[tuple[str, LocalActiveCampaign]]:
    """Carry a history, then follow its shop; give the shop's DSN and the account."""
    history = await bench.history(entries, "following")
    async with ready(bench, history.dsn, schema=SCHEMA, more=SETTINGS) as (environ, activecampaign):
        await bench.backfill(environ)
        async with bench.follow(environ):
            yield history.dsn, activecampaign


async def _until_tags_change(activecampaign: LocalActiveCampaign) -> None:
    while "removeContactTag" not in (await activecampaign.state())["requests"]:  # noqa: ASYNC110  it is remote
        await anyio.sleep(LOOK_EVERY_S)


async def _requests(activecampaign: LocalActiveCampaign) -> int:
    """Return how many REST and GraphQL requests arrived."""
    requests: dict[str, int] = (await activecampaign.state())["requests"]
    return sum(count for operation, count in requests.items() if operation != "trackEvent")


async def _lags(shop: asyncpg.Connection) -> list[float]:
    """Return the lags of all events that were written, when the last of them has its outcome."""
    while True:
        lags = [lag for (lag,) in await shop.fetch(_LAGS, SITE_ID)]
        if None not in lags:
            return lags
        await anyio.sleep(LOOK_EVERY_S)
