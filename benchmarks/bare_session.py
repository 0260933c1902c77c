"""R2: what the pipeline costs beside HTTP. Events a second of all of it ÷ of a bare loop.

The log has events only. The bare loop posts the same bodies, as many in flight, through the same kind of
lean aiohttp session; both to the same receiver, which takes next to no time, in a process of its own.

The committed 0.58 lies between the medians of two runs on a busy machine (0.57 and 0.63). An event takes
75 µs more than in the bare loop, about 20 of them right before and after the exchange, the rest for reading,
deciding and committing it.

Seen to fail (0.09) with state.commit_interval_ms = 200.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import anyio
import asyncpg
import msgspec

from benchmarks.bench import SITE_ID, Bench, History
from benchmarks.carriage import Spent, Stopwatch, carry
from benchmarks.figures import Figure, committed
from benchmarks.receiver import receiver
from kiva_stream.activecampaign.client import AUTO_HEADERS, Client
from kiva_stream.activecampaign.events import HEADERS, Events
from kiva_stream.sandbox.process import Keys, LocalActiveCampaign

ENTRIES = 25_000  # about half of which are events
REPETITIONS = 3
IN_FLIGHT = 200  # what the pipeline has by default
KEYS = Keys("bare", "token", "25550001", "key")

_DELIVERED = f"FROM entry WHERE site_id = {SITE_ID} AND outcome = 'delivered' ORDER BY ord"


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    history = await bench.history(entries or ENTRIES, "events_only")
    await _keep_events_only(history)
    bodies = list(_bodies(history.truth))
    bare, piped = [], []
    async with receiver() as url:
        activecampaign = LocalActiveCampaign(url, f"{url}/event", [KEYS])
        for _ in range(REPETITIONS):
            bare.append(await _bare(activecampaign.event_url, bodies))
            piped.append(await _piped(bench, history, activecampaign))
    if any(each.entries != len(bodies) for each in piped):
        raise ValueError("the pipeline did not send what the bare loop did")
    ratios = [whole.per_second / part.per_second for whole, part in zip(piped, bare, strict=True)]
    return [
        Figure("R2: whole pipeline / bare aiohttp loop, events", ratios, least=committed("R2")),
        Figure("R2: CPU µs per event, whole pipeline", [each.cpu_us for each in piped]),
        Figure("R2: CPU µs per event, bare loop", [each.cpu_us for each in bare]),
    ]


async def _keep_events_only(history: History) -> None:
    """Remove what is not delivered from the log."""
    with closing(sqlite3.connect(history.truth)) as truth:
        ids = [log_id for (log_id,) in truth.execute(f"SELECT log_id {_DELIVERED}")]
    connection = await asyncpg.connect(history.dsn)
    try:
        await connection.execute("DELETE FROM kiva.system_log WHERE id <> ALL($1::bigint[])", ids)
    finally:
        await connection.close()


def _bodies(truth: Path) -> Iterator[bytes]:
    with closing(sqlite3.connect(truth)) as database:
        for email, name, eventdata in database.execute(f"SELECT email, ac_name, eventdata {_DELIVERED}"):
            form = {
                "actid": KEYS.event_actid,
                "key": KEYS.event_key,
                "event": name,
                "eventdata": eventdata,
                "visit": msgspec.json.encode({"email": email}).decode(),
            }
            yield urlencode(form).encode()


async def _bare(url: str, bodies: list[bytes]) -> Spent:
    left = iter(bodies)

    async def post_each(session: aiohttp.ClientSession) -> None:
        for body in left:
            async with session.post(url, data=body, headers=HEADERS, allow_redirects=False) as answer:
                await answer.read()

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=AUTO_HEADERS,
        timeout=aiohttp.ClientTimeout(total=None, connect=30, sock_read=30),
    ) as session:
        watch = Stopwatch()
        async with anyio.create_task_group() as group:
            for _ in range(IN_FLIGHT):
                group.start_soon(post_each, session)
        return watch.spent(len(bodies))


async def _piped(bench: Bench, history: History, activecampaign: LocalActiveCampaign) -> Spent:
    limits = bench.settings(history.dsn, activecampaign, "unused").activecampaign
    async with Client(limits) as client:
        return await carry(bench, history, activecampaign, Events(limits, client))
