"""The shop's own work: pgbench at a modest rate, 200 transactions a second that read and write."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

import anyio

from benchmarks.shop_server import pgbench
from kiva_stream.sandbox.postgres import Server

CLIENTS = 4
PER_SECOND = 200
SCALE = 4  # 400,000 accounts
LOG = "foreground"


Act = Callable[[], Awaitable[None]]


class Arms(NamedTuple):
    """The 95th percentiles of its latency, in ms: with something else beside it, and without."""

    beside: list[float]
    alone: list[float]


class Foreground:
    """Work in a database of its own, on the shop's server."""

    def __init__(self, program: Path, dsn: str, folder: Path) -> None:
        self._program = program
        self._dsn = dsn
        self._folder = folder

    @classmethod
    async def create(cls, server: Server, folder: Path) -> Foreground | None:
        """Fill the database; None where there is no pgbench."""
        program = pgbench()
        if program is None:
            print("There is no pgbench here: its figures are left out.", file=sys.stderr)
            return None
        it = cls(program, await server.create_database("foreground"), folder)
        await it._run("--initialize", "--quiet", f"--scale={SCALE}")
        return it

    async def by_turns(self, begin: Act, stop: Act, *, seconds: float, repetitions: int) -> Arms:
        """Work with something else beside it, which these two begin and stop, and without, by turns.

        Each is the first every other time.
        """
        arms = Arms([], [])
        for number in range(repetitions):
            for is_beside in ((True, False), (False, True))[number % 2]:
                await (begin if is_beside else stop)()
                (arms.beside if is_beside else arms.alone).append(await self.p95_ms(seconds))
        return arms

    async def p95_ms(self, seconds: float) -> float:
        """Work for some seconds; return the 95th percentile of the latency, from when each was to begin."""
        await self._run(
            "--no-vacuum",
            "--builtin=simple-update",
            f"--client={CLIENTS}",
            f"--rate={PER_SECOND}",
            f"--time={seconds:.0f}",
            "--log",
            f"--log-prefix={LOG}",
        )
        (log,) = self._folder.glob(f"{LOG}.*")
        took_us = [int(line.split()[2]) for line in log.read_text().splitlines()]
        log.unlink()
        return quantiles(took_us, n=20)[-1] / 1000

    async def _run(self, *options: str) -> None:
        await anyio.run_process([str(self._program), *options, self._dsn], cwd=self._folder)
