"""`python -m benchmarks [NAME…] [--full]`: measures, prints one table, and fails when a gate does."""

from __future__ import annotations

import os
import sys
import time
from argparse import ArgumentParser, Namespace
from functools import partial
from itertools import chain

import anyio

from benchmarks import (
    bare_session,
    calibrate,
    cost,
    documented_limits,
    following,
    instant_sink,
    killed,
    one_core,
    profile,
    ratios,
    requests,
    rest_budget,
    shop_load,
    size,
    slowing,
    stage_costs,
    unpaced,
    whole_run,
    year,
)
from benchmarks.bench import Bench
from benchmarks.figures import OUT, Figure, save, table
from benchmarks.peers import side_by_side
from benchmarks.plots import draw

IN_CI = {
    "stage_costs": stage_costs.figures,
    "whole_run": whole_run.figures,
    "instant_sink": instant_sink.figures,
    "bare_session": bare_session.figures,
    "size": size.figures,
    "one_core": one_core.figures,
    "unpaced": unpaced.figures,
    "following": following.figures,
    "shop_load": shop_load.figures,
    "rest_budget": rest_budget.figures,
    "requests": requests.figures,
    "documented_limits": documented_limits.figures,
    "year": year.figures,
}
ON_REQUEST = {
    "profile": profile.figures,
    "cost": cost.figures,
    "peers": side_by_side.figures,
    "killed": killed.figures,
}
KNOWN = {**IN_CI, **ON_REQUEST}
CALIBRATE = "calibrate"
WAITING = {"following", "rest_budget", "requests", "documented_limits", "year"}  # mostly
ALONE_IN_FULL = {"following"}  # with more accounts beside it it made 4.24 requests a second, not 4.5 to 4.7


def main() -> None:
    """Run what was asked for; exit code 1 names the figures that fell short."""
    asked = _arguments()
    if asked.names == [CALIBRATE]:
        anyio.run(
            partial(calibrate.calibrate, is_committed=asked.commit), backend_options={"use_uvloop": True}
        )
        return
    if asked.slow:
        os.environ[slowing.VARIABLE] = ",".join(asked.slow)
    names = asked.names or list(KNOWN if asked.full else IN_CI)
    figures = anyio.run(_run, names, asked.entries, asked.full, backend_options={"use_uvloop": True})
    print(table(figures))
    if without_gate := ratios.without_gate(figures):
        print(without_gate, file=sys.stderr)
    if missed := [figure for figure in figures if not figure.holds]:
        sys.exit("\n".join(f"Fell short: {figure.name}, gate {figure.gate}" for figure in missed))


async def _run(names: list[str], entries: int | None, is_full: bool) -> list[Figure]:
    """Run one after the other what needs the processor, then side by side what mostly waits."""
    found: dict[str, list[Figure]] = {}
    started_at = time.monotonic()
    async with Bench.open(is_full=is_full) as bench:

        async def run(name: str) -> None:
            began_at = time.monotonic()
            found[name] = await KNOWN[name](bench, entries)
            save(list(chain.from_iterable(found.values())), bench.plots)  # as far as it came
            print(f"{name}: {time.monotonic() - began_at:.0f} s", file=sys.stderr)

        beside = WAITING - ALONE_IN_FULL if is_full else WAITING
        for name in names:
            if name not in beside:
                await run(name)
        async with anyio.create_task_group() as group:
            for name in beside.intersection(names):
                group.start_soon(run, name)
    figures = [figure for name in names for figure in found[name]]
    save(figures, bench.plots)
    draw(bench.plots, OUT)
    print(f"all: {time.monotonic() - started_at:.0f} s", file=sys.stderr)
    return figures


def _arguments() -> Namespace:
    parser = ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(KNOWN)}; those that CI runs ({', '.join(IN_CI)}) when none is given; or"
        f" {CALIBRATE}, which measures what ratios are compared with",
    )
    parser.add_argument("--full", action="store_true", help="all of them, some of them larger: half an hour")
    parser.add_argument(
        "--slow", action="append", metavar="STAGE=SHARE", help="slow a stage by a share, to see its gate fail"
    )
    parser.add_argument("--commit", action="store_true", help=f"of {CALIBRATE}: write what was measured")
    parser.add_argument("--entries", type=int, metavar="N", help="instead of the size that each has")
    asked = parser.parse_args()
    if asked.names != [CALIBRATE] and (unknown := set(asked.names) - set(KNOWN)):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}: there are {', '.join(KNOWN)}")
    return asked


main()
