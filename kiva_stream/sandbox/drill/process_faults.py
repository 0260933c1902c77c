"""Faults of the process: it is killed, stopped and frozen."""

from __future__ import annotations

import random
import signal

import anyio

from kiva_stream.sandbox.drill.run import Run
from kiva_stream.sandbox.drill.site import MAX_IN_FLIGHT

FIRST, LAST = 0.02, 0.95  # signals fall between these shares of what must arrive

_ELSEWHERE = """
CREATE FUNCTION public.elsewhere() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.boot_id = 'of another host';
  RETURN NEW;
END $$;
CREATE TRIGGER elsewhere BEFORE INSERT OR UPDATE ON kiva_stream.lease
FOR EACH ROW EXECUTE FUNCTION public.elsewhere();
UPDATE kiva_stream.lease SET boot_id = '';
"""


async def signal_at_random(number: signal.Signals, times: int, run: Run) -> None:
    """Send a signal that often, each at a random share of the arrivals and after some progress."""
    chance, arrived = _chance(run), 0
    for share in sorted(chance.uniform(FIRST, LAST) for _ in range(times)):
        await run.wait_for_share(share)
        await run.site.wait_for_arrivals(arrived + 1)
        starts = run.starts
        if run.send_signal(number):
            run.note_strike()
        await run.wait_for_start(starts)
        run.note_end()
        arrived = await run.site.arrivals()


async def kill_elsewhere(run: Run) -> None:
    """Kill the process once, and let its lease be that of another host: the next process has to wait."""
    await run.site.execute(_ELSEWHERE)
    await signal_at_random(signal.SIGKILL, 1, run)


async def freeze(run: Run) -> None:
    """Freeze the process for longer than its lease, start a second one, and let the first continue."""
    await run.wait_for_share(_chance(run).uniform(FIRST, LAST))
    run.note_strike()
    run.send_signal(signal.SIGSTOP)
    arrived = await run.site.arrivals()
    second = Run(run.site)
    async with anyio.create_task_group() as group:
        group.start_soon(second.complete)
        await second.wait_for_start(0)
        run.note_end()
        more = arrived + 2 * MAX_IN_FLIGHT  # more than were in flight
        await run.site.wait_for_arrivals(min(more, run.site.history.arrivals))
        run.send_signal(signal.SIGCONT)
    run.add_starts(second.starts)


def _chance(run: Run) -> random.Random:
    return random.Random(run.site.history.seed)  # noqa: S311  chance, not secrets
