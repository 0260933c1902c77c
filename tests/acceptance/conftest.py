"""A generated shop, a local ActiveCampaign, and the command line as a user has it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from anyio.from_thread import start_blocking_portal

from kiva_stream.sandbox.comparison import Comparison, compare
from kiva_stream.sandbox.generator import Generated, generate
from kiva_stream.sandbox.postgres import Server
from kiva_stream.sandbox.process import LocalActiveCampaign, local_activecampaign

ENTRIES = 6_000
SITE_ID = 1
PATIENCE_S = 60


class Commands(msgspec.Struct):
    """The command line with its settings: those of a shop and of an account."""

    folder: Path
    dsn: str
    activecampaign: LocalActiveCampaign
    environ: dict[str, str]

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """Start a command in an empty folder of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "kiva_stream", *arguments],
            env={**os.environ, **self.environ, **environ},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, code: int = 0, **environ: str) -> str:
        """Run a command to its end; return what it printed on stdout, or, where it failed, on stderr."""
        with self.start(*arguments, **environ) as process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == code, err
        return out if code == 0 else err

    def status(self) -> dict[str, Any]:
        """Return what `status --json` says."""
        return msgspec.json.decode(self.run("status", "--json"))  # type: ignore[no-any-return]


class Stage(Commands, kw_only=True):
    """A generated shop besides, and what a run may be judged by."""

    truth: Path
    generated: Generated
    site_id: int = SITE_ID

    async def compare(self) -> Comparison:
        """Compare what arrived with the truth."""
        events = [event async for event in self.activecampaign.rows("events")]
        contacts = [contact async for contact in self.activecampaign.rows("contacts")]
        orders = [order async for order in self.activecampaign.rows("orders")]
        return compare(self.truth, self.site_id, events, contacts, orders)

    def assert_equation(self) -> None:
        """Assert that every entry has its one outcome, and each outcome as often as the truth says."""
        equation = self.status()["equation"]
        counts = Counter({"delivered": equation["delivered"], "synced": equation["synced"]})
        for kind in ("skipped", "dead"):
            counts.update({f"{kind} {why}": count for why, count in equation[kind].items()})
        assert counts == Counter(self.generated.outcomes)
        assert (equation["entries_read"], equation["pending"]) == (self.generated.entries, 0)


@asynccontextmanager
async def staged(dsn: str, folder: Path) -> AsyncIterator[Stage]:
    """A shop of 6,000 entries, and an account that nobody has set up, its request limit out of the way."""
    truth = folder / "truth.sqlite"
    generated = await generate(dsn, ENTRIES, seed=7, truth=truth)
    async with local_activecampaign() as activecampaign:
        await activecampaign.change(requests_per_second=0, import_duration_s=0, order_delay_s=0)
        environ = {**activecampaign.environ(), **settings(dsn)}
        (empty := folder / "empty").mkdir()
        yield Stage(empty, dsn, activecampaign, environ, truth=truth, generated=generated)


@pytest.fixture
async def stage(database: str, tmp_path: Path) -> AsyncIterator[Stage]:
    """A stage of the test's own."""
    async with staged(database, tmp_path) as stage:
        yield stage


@pytest.fixture
def ready(stage: Stage) -> Stage:
    """The same, set up."""
    stage.run("setup")
    return stage


@pytest.fixture(scope="module")
def shared(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One that is set up, for all tests of a module that leave it as it is."""
    with start_blocking_portal() as portal:
        dsn = portal.call(postgres.create_database, "kiva_shared_stage")
        with portal.wrap_async_context_manager(staged(dsn, tmp_path_factory.mktemp("shared"))) as stage:
            stage.run("setup")
            yield stage
        portal.call(postgres.drop_database, "kiva_shared_stage")


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition holds."""
    with anyio.fail_after(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110  what is waited for happens in another process
            await anyio.sleep(0.01)


def heard(process: subprocess.Popen[str], words: str) -> None:
    """Wait until a process says these words on stderr."""
    assert process.stderr is not None
    assert any(words in line for line in process.stderr)


def settings(dsn: str, site_id: int = SITE_ID, **more: str) -> Mapping[str, str]:
    """Return settings as environment variables: unpaced, and quick to ask again."""
    chosen = {
        "SOURCE__DSN": dsn,
        "SOURCE__SITE_ID": str(site_id),
        "STATE__DSN": dsn,
        "ACTIVECAMPAIGN__REQUESTS_PER_SECOND": "1000",
        "ACTIVECAMPAIGN__EVENTS_PER_SECOND": "0",
        "ACTIVECAMPAIGN__IMPORT_POLL_S": "0.2",
        **more,
    }
    return {f"KIVA_STREAM__{key}": value for key, value in chosen.items()}
