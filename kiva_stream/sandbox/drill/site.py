"""The site of a scenario: a copy of a history, an account of its own, and the commands of a user."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL
from typing import Any
from uuid import uuid4

import anyio
import anyio.abc
import asyncpg
import msgspec

from kiva_stream.sandbox.drill.history import History
from kiva_stream.sandbox.process import LocalActiveCampaign, local_activecampaign
from kiva_stream.sandbox.relay import Relay

SITE_ID = 1
LATENCY_MS = 5  # so that events are in flight whenever a fault strikes
MAX_IN_FLIGHT = 20
LOOKUP_SETTLE_S = 0.5
POLL_EVERY_S = 0.02

# Limits, leases, time-outs and back-off are short, so that a drill is short.
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
    """A scenario did not complete; the text says why."""


class DrillSite(msgspec.Struct):
    """A shop, an account that is set up, and the command line with the settings for both."""

    history: History
    dsn: str
    activecampaign: LocalActiveCampaign
    folder: Path
    environ: Mapping[str, str]
    relay: Relay  # of the commands' connections, if the scenario wants one

    async def start(self, *arguments: str) -> anyio.abc.Process:
        """Start a command. Its stderr is appended to the file `stderr`."""
        with (self.folder / "stderr").open("ab") as stderr:
            return await anyio.open_process(
                self._command(arguments), env=self.environ, cwd=self.folder,
                stdin=DEVNULL, stdout=DEVNULL, stderr=stderr,
            )  # fmt: skip

    async def command_output(self, *arguments: str) -> bytes:
        """Run a command and return its stdout. Raises DrillError when it fails."""
        done = await anyio.run_process(
            self._command(arguments), env=self.environ, cwd=self.folder, check=False
        )
        if done.returncode:
            stderr = done.stderr.decode(errors="replace").strip()
            raise DrillError(f"`{arguments[0]}` ended with exit code {done.returncode}: {stderr}")
        return done.stdout

    async def command_error(self, *arguments: str, **environ: str) -> tuple[int, str]:
        """Run a command; return its exit code, and what it wrote to stderr."""
        done = await anyio.run_process(
            self._command(arguments), env={**self.environ, **environ}, cwd=self.folder, check=False
        )
        return done.returncode, " ".join(done.stderr.decode(errors="replace").split())

    async def status(self) -> dict[str, Any]:
        """Return the report of `status --json`."""
        return msgspec.json.decode(await self.command_output("status", "--json"))  # type: ignore[no-any-return]

    async def execute(self, statements: str) -> None:
        """Execute SQL statements in the shop's database."""
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute(statements)
        finally:
            await connection.close()

    async def fetch_value(self, query: str, *arguments: object) -> object:
        """Return the first value of the first row of a query on the shop's database."""
        connection = await asyncpg.connect(self.dsn)
        try:
            return await connection.fetchval(query, *arguments)
        finally:
            await connection.close()

    async def arrivals(self) -> int:
        """Return how many contacts, orders and events the account has."""
        state = await self.activecampaign.state()
        return int(state["contacts"] + state["orders"] + state["events"])

    async def wait_for_arrivals(self, arrivals: int) -> None:
        """Wait until the account has this many contacts, orders and events."""
        while await self.arrivals() < arrivals:  # noqa: ASYNC110  it happens in another process
            await anyio.sleep(POLL_EVERY_S)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of this event that commands logged."""
        lines = (self.folder / "stderr").read_bytes().splitlines()
        rows = [msgspec.json.decode(line) for line in lines if line.startswith(b"{")]
        return [row for row in rows if row["event"] == event]

    def last_error_line(self) -> str:
        """Return the last line that a command wrote to stderr."""
        lines = (self.folder / "stderr").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        config = self.folder / "kiva_stream.toml"  # an empty one, so that no other is read
        return [sys.executable, "-m", "kiva_stream", "--config", str(config), *arguments]


@asynccontextmanager
async def open_site(
    history: History,
    folder: Path,
    *,
    settings: Mapping[str, object],
    account: Mapping[str, object],
    relayed: bool,
) -> AsyncIterator[DrillSite]:
    """Yield a site with a copy of a history, and an account that is set up and has no limits.

    `settings` and the settings of the `account` replace the drill's. If `relayed`, commands reach the
    database by way of a relay. Raises DrillError when the set-up fails.
    """
    name = f"{history.database}_{uuid4().hex[:8]}"
    dsn = await history.server.create_database(name, template=history.database)
    (folder / name).mkdir()
    (folder / name / "kiva_stream.toml").touch()
    async with (
        Relay.to(dsn) as relay,
        local_activecampaign("--latency-ms", str(LATENCY_MS)) as activecampaign,
    ):
        await activecampaign.change(
            **{"requests_per_second": 0, "import_duration_s": 0, "order_delay_s": 0, **account}
        )
        site = DrillSite(
            history=history,
            dsn=dsn,
            activecampaign=activecampaign,
            folder=folder / name,
            environ=_environ(relay.dsn if relayed else dsn, activecampaign, settings),
            relay=relay,
        )
        await site.command_output("setup")
        yield site
    await history.server.drop_database(name)


def _environ(dsn: str, activecampaign: LocalActiveCampaign, settings: Mapping[str, object]) -> dict[str, str]:
    """Return the environment of a command, without any settings of the user's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KIVA_STREAM")}
    chosen = {**SETTINGS, **settings, "SOURCE__DSN": dsn, "STATE__DSN": dsn}
    return {
        **kept,
        **{f"KIVA_STREAM__{key}": str(value) for key, value in chosen.items()},
        **activecampaign.environ(),
    }
