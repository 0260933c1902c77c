"""`python -m benchmarks [NAME…] [--entries N]`: measures, prints one table, and fails when a gate does."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace

import anyio

from benchmarks import (
    bare_session,
    documented_limits,
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

ALL = {
    "unpaced": unpaced.figures,
    "memory": memory.figures,
    "requests": requests.figures,
    "instant_sink": instant_sink.figures,
    "bare_session": bare_session.figures,
    "rest_budget": rest_budget.figures,
    "documented_limits": documented_limits.figures,
    "year": year.figures,
}
KNOWN = {**ALL, "killed": killed.figures}  # the last on request only


def main() -> None:
    """Run what was asked for; exit code 1 names the figures that fell short."""
    asked = _arguments()
    figures = anyio.run(_run, asked.names or list(ALL), asked.entries, backend_options={"use_uvloop": True})
    save(figures)
    print(table(figures))
    if missed := [figure for figure in figures if not figure.holds]:
        sys.exit("\n".join(f"Fell short: {figure.name}, gate {figure.gate}" for figure in missed))


async def _run(names: list[str], entries: int | None) -> list[Figure]:
    found: list[Figure] = []
    async with Bench.open() as bench:
        for name in names:
            began_at = time.monotonic()
            found += await KNOWN[name](bench, entries)
            print(f"{name}: {time.monotonic() - began_at:.0f} s", file=sys.stderr)
    return found


def _arguments() -> Namespace:
    parser = ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(KNOWN)}; all but killed when none is given",
    )
    parser.add_argument("--entries", type=int, metavar="N", help="instead of the size that each has")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(KNOWN):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}: there are {', '.join(KNOWN)}")
    return asked


main()
