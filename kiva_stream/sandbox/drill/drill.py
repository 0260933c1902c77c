"""`drill`: every scenario on a copy of a history, several side by side, and what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import anyio
import msgspec

from kiva_stream.errors import SettingsError
from kiva_stream.sandbox.comparison import arrived, counts_of
from kiva_stream.sandbox.drill.report import DrillReport, Row
from kiva_stream.sandbox.drill.run import Run
from kiva_stream.sandbox.drill.scenarios import Disturb, Intensity, Scenario, scenarios
from kiva_stream.sandbox.drill.stage import SITE_ID, DrillError, History, staged
from kiva_stream.sandbox.postgres import own_postgres

SIDE_BY_SIDE = 4  # they mostly wait
PATIENCE_S, PATIENCE_A_KILL_S, PATIENCE_AN_ENTRY_S = 60.0, 10.0, 0.01
_SHOWN_OR_FINE = {
    *("lost", "repeated", "out_of_order"),  # columns of the table
    *("expected", "arrived", "contacts", "orders_expected", "orders_arrived"),
}
_NEVER = ("tag_overlaps", "contacts_in_two_requests", "resubscribed", "orders_overtaken")  # of the account

OnRow = Callable[[Row], None]


class Play(NamedTuple):
    """A scenario, and the history that it disturbs."""

    scenario: Scenario
    history: History


async def drill(
    entries: int, wanted: Intensity, seeds: Sequence[int], only: Collection[str], on_row: OnRow
) -> DrillReport:
    """Play all scenarios, or those of these names, for each seed; `on_row` is told as each ends.

    Everything is its own: PostgreSQL, and an ActiveCampaign a scenario. Raises SettingsError for a name that
    no scenario has, SourceError when there is no PostgreSQL to be had.
    """
    chosen = _chosen(only, wanted)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        plays: list[Play] = []
        for stopped in sorted({scenario.stops_postgres for scenario in chosen}):
            server = stack.enter_context(own_postgres())
            for seed in seeds:
                history = await History.write(server, folder, entries, seed)
                plays += [Play(each, history) for each in chosen if each.stops_postgres == stopped]
        rows = await play(plays, folder, wanted, on_row)
    return DrillReport(all(row.ok for row in rows), rows)


def _chosen(only: Collection[str], wanted: Intensity) -> list[Scenario]:
    known = {scenario.name: scenario for scenario in scenarios(wanted)}
    if unknown := set(only) - known.keys():
        raise SettingsError(
            f"--only {', '.join(sorted(unknown))}: there is no such scenario, but {', '.join(known)}."
        )
    return [known[name] for name in known if not only or name in only]


async def play(plays: Sequence[Play], folder: Path, wanted: Intensity, on_row: OnRow) -> list[Row]:
    """Play all, some side by side; return a row each, in their order. Who stops a server has it alone."""
    rows: dict[int, Row] = {}
    limiter, alone = anyio.CapacityLimiter(SIDE_BY_SIDE), anyio.Lock()

    async def play_one(index: int, each: Play) -> None:
        async with alone if each.scenario.stops_postgres else limiter:
            rows[index] = await _played(each, folder, wanted)
        on_row(rows[index])

    async with anyio.create_task_group() as group:
        for index, each in enumerate(plays):
            group.start_soon(play_one, index, each)
    return [rows[index] for index in range(len(plays))]


async def _played(each: Play, folder: Path, wanted: Intensity) -> Row:
    scenario, history = each
    patience_s = PATIENCE_S + wanted.outage_s + wanted.kills * PATIENCE_A_KILL_S
    patience_s += history.generated.entries * PATIENCE_AN_ENTRY_S
    async with staged(history, folder, scenario.settings, scenario.account) as stage:
        run = Run(stage, scenario.again)
        trouble = await _carried(run, scenario.disturb, patience_s)
        return await _judged(scenario, run, trouble)


async def _carried(run: Run, disturb: Disturb, patience_s: float) -> str:
    """Carry and disturb; return why that did not come to its end, "" when it did."""
    trouble = ""
    try:
        with anyio.fail_after(patience_s):
            async with anyio.create_task_group() as group:
                group.start_soon(disturb, run)
                await run.carry()
                group.cancel_scope.cancel()
    except* DrillError as errors:
        trouble = str(errors.exceptions[0])
    except* TimeoutError:
        trouble = f"it was not done after {patience_s:g} s; the last word was: {run.stage.last_words()}"
    return trouble


async def _judged(scenario: Scenario, run: Run, trouble: str) -> Row:
    """Compare what is there with the truth, and the state's own counts with what the truth says of them."""
    stage, made = run.stage, run.stage.history.generated
    comparison = msgspec.structs.asdict(await arrived(stage.history.truth, SITE_ID, stage.activecampaign))
    state = await stage.activecampaign.state()
    status = {} if trouble else await stage.status()
    counts = counts_of(status["equation"]) if status else Counter(made.outcomes)
    missing, surplus = Counter(made.outcomes) - counts, counts - Counter(made.outcomes)
    wrong = {
        **{name: count for name, count in comparison.items() if name not in _SHOWN_OR_FINE},
        **{name: state[name] for name in _NEVER},
        "breaches of the contract": sum(state["breaches"].values()),
        "entries without their outcome": missing.total(),
    }
    return Row(
        fault=scenario.name,
        seed=stage.history.seed,
        entries=made.entries,
        times=run.struck or sum(state["faults"].values()),
        starts=run.starts,
        lost=comparison["lost"],
        repeated=comparison["repeated"],
        repeats_allowed=scenario.repeats_allowed,
        out_of_order=comparison["out_of_order"],
        dead_letters=sum(count for name, count in surplus.items() if name.startswith("dead")),
        recovered_after_s=await _recovered_after_s(run),
        sent_again=status.get("notes", {}).get("sent_again", 0),
        wrong={name: count for name, count in wrong.items() if count},
        trouble=trouble,
    )


async def _recovered_after_s(run: Run) -> float | None:
    """Return how long it took from the end of a fault to the next event, at worst."""
    received_at = [event["received_at"] async for event in run.stage.activecampaign.rows("events")]
    waits = (
        min((at - over_at for at in received_at if at > over_at), default=None) for over_at in run.over_at
    )
    return max((wait for wait in waits if wait is not None), default=None)
