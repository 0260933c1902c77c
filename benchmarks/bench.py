"""The bench: a PostgreSQL with generated histories, and the processes that are run and measured on them."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from subprocess import DEVNULL
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import anyio
import msgspec
from anyio.abc import Process

from benchmarks.carried import Carried
from benchmarks.command import Measured, measured
from benchmarks.figures import Plot
from benchmarks.histories import SITE_ID, Histories, History
from kiva_stream.sandbox.postgres import Server, embedded_postgres
from kiva_stream.sandbox.process import Keys, LocalActiveCampaign
from kiva_stream.settings import loading
from kiva_stream.settings.sections import Settings

T = TypeVar("T")

NOWHERE = LocalActiveCampaign(
    "http://127.0.0.1:9", "http://127.0.0.1:9", [Keys("nowhere", "token", "1", "key")]
)
_schemas = (f"state_{number}" for number in count())


class Bench:
    """What the benchmarks share.

    A full one measures more often, and larger histories; `plots` are those that were made of it.
    """

    def __init__(self, server: Server, folder: Path, *, is_full: bool = False) -> None:
        self.folder = folder
        self.is_full = is_full
        self.plots: list[Plot] = []
        self.config = folder / "kiva_stream.toml"  # empty: the machine's own is not read
        self.config.touch()
        self._histories = Histories(server, folder)
        self._once: dict[str, Any] = {}
        self._command = [sys.executable, "-m", "kiva_stream", "--config", str(self.config)]

    @classmethod
    @asynccontextmanager
    async def open(cls, *, is_full: bool = False) -> AsyncIterator[Bench]:
        """Start the PostgreSQL; it and all that is written go with the block."""
        with embedded_postgres() as server, TemporaryDirectory() as folder:
            yield cls(server, Path(folder), is_full=is_full)

    @property
    def repetitions(self) -> int:
        """How often what is compared is measured."""
        return 5 if self.is_full else 3

    async def history(self, entries: int, kind: str = "shop", *, only: str | None = None) -> History:
        """Return a history; see `Histories.of`."""
        return await self._histories.of(entries, kind, only=only)

    async def once(self, name: str, measure: Callable[[], Awaitable[T]]) -> T:
        """Return what was measured under this name, when first asked for it."""
        if name not in self._once:
            self._once[name] = await measure()
        found: T = self._once[name]
        return found

    def settings(self, dsn: str, activecampaign: LocalActiveCampaign = NOWHERE) -> Settings:
        """Return settings that carry a history to an account, its events unpaced, into a new state."""
        return loading.load(
            self.config, environ_of(dsn, activecampaign, schema=new_schema(), events_per_second=0)
        )

    def command(self, *arguments: str) -> list[str]:
        """Return a command of kiva_stream; what it works on stands in its environment."""
        return [*self._command, *arguments]

    @property
    def backfill_command(self) -> list[str]:
        """The command of a backfill."""
        return self.command("backfill", "--since", "day1")

    async def backfill(self, environ: dict[str, str]) -> Measured:
        """Run a backfill to its end, and measure it."""
        return await anyio.to_thread.run_sync(measured, self.backfill_command, self.folder, environ)

    @asynccontextmanager
    async def follow(self, environ: dict[str, str]) -> AsyncIterator[Process]:
        """Have a process follow the log in this block."""
        process = await anyio.open_process(
            self.command("follow"), cwd=self.folder, env=environ, stdout=DEVNULL, stderr=DEVNULL
        )
        try:
            yield process
        finally:
            process.terminate()
            await process.wait()

    async def carried(
        self,
        history: History,
        account: LocalActiveCampaign | None = None,
        *,
        within: tuple[str, ...] = (),
        **more: int,
    ) -> Carried:
        """Carry a history in a process of its own, on one core: to an account, else to an instant sink.

        `within` is a command that runs the process, `more` are settings of section activecampaign.
        """
        environ = environ_of(history.dsn, account or NOWHERE, schema=new_schema(), events_per_second=0)
        environ |= {f"KIVA_STREAM__ACTIVECAMPAIGN__{key.upper()}": str(value) for key, value in more.items()}
        environ["PYTHONHASHSEED"] = "0"  # or sets and dicts would be other ones each time
        sink = "http" if account else "instant"
        command = [*within, sys.executable, "-m", "benchmarks.carried", str(self.config), sink]
        said = await anyio.run_process(command, env=environ, stderr=None)
        lines = said.stdout.splitlines()
        return msgspec.json.decode(next(line for line in lines if line.startswith(b"{")), type=Carried)


def new_schema() -> str:
    """Return the name of a state schema that nothing has used yet."""
    return next(_schemas)


def environ_of(
    dsn: str, activecampaign: LocalActiveCampaign, *, schema: str, events_per_second: int
) -> dict[str, str]:
    """Return the environment of a backfill.

    A setting in the environment of the benchmarks is kept, so that a gate can be tried; but it never names
    another database or account.
    """
    return {
        "KIVA_STREAM__ACTIVECAMPAIGN__EVENTS_PER_SECOND": str(events_per_second),
        **os.environ,
        "KIVA_STREAM__SOURCE__DSN": dsn,
        "KIVA_STREAM__SOURCE__SITE_ID": str(SITE_ID),
        "KIVA_STREAM__STATE__DSN": dsn,
        "KIVA_STREAM__STATE__SCHEMA": schema,
        **activecampaign.environ(),
    }
