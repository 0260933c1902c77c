"""A generated shop, a local ActiveCampaign, and the command line as a user runs it, a process a command."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import msgspec
from anyio.from_thread import BlockingPortal, start_blocking_portal

from kiva_stream.commands import backfill, setup, status
from kiva_stream.commands.backfill_report import BackfillRequest, Summary
from kiva_stream.model.bounds import Bound
from kiva_stream.observability.progress import Progress
from kiva_stream.primitives.processes import this_process
from kiva_stream.sandbox.activecampaign import Sandbox
from kiva_stream.sandbox.activecampaign.command import new_account
from kiva_stream.sandbox.comparison import Comparison, compare_arrived, counts_of
from kiva_stream.sandbox.drill import History
from kiva_stream.sandbox.generator import Generated
from kiva_stream.sandbox.process import Keys, LocalActiveCampaign
from kiva_stream.settings.loading import load
from kiva_stream.settings.sections import Settings
from tests.support.forked_commands import Ended, run_to_end

ENTRIES, SEED = 3_000, 7
SITE_ID = 1
PATIENCE_S = 60
HELD = 6  # the exit code
AT_ONCE: Mapping[str, Any] = {  # an account without limits that does what it accepts without a delay
    "requests_per_second": 0,
    "bulk_imports_per_minute": 0,
    "single_imports_per_minute": 0,
    "import_duration_s": 0,
    "order_delay_s": 0,
}


class Commands(msgspec.Struct):
    """The command line, with the settings of a shop and of an account."""

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
        """Run a command to its end; return its stdout, or its stderr if the expected exit `code` is not 0."""
        ended = self.ended(*arguments, **environ)
        assert ended.code == code, ended.err
        return ended.out if code == 0 else ended.err

    def ended(self, *arguments: str, **environ: str) -> Ended:
        """Run a command to its end; return what it left."""
        environ = {**os.environ, **self.environ, **environ}
        return run_to_end(arguments, environ=environ, folder=self.folder, within_s=120)

    def run_after_a_kill(self, *arguments: str) -> str:
        """Run a command to its end, at once where a lease tells that its process has ended, else after it."""
        ends_at = time.monotonic() + PATIENCE_S
        while this_process() is None and time.monotonic() < ends_at:
            with self.start(*arguments) as process:
                out, err = process.communicate(timeout=120)
            if process.returncode != HELD:
                assert process.returncode == 0, err
                return out
        return self.run(*arguments)

    async def set_up(self) -> None:
        """Do what `setup` does, in this process: to start another takes longer than the command."""
        await setup.set_up(self._settings())

    async def backfill(self, since: Bound | None = None) -> Summary:
        """Do what `backfill` does, in this process for the same reason: for a log of a few entries."""
        return await backfill.backfill(self._settings(), BackfillRequest(since), _ignore)

    def status(self) -> dict[str, Any]:
        """Return the report of `status --json`, computed in this process for the same reason."""
        with start_blocking_portal() as portal:
            report = portal.call(status.status, self._settings())
        return msgspec.json.decode(msgspec.json.encode(report))  # type: ignore[no-any-return]

    def _settings(self) -> Settings:
        return load(None, {**os.environ, **self.environ})


class Stage(Commands, kw_only=True):
    """The command line with a generated shop, and the truth that a run is compared with."""

    truth: Path
    generated: Generated
    site_id: int = SITE_ID

    async def compare(self) -> Comparison:
        """Compare with the truth what arrived at ActiveCampaign."""
        return await compare_arrived(self.truth, self.site_id, self.activecampaign)

    def assert_equation(self) -> None:
        """Assert that each outcome is counted as often as the truth says, and that no entry is pending."""
        equation = self.status()["equation"]
        assert counts_of(equation) == Counter(self.generated.outcomes)
        assert (equation["entries_read"], equation["pending"]) == (self.generated.entries, 0)


@asynccontextmanager
async def activecampaign_beside() -> AsyncIterator[LocalActiveCampaign]:
    """Serve a local ActiveCampaign from a thread, since a process takes as long to start as some tests take.

    The thread has an event loop of its own, so that it serves while a test waits for a command.
    """
    account = new_account()
    keys = Keys(account.name, account.api_token, account.event_actid, account.event_key)
    with start_blocking_portal(backend_options={"use_uvloop": sys.platform == "linux"}) as portal:
        serving = portal.call(Sandbox([account]).serve)
        with portal.wrap_async_context_manager(serving) as running:
            yield LocalActiveCampaign(running.api_url, running.event_url, [keys])


@asynccontextmanager
async def staged(history: History, folder: Path) -> AsyncIterator[Stage]:
    """Give a copy of a shop, and an account before `setup` that has no request limit."""
    name = f"kiva_stage_{uuid4().hex}"
    dsn = await history.server.create_database(name, template=history.database)
    async with activecampaign_beside() as activecampaign:
        await activecampaign.change(**AT_ONCE)
        environ = {**activecampaign.environ(), **settings(dsn)}
        (empty := folder / "empty").mkdir()
        yield Stage(empty, dsn, activecampaign, environ, truth=history.truth, generated=history.generated)
    await history.server.drop_database(name)


@contextmanager
def staged_for_many(history: History, folder: Path) -> Iterator[tuple[Stage, BlockingPortal]]:
    """Give a stage after `setup` to a module's fixture, with a portal, since it has no event loop."""
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())
        stage = stack.enter_context(portal.wrap_async_context_manager(staged(history, folder)))
        portal.call(stage.set_up)
        yield stage, portal


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return when a condition holds. Raises TimeoutError after PATIENCE_S."""
    with anyio.fail_after(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110  another process fulfils it
            await anyio.sleep(0.01)


def _ignore(_progress: Progress) -> None:
    """Watch no progress."""


def wait_for_stderr(process: subprocess.Popen[str], words: str) -> None:
    """Return when a process has printed these words on stderr; fail if it ends before."""
    assert process.stderr is not None
    assert any(words in line for line in process.stderr)


def settings(dsn: str, site_id: int = SITE_ID, **more: str) -> Mapping[str, str]:
    """Return settings as environment variables: without a pace, and with short waits before a retry."""
    chosen = {
        "SOURCE__DSN": dsn,
        "SOURCE__SITE_ID": str(site_id),
        "STATE__DSN": dsn,
        "ACTIVECAMPAIGN__REQUESTS_PER_SECOND": "1000",
        "ACTIVECAMPAIGN__BULK_IMPORTS_PER_MINUTE": "60000",
        "ACTIVECAMPAIGN__EVENTS_PER_SECOND": "0",
        "ACTIVECAMPAIGN__IMPORT_POLL_S": "0.2",
        "ACTIVECAMPAIGN__LOOKUP_SETTLE_S": "0.3",
        **more,
    }
    return {f"KIVA_STREAM__{key}": value for key, value in chosen.items()}
