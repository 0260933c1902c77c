"""Peers side by side: how fast each is, what it asks of ActiveCampaign, and what a crash costs.

Each carries a history to its end, measured; and a small one, killed with SIGKILL when half of the events
are there and started again. Each time to an account of its own that is set up, some 25 ms away and back
(10, and up to 30 of jitter on the way there). Its limit of 5 requests a second is lifted, or the peers
would wait for their contacts most of the time: what it would mean is in the requests for 1,000 entries.

How to read it. Rates have the start in them. Processor time is that of the peer's process, less that of a
start which finds nothing to do (`status`, of kiva_stream, whose second backfill would compare all
contacts); PostgreSQL's is not counted, which a job queue keeps busy. kiva_stream brings all contacts with
their fields, list and tag, and their orders, which no other does. Whoever keeps the order takes at least as
long as the events of the busiest contact one after another: 320 of 30,000 entries, 8 s, which a longer
history hides. What was sent when a process is killed arrives all the same. Run on request.

The gates, of kiva_stream alone, were seen to fail with 3,000 and 5,000 entries: lost (56) with every fiftieth
event left out, and when killed (1,185) with a watermark that passes what has no outcome; repeated (1,437)
with each event sent twice, and when killed (77) with activecampaign.lookup = false; out of order (1,800, and
1,811) with lanes that give a second batch out; changed (2,395, and 1,210) with an x before each eventdata.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from subprocess import DEVNULL
from types import MappingProxyType
from typing import NamedTuple

import anyio
from anyio.abc import Process

from benchmarks.accounts import unlimited
from benchmarks.bench import Bench
from benchmarks.command import Measured, measured
from benchmarks.figures import Figure, shown
from benchmarks.histories import SITE_ID, History
from benchmarks.jobs import HOUR_S
from kiva_stream.sandbox.comparison import Comparison, compare_arrived
from kiva_stream.sandbox.process import LocalActiveCampaign

ENTRIES = 30_000
FEW_ENTRIES = 5_000  # the most that a killed run has
ACCOUNT = ("--latency-ms", "10", "--jitter-ms", "30")
LOOK_EVERY_S = 0.02
EVENT = "trackEvent"
LEASE_S = 5
SHORT_WAITS = {  # of a kiva_stream that was killed: how long its site is held, and its last events doubted
    "KIVA_STREAM__STATE__LEASE_S": str(LEASE_S),
    "KIVA_STREAM__ACTIVECAMPAIGN__LOOKUP_SETTLE_S": "1",
}

_EVENTS = "SELECT count(*) FROM entry WHERE site_id = ? AND outcome = 'delivered'"


class Peer(NamedTuple):
    """A way to deliver a log."""

    name: str
    module: str  # "": kiva_stream's own command
    entries: int = ENTRIES
    waits: bool = False  # most of the time: then its two runs go side by side
    held_s: float = 0.0  # after a kill nobody may go on for so long


PEERS = (
    Peer("one at a time", "one_by_one", 2_000, waits=True),
    Peer("200 in flight, page by page", "gathered"),
    Peer("200 in flight, unordered", "unordered"),
    Peer("procrastinate, a lock per contact", "job_queue", 5_000),
    Peer("kiva_stream, as few entries", "", FEW_ENTRIES, held_s=LEASE_S),
    Peer("kiva_stream", "", held_s=LEASE_S),
)


class Whole(NamedTuple):
    """A run to the end, and a start that found nothing to do."""

    entries: int
    measured: Measured
    idle: Measured
    requests: Counter[str]  # by operation, at the receiver
    comparison: Comparison


class Row(NamedTuple):
    """What was seen of a peer."""

    peer: Peer
    whole: Whole
    killed: Comparison

    @property
    def per_hour(self) -> float:
        """Entries an hour, from the start of the command to its end."""
        return self.whole.entries / self.whole.measured.seconds * HOUR_S

    @property
    def cpu_s(self) -> float:
        """Processor seconds of the process for 1,000 events."""
        spent_s = self.whole.measured.cpu_s - self.whole.idle.cpu_s
        return spent_s / self.whole.comparison.arrived * 1_000

    @property
    def requests(self) -> dict[str, float]:
        """Requests for 1,000 entries, by operation."""
        counts = sorted(self.whole.requests.items())
        return {name: count / self.whole.entries * 1_000 for name, count in counts}

    @property
    def rest_requests(self) -> float:
        """The same of all that the limit of 5 a second is for: REST and GraphQL."""
        return sum(share for name, share in self.requests.items() if name != EVENT)

    def markdown(self) -> str:
        """Return the row as one of the table."""
        killed = self.killed
        figures = (
            *(self.whole.entries, self.per_hour, self.cpu_s, self.requests[EVENT], self.rest_requests),
            *(self.whole.comparison.out_of_order, killed.lost, killed.repeated, killed.out_of_order),
        )
        return f"| {self.peer.name} | {' | '.join(map(shown, figures))} |"


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it, and print its table."""
    rows = [await _row(bench, peer, entries or peer.entries) for peer in PEERS]
    print(table(rows))
    return [figure for row in rows for figure in _figures(row)]


def table(rows: list[Row]) -> str:
    """Return the rows as one Markdown table."""
    heads = (
        *("peer", "entries", "entries/hour", "CPU s per 1,000 events", "events per 1,000 entries"),
        *("REST requests per 1,000 entries", "out of order"),
        *("killed: lost", "killed: repeated", "killed: out of order"),
    )
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    return "\n".join(lines + [row.markdown() for row in rows])


def _figures(row: Row) -> Iterator[Figure]:
    name = row.peer.name
    most = None if row.peer.module else 0  # what kiva_stream promises
    yield Figure(f"{name}: entries/hour", [row.per_hour])
    yield Figure(f"{name}: CPU s per 1,000 events", [row.cpu_s])
    for operation, share in row.requests.items():
        yield Figure(f"{name}: requests per 1,000 entries, {operation}", [share])
    for when, seen in (("", row.whole.comparison), ("killed, ", row.killed)):
        yield Figure(f"{name}: {when}lost", [seen.lost], most=most)
        yield Figure(f"{name}: {when}repeated", [seen.repeated], most=most)
        yield Figure(f"{name}: {when}out of order", [seen.out_of_order], most=most)
        yield Figure(f"{name}: {when}unexpected or changed", [seen.unexpected + seen.changed], most=most)


async def _row(bench: Bench, peer: Peer, entries: int) -> Row:
    history = await bench.history(entries)
    short = await bench.history(min(entries, FEW_ENTRIES))
    if peer.waits:
        return Row(peer, *await asyncio.gather(_whole(bench, peer, history), _killed(bench, peer, short)))
    return Row(peer, await _whole(bench, peer, history), await _killed(bench, peer, short))


async def _whole(bench: Bench, peer: Peer, history: History) -> Whole:
    """Run a peer to its end, and start it once more."""
    async with _stage(bench, peer, history, why="whole") as stage:
        before = await stage.activecampaign.state()
        run = await stage.run()
        state = await stage.activecampaign.state()
        requests = Counter(state["requests"]) - Counter(before["requests"])
        comparison = await compare_arrived(history.truth, SITE_ID, stage.activecampaign)
        return Whole(history.entries, run, await stage.idle(), requests, comparison)


async def _killed(bench: Bench, peer: Peer, history: History) -> Comparison:
    """Kill a peer when half of the events are there, and start it again."""
    async with _stage(bench, peer, history, why="killed", settings=SHORT_WAITS) as stage:
        child = await anyio.open_process(
            stage.command, cwd=stage.folder, env=stage.environ, stdout=DEVNULL, stderr=DEVNULL
        )
        await stage.reached(_events(history) // 2, child)
        child.kill()
        await child.wait()
        await anyio.sleep(peer.held_s)
        await stage.run()
        return await compare_arrived(history.truth, SITE_ID, stage.activecampaign)


def _events(history: History) -> int:
    """Return how many events a history has."""
    with closing(sqlite3.connect(history.truth)) as truth:
        events: int = truth.execute(_EVENTS, (SITE_ID,)).fetchone()[0]
    return events


class _Stage(NamedTuple):
    """A peer's command, the folder that it runs in, and its account."""

    command: list[str]
    idle_command: list[str]
    folder: Path
    environ: dict[str, str]
    activecampaign: LocalActiveCampaign

    async def run(self) -> Measured:
        """Run the command to its end."""
        return await self._measured(self.command)

    async def idle(self) -> Measured:
        """Run the command that does next to nothing, when the log is carried."""
        return await self._measured(self.idle_command)

    async def _measured(self, command: list[str]) -> Measured:
        return await anyio.to_thread.run_sync(measured, command, self.folder, self.environ)

    async def reached(self, events: int, child: Process) -> None:
        """Return when so many events are there. Raises ValueError when the process ends before."""
        while (await self.activecampaign.state())["events"] < events:
            if child.returncode is not None:
                raise ValueError(f"{' '.join(self.command)} ended before it could be killed")
            await anyio.sleep(LOOK_EVERY_S)


@asynccontextmanager
async def _stage(
    bench: Bench,
    peer: Peer,
    history: History,
    *,
    why: str,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[_Stage]:
    name = f"{why}_{peer.module or 'kiva_stream'}_{peer.entries}"
    folder = bench.folder / name
    folder.mkdir()
    if peer.module:
        command = idle_command = [sys.executable, "-m", f"{__package__}.{peer.module}"]
    else:
        command, idle_command = bench.command("backfill", "--since", "day1"), bench.command("status")
    async with unlimited(bench, history, name, *ACCOUNT) as (environ, activecampaign):
        yield _Stage(command, idle_command, folder, {**environ, **settings}, activecampaign)
