"""Nothing lost at size: a backfill of 200,000 entries killed with SIGKILL half way, and started again.

5 ms to the sandbox and back, so that as many events are in flight as may be. Those whose outcome was not
committed when the process died are looked up, and none that arrived is sent again. Run on request.

Seen to fail: repeated (108, of 20,000 entries) with activecampaign.lookup = false; and with 10,000 entries
lost (2,006) with a watermark that passes what has no outcome, changed (2,701) with an x before each
eventdata, out of order (3,188) with lanes that give a second batch out, contacts wrong (83) with another
first name, breaches (9) with activecampaign.requests_per_second = 50.
"""

from __future__ import annotations

from subprocess import DEVNULL
from typing import NamedTuple

import anyio

from benchmarks.accounts import ready
from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.histories import SITE_ID, History
from kiva_stream.sandbox.comparison import Comparison, compare_arrived
from kiva_stream.sandbox.process import LocalActiveCampaign

ENTRIES = 200_000
LATENCY_MS = 5
HALF_OF_THE_EVENTS = 0.25  # of the entries: about half of them become events
HELD = 6  # exit code of a backfill whose site another process still holds
LOOK_EVERY_S = 0.1


class Killed(NamedTuple):
    """What a backfill left that was killed and run again."""

    events_when_killed: int
    comparison: Comparison
    breaches: int


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    seen = await _killed(bench, await bench.history(entries or ENTRIES))
    return [
        Figure("killed: events expected", [seen.comparison.expected]),
        Figure("killed: events there when it was killed", [seen.events_when_killed]),
        Figure("killed: lost", [seen.comparison.lost], most=0),
        Figure("killed: out of order", [seen.comparison.out_of_order], most=0),
        Figure(
            "killed: unexpected or changed", [seen.comparison.unexpected + seen.comparison.changed], most=0
        ),
        Figure("killed: repeated", [seen.comparison.repeated], most=0),
        Figure("killed: contacts wrong", [seen.comparison.contacts_wrong], most=0),
        Figure("killed: breaches of limits and contract", [seen.breaches], most=0),
    ]


async def _killed(bench: Bench, history: History) -> Killed:
    """Kill a backfill when half of its events are there, run it again, and return what arrived."""
    async with ready(bench, history.dsn, latency_ms=LATENCY_MS) as (
        environ,
        activecampaign,
    ):
        events = await _events_when_killed(bench, environ, history=history, activecampaign=activecampaign)
        await _backfilled_when_free(bench, environ)
        state = await activecampaign.state()
        comparison = await compare_arrived(history.truth, SITE_ID, activecampaign)
        return Killed(events, comparison, sum(state["breaches"].values()))


async def _events_when_killed(
    bench: Bench, environ: dict[str, str], *, history: History, activecampaign: LocalActiveCampaign
) -> int:
    child = await anyio.open_process(
        bench.backfill_command, cwd=bench.folder, env=environ, stdout=DEVNULL, stderr=DEVNULL
    )
    events = 0
    while events < history.entries * HALF_OF_THE_EVENTS:
        if child.returncode is not None:
            raise ValueError("the backfill ended before it could be killed")
        await anyio.sleep(LOOK_EVERY_S)
        events = (await activecampaign.state())["events"]
    child.kill()
    await child.wait()
    return events


async def _backfilled_when_free(bench: Bench, environ: dict[str, str]) -> None:
    """Run a backfill to its end, as soon as no other process holds the site."""
    while True:
        run = await anyio.run_process(bench.backfill_command, cwd=bench.folder, env=environ, check=False)
        if run.returncode != HELD:
            run.check_returncode()
            return
        await anyio.sleep(LOOK_EVERY_S)
