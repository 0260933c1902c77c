"""`python -m benchmarks [NAME…] [--entries N]`: measures, prints one table, and fails when a gate does."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace

import anyio

from benchmarks import (
    bare_session,
    documented_limits,
    following,
    instant_sink,
    killed,
    memory,
    requests,
    rest_budget,
    unpaced,
    year,
)
from benchmarks.bench import Bench
from benchmarks.figures import Figure, save, table
from benchmarks.peers import side_by_side

ALL = {
    "unpaced": unpaced.figures,
    "memory": memory.figures,
    "requests": requests.figures,
    "instant_sink": instant_sink.figures,
    "bare_session": bare_session.figures,
    "rest_budget": rest_budget.figures,
    "documented_limits": documented_limits.figures,
    "following": following.figures,
    "year": year.figures,
}
WAITING = {"memory", "rest_budget", "documented_limits", "year"}  # for limits, most of the time
ON_REQUEST = {"killed": killed.figures, "peers": side_by_side.figures}
KNOWN = {**ALL, **ON_REQUEST}


def main() -> None:
    """Run what was asked for; exit code 1 names the figures that fell short."""
    asked = _arguments()
    figures = anyio.run(_run, asked.names or list(ALL), asked.entries, backend_options={"use_uvloop": True})
    save(figures)
    print(table(figures))
    if missed := [figure for figure in figures if not figure.holds]:
        sys.exit("\n".join(f"Fell short: {figure.name}, gate {figure.gate}" for figure in missed))


async def _run(names: list[str], entries: int | None) -> list[Figure]:
    """Run one after the other what needs the processor, then side by side what mostly waits."""
    found: dict[str, list[Figure]] = {}
    async with Bench.open() as bench:

        async def run(name: str) -> None:
            began_at = time.monotonic()
            found[name] = await KNOWN[name](bench, entries)
            print(f"{name}: {time.monotonic() - began_at:.0f} s", file=sys.stderr)

        for name in names:
            if name not in WAITING:
                await run(name)
        async with anyio.create_task_group() as group:
            for name in WAITING.intersection(names):
                group.start_soon(run, name)
    return [figure for name in names for figure in found[name]]


def _arguments() -> Namespace:
    parser = ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(KNOWN)}; all but {' and '.join(ON_REQUEST)} when none is given",
    )
    parser.add_argument("--entries", type=int, metavar="N", help="instead of the size that each has")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(KNOWN):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}: there are {', '.join(KNOWN)}")
    return asked


main()
