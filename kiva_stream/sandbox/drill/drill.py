"""`drill`: runs every scenario on a copy of a history, several at once, and compares what arrived."""

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
from kiva_stream.sandbox.comparison import compare_arrived, counts_of
from kiva_stream.sandbox.drill.history import History
from kiva_stream.sandbox.drill.report import DrillReport, Row
from kiva_stream.sandbox.drill.run import Play, Run
from kiva_stream.sandbox.drill.scenarios import Intensity, Scenario, scenarios
from kiva_stream.sandbox.drill.site import SITE_ID, DrillError, open_site
from kiva_stream.sandbox.postgres import own_postgres

AT_ONCE = 4  # scenarios, which mostly wait
TIMEOUT_S, TIMEOUT_A_KILL_S, TIMEOUT_AN_ENTRY_S = 60.0, 10.0, 0.01
_NOT_WRONG = {
    *("lost", "repeated", "out_of_order"),  # columns of the table
    *("expected", "arrived", "contacts", "orders_expected", "orders_arrived"),
}
# Figures of the account.
_MUST_BE_ZERO = ("tag_overlaps", "contacts_in_two_requests", "resubscribed", "orders_overtaken")

OnRow = Callable[[Row], None]


class Assignment(NamedTuple):
    """A scenario and the history to run it on."""

    scenario: Scenario
    history: History


async def drill(
    entries: int, wanted: Intensity, *, seeds: Sequence[int], only: Collection[str], on_row: OnRow
) -> DrillReport:
    """Run all scenarios, or those named in `only`, for each seed. `on_row` is called as each ends.

    The drill starts a PostgreSQL of its own, and an ActiveCampaign for each scenario. Raises SettingsError
    for a name that no scenario has, SourceError when there is no PostgreSQL.
    """
    chosen = _chosen(only, wanted)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        assignments: list[Assignment] = []
        for stopped in sorted({scenario.stops_postgres for scenario in chosen}):
            server = stack.enter_context(own_postgres())
            for seed in seeds:
                history = await History.write(server, folder, entries=entries, seed=seed)
                assignments += [
                    Assignment(each, history) for each in chosen if each.stops_postgres == stopped
                ]
        rows = await run_assignments(assignments, folder, wanted=wanted, on_row=on_row)
    return DrillReport(all(row.ok for row in rows), rows)


def _chosen(only: Collection[str], wanted: Intensity) -> list[Scenario]:
    known = {scenario.name: scenario for scenario in scenarios(wanted)}
    if unknown := set(only) - known.keys():
        raise SettingsError(
            f"--only {', '.join(sorted(unknown))}: there is no such scenario, but {', '.join(known)}."
        )
    return [known[name] for name in known if not only or name in only]


async def run_assignments(
    assignments: Sequence[Assignment], folder: Path, *, wanted: Intensity, on_row: OnRow
) -> list[Row]:
    """Run all, some at once; return a row each, in their order. A stopped server has one run at a time."""
    rows: dict[int, Row] = {}
    limiter, alone = anyio.CapacityLimiter(AT_ONCE), anyio.Lock()

    async def run_one(index: int, each: Assignment) -> None:
        async with alone if each.scenario.stops_postgres else limiter:
            rows[index] = await _run_assignment(each, folder, wanted)
        on_row(rows[index])

    async with anyio.create_task_group() as group:
        for index, each in enumerate(assignments):
            group.start_soon(run_one, index, each)
    return [rows[index] for index in range(len(assignments))]


async def _run_assignment(each: Assignment, folder: Path, wanted: Intensity) -> Row:
    scenario, history = each
    timeout_s = TIMEOUT_S + wanted.outage_s + wanted.kills * TIMEOUT_A_KILL_S
    timeout_s += history.generated.entries * TIMEOUT_AN_ENTRY_S
    async with open_site(
        history, folder, settings=scenario.settings, account=scenario.account, relayed=scenario.relayed
    ) as site:
        run = Run(site, scenario.restarted_codes)
        trouble = await _played(run, scenario.play, timeout_s)
        return await _row(scenario, run, trouble)


async def _played(run: Run, play: Play, timeout_s: float) -> str:
    """Have a run take its course. Return why it did not complete, or "" if it did."""
    trouble = ""
    try:
        with anyio.fail_after(timeout_s):
            await play(run)
    except* DrillError as errors:
        trouble = str(errors.exceptions[0])
    except* TimeoutError:
        trouble = f"it was not done after {timeout_s:g} s; the last word was: {run.site.last_error_line()}"
    return trouble


async def _row(scenario: Scenario, run: Run, trouble: str) -> Row:
    """Compare what arrived, and the counts of the state, with the truth."""
    site, made = run.site, run.site.history.generated
    compared = await compare_arrived(site.history.truth, SITE_ID, site.activecampaign)
    comparison = msgspec.structs.asdict(compared)
    state = await site.activecampaign.state()
    status = {} if trouble else await site.status()
    counts = counts_of(status["equation"]) if status else Counter(made.outcomes)
    missing, surplus = Counter(made.outcomes) - counts, counts - Counter(made.outcomes)
    wrong = {
        **{name: count for name, count in comparison.items() if name not in _NOT_WRONG},
        **{name: state[name] for name in _MUST_BE_ZERO},
        "breaches of the contract": sum(state["breaches"].values()),
        "entries without their outcome": missing.total(),
    }
    return Row(
        fault=scenario.name,
        seed=site.history.seed,
        entries=made.entries,
        times=run.struck or sum(state["faults"].values()),
        starts=run.starts,
        lost=comparison["lost"],
        repeated=comparison["repeated"],
        repeats_allowed=scenario.repeats_allowed,
        out_of_order=comparison["out_of_order"],
        kept=run.kept,
        dead_letters=sum(count for name, count in surplus.items() if name.startswith("dead")),
        recovered_after_s=await _recovered_after_s(run),
        sent_again=status.get("notes", {}).get("sent_again", 0),
        wrong={name: count for name, count in wrong.items() if count},
        trouble=trouble,
    )


async def _recovered_after_s(run: Run) -> float | None:
    """Return the longest time from the end of a fault to the next event."""
    received_at = [event["received_at"] async for event in run.site.activecampaign.rows("events")]
    waits = (
        min((at - ended_at for at in received_at if at > ended_at), default=None) for ended_at in run.ended_at
    )
    return max((wait for wait in waits if wait is not None), default=None)
