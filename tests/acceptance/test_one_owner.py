"""A site belongs to one process at a time: who comes second, and who was frozen for longer than its lease."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.acceptance.stages import PATIENCE_S, Stage, until

DAY1 = ("backfill", "--since", "day1", "--yes")
QUICK = {
    "KIVA_STREAM__STATE__LEASE_S": "2",
    "KIVA_STREAM__ACTIVECAMPAIGN__LOOKUP_SETTLE_S": "0.2",
    "KIVA_STREAM__ACTIVECAMPAIGN__MAX_IN_FLIGHT": "20",
}
FOLLOWING = {"KIVA_STREAM__SOURCE__DELAY_S": "0", "KIVA_STREAM__SOURCE__POLL_INTERVAL_S": "0.5"}


@contextmanager
def frozen(process: subprocess.Popen[str]) -> Iterator[None]:
    """Have a process stand still while this lasts."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


async def events(stage: Stage) -> int:
    count: int = (await stage.activecampaign.state())["events"]
    return count


async def some_events(stage: Stage) -> None:
    async def are_there() -> bool:
        return await events(stage) > 200

    await until(are_there)


async def test_a_process_frozen_past_its_lease_sends_nothing_more_and_the_other_sends_the_rest(
    ready: Stage,
) -> None:
    first = ready.start(*DAY1, **QUICK)
    await some_events(ready)
    with frozen(first):
        second = ready.start("follow", "--wait", **QUICK, **FOLLOWING)
        before = await events(ready)

        async def goes_on() -> bool:
            return await events(ready) > before + 200

        await until(goes_on)
        held_by = ready.status()["held_by"]
        assert held_by.endswith(f"pid {second.pid}")
    _, said = first.communicate(timeout=PATIENCE_S)
    assert first.returncode == 6, said

    async def all_there() -> bool:
        return await events(ready) >= ready.generated.outcomes["delivered"]

    await until(all_there)
    second.terminate()
    second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 0
    comparison = await ready.compare()
    assert (comparison.lost, comparison.out_of_order, comparison.unexpected) == (0, 0, 0)
    assert comparison.repeated == 0


async def test_a_process_that_stood_still_continues_when_no_other_took_the_site(ready: Stage) -> None:
    process = ready.start(*DAY1, **QUICK)
    await some_events(ready)
    with frozen(process):

        async def is_free() -> bool:
            return ready.status()["held_by"] is None

        await until(is_free)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    assert (await ready.compare()).is_exact
