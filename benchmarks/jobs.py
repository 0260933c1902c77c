"""The main job: a backfill that runs as a user runs it, measured, and what arrived."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from benchmarks.accounts import ready
from benchmarks.bench import Bench
from benchmarks.command import Measured
from benchmarks.histories import SITE_ID, History
from kiva_stream.sandbox.comparison import Comparison, compare_arrived
from kiva_stream.sandbox.process import LocalActiveCampaign

HOUR_S = 3600

_DONE = re.compile(r"entries in .+: ([\d,]+) an hour")


class Job(NamedTuple):
    """A backfill, and what arrived."""

    entries: int
    measured: Measured
    said_per_hour: float  # entries, as its own summary says
    comparison: Comparison
    requests: Counter[str]  # by operation, at the receiver
    breaches: int
    most_events_in_a_second: int  # any sliding second, at the receiver

    @property
    def per_hour(self) -> float:
        """Entries an hour, from the start of the command to its end."""
        return self.entries / self.measured.seconds * HOUR_S

    @property
    def cpu_us_per_entry(self) -> float:
        """Processor time of the backfill's process, in µs an entry."""
        return self.measured.cpu_s / self.entries * 1e6

    @property
    def peak_mb(self) -> float:
        """Most memory of the backfill's process, in units of 1,000,000 bytes."""
        return self.measured.peak_bytes / 1e6

    @property
    def differences(self) -> int:
        """What of the ground truth did not arrive as it should, or should not have arrived."""
        found: dict[str, int] = msgspec.structs.asdict(self.comparison)
        counts = ("expected", "arrived", "contacts", "orders_expected", "orders_arrived")
        return sum(count for name, count in found.items() if name not in counts)


async def unpaced(bench: Bench, entries: int) -> Job:
    """Return the main job as fast as it goes, run once: no latency, events unpaced, the limits as always."""
    return await bench.once(
        f"unpaced {entries}", lambda: run(bench, entries, latency_ms=0, events_per_second=0)
    )


async def run(bench: Bench, entries: int, *, latency_ms: float, events_per_second: int) -> Job:
    """Run and measure `backfill --since day1` on a history, in an account that was set up before."""
    history = await bench.history(entries)
    async with ready(bench, history.dsn, latency_ms=latency_ms, events_per_second=events_per_second) as (
        environ,
        activecampaign,
    ):
        before = await activecampaign.state()
        return await job_of(history, await bench.backfill(environ), activecampaign, before=before)


async def job_of(
    history: History, measured: Measured, activecampaign: LocalActiveCampaign, *, before: Mapping[str, Any]
) -> Job:
    """Return what a backfill was, and what arrived at an account since it was in the state `before`."""
    state = await activecampaign.state()
    events = [event async for event in activecampaign.rows("events")]
    said = _DONE.search(measured.output)
    if said is None:
        raise ValueError(f"the backfill did not say how fast it was: {measured.output}")
    return Job(
        entries=history.entries,
        measured=measured,
        said_per_hour=float(said[1].replace(",", "")),
        comparison=await compare_arrived(history.truth, SITE_ID, activecampaign),
        requests=Counter(state["requests"]) - Counter(before["requests"]),
        breaches=sum(state["breaches"].values()),
        most_events_in_a_second=most_in_a_second(event["received_at"] for event in events),
    )


def most_in_a_second(moments: Iterable[float]) -> int:
    """Return the most of these ascending moments, in seconds, that any sliding second holds."""
    window: deque[float] = deque()
    most = 0
    for moment in moments:
        window.append(moment)
        while window[0] <= moment - 1:
            window.popleft()
        most = max(most, len(window))
    return most
