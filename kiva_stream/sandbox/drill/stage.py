"""What a scenario plays on: a copy of a history, an account of its own, and the commands of a user."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL
from typing import Any, NamedTuple
from uuid import uuid4

import anyio
import anyio.abc
import asyncpg
import msgspec

from kiva_stream.sandbox.generator import Generated, generate
from kiva_stream.sandbox.postgres import Server
from kiva_stream.sandbox.process import LocalActiveCampaign, local_activecampaign

SITE_ID = 1
LATENCY_MS = 5  # so that events are in flight whenever a plug is pulled
MAX_IN_FLIGHT = 20
LOOKUP_SETTLE_S = 0.5
LOOK_EVERY_S = 0.02

# Everything that a shop waits for is short, so that a drill is: limits, leases, time-outs, back-off.
SETTINGS: Mapping[str, object] = {
    "SOURCE__SITE_ID": SITE_ID,
    "STATE__LEASE_S": 2,
    "ACTIVECAMPAIGN__REQUESTS_PER_SECOND": 1000,
    "ACTIVECAMPAIGN__EVENTS_PER_SECOND": 0,
    "ACTIVECAMPAIGN__EVENTS_PER_SECOND_MIN": 1000,
    "ACTIVECAMPAIGN__MAX_IN_FLIGHT": MAX_IN_FLIGHT,
    "ACTIVECAMPAIGN__IMPORT_POLL_S": 0.2,
    "ACTIVECAMPAIGN__ORDER_SETTLE_S": 0.2,
    "ACTIVECAMPAIGN__REQUEST_TIMEOUT_S": 2,
    "ACTIVECAMPAIGN__BACKOFF_MAX_S": 1,
    "ACTIVECAMPAIGN__LOOKUP_SETTLE_S": LOOKUP_SETTLE_S,
}


class DrillError(Exception):
    """A scenario did not come to its end; the text says why."""


class History(NamedTuple):
    """A generated shop, to be copied: its database, and what must become of its log."""

    server: Server
    database: str
    truth: Path
    generated: Generated
    seed: int

    @classmethod
    async def write(cls, server: Server, folder: Path, entries: int, seed: int) -> History:
        """Generate one; its truth goes into the folder. Raises SourceError."""
        name = f"drill_{uuid4().hex}"
        dsn = await server.create_database(name)
        truth = folder / f"{name}.truth"
        return cls(server, name, truth, await generate(dsn, entries, seed, truth=truth), seed)

    @property
    def arrivals(self) -> int:
        """How many contacts, orders and events must arrive."""
        made = self.generated
        return made.contacts + made.orders_expected + made.outcomes.get("delivered", 0)


class Stage(msgspec.Struct):
    """A shop, an account that is set up, and the command line with the settings that name both."""

    history: History
    dsn: str
    activecampaign: LocalActiveCampaign
    folder: Path
    environ: Mapping[str, str]

    async def start(self, *arguments: str) -> anyio.abc.Process:
        """Start a command; what it says on stderr is added to the file `said`."""
        with (self.folder / "said").open("ab") as said:
            return await anyio.open_process(
                self._command(arguments), env=self.environ, cwd=self.folder,
                stdin=DEVNULL, stdout=DEVNULL, stderr=said,
            )  # fmt: skip

    async def ask(self, *arguments: str) -> bytes:
        """Run a command to its end; return what it printed. Raises DrillError when it fails."""
        done = await anyio.run_process(
            self._command(arguments), env=self.environ, cwd=self.folder, check=False
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise DrillError(f"`{arguments[0]}` ended with exit code {done.returncode}: {said}")
        return done.stdout

    async def status(self) -> dict[str, Any]:
        """Return what `status --json` says."""
        return msgspec.json.decode(await self.ask("status", "--json"))  # type: ignore[no-any-return]

    async def execute(self, statements: str) -> None:
        """Have the shop's database do something."""
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute(statements)
        finally:
            await connection.close()

    async def arrivals(self) -> int:
        """Return how many contacts, orders and events the account has by now."""
        state = await self.activecampaign.state()
        return int(state["contacts"] + state["orders"] + state["events"])

    async def reached(self, arrivals: int) -> None:
        """Return when the account has so many."""
        while await self.arrivals() < arrivals:  # noqa: ASYNC110  it happens in another process
            await anyio.sleep(LOOK_EVERY_S)

    def last_words(self) -> str:
        """Return the last line that a command said on stderr."""
        lines = (self.folder / "said").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        config = self.folder / "kiva_stream.toml"  # an empty one, so that no other is read
        return [sys.executable, "-m", "kiva_stream", "--config", str(config), *arguments]


@asynccontextmanager
async def staged(
    history: History, folder: Path, settings: Mapping[str, object], account: Mapping[str, object]
) -> AsyncIterator[Stage]:
    """Give a copy of a history, and an account that is set up, with these settings beside those of all.

    The account's limits are out of the way. Raises DrillError when the set-up fails.
    """
    name = f"{history.database}_{uuid4().hex[:8]}"
    dsn = await history.server.create_database(name, template=history.database)
    (folder / name).mkdir()
    (folder / name / "kiva_stream.toml").touch()
    async with local_activecampaign("--latency-ms", str(LATENCY_MS)) as activecampaign:
        await activecampaign.change(
            **{"requests_per_second": 0, "import_duration_s": 0, "order_delay_s": 0, **account}
        )
        stage = Stage(history, dsn, activecampaign, folder / name, _environ(dsn, activecampaign, settings))
        await stage.ask("setup")
        yield stage
    await history.server.drop_database(name)


def _environ(dsn: str, activecampaign: LocalActiveCampaign, settings: Mapping[str, object]) -> dict[str, str]:
    """Return the environment of a command: nothing of the settings of whoever drills is in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KIVA_STREAM")}
    chosen = {**SETTINGS, **settings, "SOURCE__DSN": dsn, "STATE__DSN": dsn}
    return {
        **kept,
        **{f"KIVA_STREAM__{key}": str(value) for key, value in chosen.items()},
        **activecampaign.environ(),
    }
