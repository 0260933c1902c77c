"""R2 and R3: what the pipeline costs beside HTTP. Events a second of all of it ÷ of a bare loop.

The log has events only. R2's loop posts the same bodies, as many in flight, through the same kind of lean
aiohttp session; R3's does it with raw asyncio.Protocol, which is the floor. All to the same receiver,
which takes next to no time, in a process of its own.

R2c is R2 by processor time: by the clock there are also PostgreSQL and the receiver on the same cores.

Reported, without a gate: medians of R2 on one day were 0.45 to 0.59, since the faster the machine is just
then, the more the waits for commits show.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import anyio
import msgspec

from benchmarks.bench import Bench
from benchmarks.carriage import Spent, Stopwatch, carry, over_http
from benchmarks.comparison import against, interleaved
from benchmarks.figures import Figure, by_arm
from benchmarks.histories import SITE_ID
from benchmarks.raw_client import post_all
from benchmarks.receiver import KEYS, receiver
from kiva_stream.activecampaign.events import HEADERS
from kiva_stream.runtime.garbage import garbage_collected_rarely
from kiva_stream.settings.sections import Settings

ENTRIES = 30_000  # about half of which are events

_DELIVERED = (
    "SELECT email, ac_name, eventdata FROM entry WHERE site_id = ? AND outcome = 'delivered' ORDER BY ord"
)


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    history = await bench.history(entries or ENTRIES, only="delivered")
    bodies = list(_bodies(history.truth))
    async with receiver() as activecampaign:
        settings = bench.settings(history.dsn, activecampaign)
        in_flight, url = settings.activecampaign.max_in_flight, activecampaign.event_url
        loops: dict[str, Callable[[], Awaitable[Spent]]] = {
            "raw": lambda: post_all(url, bodies, in_flight),
            "bare": lambda: _bare(url, bodies, in_flight),
        }
        piped = {"piped": lambda: _piped(bench.settings(history.dsn, activecampaign))}
        found = await interleaved({**loops, **piped}, bench.repetitions)
        for name, loop in loops.items():
            found[name].append(await loop())
    if any(each.entries != len(bodies) for each in found["piped"]):
        raise ValueError("the pipeline did not send what the bare loop did")
    share = partial(against, found["piped"])
    return [
        Figure("R2: whole pipeline / bare aiohttp loop, events", share(found["bare"], _rate)),
        Figure("R2c: the same by processor time", share(found["bare"], lambda spent: 1 / spent.cpu_us)),
        Figure("R3: whole pipeline / raw asyncio.Protocol, events", share(found["raw"], _rate)),
        *by_arm("R2: events a second", found, _rate),
        *by_arm("R2: CPU µs per event", found, lambda spent: spent.cpu_us),
    ]


def _rate(spent: Spent) -> float:
    return spent.per_second


def _bodies(truth: Path) -> Iterator[bytes]:
    with closing(sqlite3.connect(truth)) as database:
        for email, name, eventdata in database.execute(_DELIVERED, (SITE_ID,)):
            form = {
                "actid": KEYS.event_actid,
                "key": KEYS.event_key,
                "event": name,
                "eventdata": eventdata,
                "visit": msgspec.json.encode({"email": email}).decode(),
            }
            yield urlencode(form).encode()


async def _bare(url: str, bodies: list[bytes], in_flight: int) -> Spent:
    left = iter(bodies)

    async def post_each(session: aiohttp.ClientSession) -> None:
        for body in left:
            async with session.post(url, data=body, headers=HEADERS, allow_redirects=False) as answer:
                await answer.read()

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=30, sock_read=30),
    ) as session:
        watch = Stopwatch()
        with garbage_collected_rarely():  # as in the pipeline
            async with anyio.create_task_group() as group:
                for _ in range(in_flight):
                    group.start_soon(post_each, session)
        return watch.spent(len(bodies))


async def _piped(settings: Settings) -> Spent:
    return await carry(settings, over_http(settings))
