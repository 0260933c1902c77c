"""Scenarios of the drill for the suite: a small history, and the row of each."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path

from kiva_stream.sandbox.drill import Assignment, History, Intensity, Row, run_assignments, scenarios
from kiva_stream.sandbox.postgres import own_postgres
from tests.acceptance.stages import ENTRIES, SEED

INTENSITY = Intensity(kills=3, outage_s=3)


async def drilled(names: Collection[str], shared: History, folder: Path) -> dict[str, Row]:
    """Run these scenarios at once; return the row of each. One that stops PostgreSQL has its own server."""
    chosen = [scenario for scenario in scenarios(INTENSITY) if scenario.name in names]
    with ExitStack() as stack:
        own = shared
        if any(scenario.stops_postgres for scenario in chosen):
            own = await History.write(stack.enter_context(own_postgres()), folder, entries=ENTRIES, seed=SEED)
        assignments = [
            Assignment(scenario, own if scenario.stops_postgres else shared) for scenario in chosen
        ]
        rows = await run_assignments(assignments, folder, wanted=INTENSITY, on_row=lambda _: None)
    return {row.fault: row for row in rows}
