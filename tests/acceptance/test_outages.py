"""Outages: the key refused, ActiveCampaign down for a while; the process stays, and nothing is lost."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import msgspec

from kiva_stream.sandbox.process import LocalActiveCampaign
from tests.acceptance.live_shop import FOLLOW, LiveShop, arrived, email, following, live_shop
from tests.acceptance.stages import PATIENCE_S, Commands, Stage, until
from tests.support.postgres import connected

RETRY_S = "KIVA_STREAM__ACTIVECAMPAIGN__RETRY_REFUSED_S"
WATCHED_S = 3.0
MEMORY_BYTES = 16 * 2**20  # by so much more at most, however long an outage
QUICK = {
    "KIVA_STREAM__ACTIVECAMPAIGN__BACKOFF_MAX_S": "0.5",
    "KIVA_STREAM__ACTIVECAMPAIGN__LOOKUP_SETTLE_S": "0.1",
}
PROBES = 60  # of a host in WATCHED_S; without a breaker they would be thousands


async def status_with(shop: Commands, *kinds: str) -> dict[str, Any]:
    """Wait until `status` shows just these kinds of trouble; return what it says."""
    found: dict[str, Any] = {}

    def look() -> bool:
        with shop.start("status", "--json") as process:
            said, _ = process.communicate(timeout=PATIENCE_S)
        found.update(msgspec.json.decode(said) if said else {"troubles": None})  # before the checkpoint
        return found["troubles"] is not None and [each["kind"] for each in found["troubles"]] == [*kinds]

    async def is_shown() -> bool:
        return await anyio.to_thread.run_sync(look)

    await until(is_shown)
    return found


async def write(shop: LiveShop, count: int) -> None:
    async with connected(shop.dsn) as writer:
        for _ in range(count):
            await shop.write(writer, 1)


async def test_a_refused_key_pauses_follow_and_when_it_works_again_so_does_follow(
    database: str, tmp_path: Path
) -> None:
    async with live_shop(database, tmp_path, 2) as shop, following(shop, **{RETRY_S: "0.5"}):
        await write(shop, 1)
        await arrived(shop, 1)
        refused_at = datetime.now(UTC)
        await shop.activecampaign.fail("*:403:1")
        await write(shop, 20)
        shown = await status_with(shop, "key")
        assert shown["equation"]["dead"] == {}
        assert shown["equation"]["delivered"] == 1
        [key] = shown["troubles"]
        assert refused_at < datetime.fromisoformat(key["since"]) < datetime.now(UTC)
        assert "403" in key["why"]
        await shop.activecampaign.fail()
        await arrived(shop, 21)
        await status_with(shop)
        received = await shop.received()
        assert received[email(1)] == sorted(set(received[email(1)]))


async def test_a_wrong_event_key_is_waited_out_and_a_sigterm_ends_the_wait_at_once(
    database: str, tmp_path: Path
) -> None:
    wrong = {"KIVA_STREAM__ACTIVECAMPAIGN__EVENT_KEY": "wrong"}
    async with live_shop(database, tmp_path, 1) as shop:
        await write(shop, 3)
        with shop.start(*FOLLOW, **wrong) as process:
            try:
                await status_with(shop, "key")
            finally:
                process.terminate()
            began = time.monotonic()
            _, said = await anyio.to_thread.run_sync(lambda: process.communicate(timeout=PATIENCE_S))
        assert (process.returncode, "Traceback" in said) == (0, False), said
        assert time.monotonic() - began < 5
        status = await status_with(shop)
        assert (status["equation"]["delivered"], status["equation"]["dead"]) == (0, {})
        async with following(shop, **QUICK):
            await arrived(shop, 3)


class Line:
    """The way to ActiveCampaign: it can be cut, then connections end and are refused."""

    def __init__(self, activecampaign: LocalActiveCampaign) -> None:
        self._there = urlsplit(activecampaign.api_url)
        self._port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing: set[asyncio.Future[tuple[None, None]]] = set()
        self._server: asyncio.Server
        self._event_path = urlsplit(activecampaign.event_url).path

    @classmethod
    @asynccontextmanager
    async def to(cls, activecampaign: LocalActiveCampaign) -> AsyncIterator[Line]:
        """Give a line that is whole."""
        line = cls(activecampaign)
        await line.mend()
        try:
            yield line
        finally:
            await line.cut()

    async def mend(self) -> None:
        """Let connections through, always at the same port."""
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Break every connection, and refuse new ones."""
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._passing)

    def environ(self) -> dict[str, str]:
        """Return the settings that lead this way."""
        url = f"http://127.0.0.1:{self._port}"
        return {
            "KIVA_STREAM__ACTIVECAMPAIGN__API_URL": url,
            "KIVA_STREAM__ACTIVECAMPAIGN__EVENT_URL": url + self._event_path,
        }

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        there, back = await asyncio.open_connection(self._there.hostname, self._there.port)
        self._writers.add(back)
        passing = asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        self._passing.add(passing)
        await passing

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(2**16):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


@asynccontextmanager
async def backfilling(stage: Stage, **environ: str) -> AsyncIterator[subprocess.Popen[str]]:
    """Run a backfill; it has to end as it should."""
    with stage.start("backfill", "--since", "day1", "--yes", **QUICK, **environ) as process:
        try:
            yield process
            _, said = await anyio.to_thread.run_sync(lambda: process.communicate(timeout=PATIENCE_S))
        finally:
            process.kill()
        assert process.returncode == 0, said


def memory_bytes(process: subprocess.Popen[str]) -> int:
    """Return what a process holds in memory."""
    status = Path(f"/proc/{process.pid}/status").read_text("ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


async def faults_drawn(stage: Stage) -> int:
    return sum((await stage.activecampaign.state())["faults"].values())


async def assert_it_only_probes(stage: Stage, process: subprocess.Popen[str]) -> None:
    """Watch an outage for a while: few requests, no more memory, and nothing dies."""
    first = await status_with(stage, "activecampaign")
    drawn, held_bytes = await faults_drawn(stage), memory_bytes(process)
    await anyio.sleep(WATCHED_S)
    assert await faults_drawn(stage) - drawn <= PROBES
    assert memory_bytes(process) - held_bytes < MEMORY_BYTES
    last = await status_with(stage, "activecampaign")
    assert last["troubles"][0]["since"] == first["troubles"][0]["since"]
    for what in ("delivered", "dead"):
        assert last["equation"][what] == first["equation"][what]


async def test_a_backfill_outlasts_activecampaign_being_down_by_few_probes_and_loses_nothing(
    ready: Stage,
) -> None:
    before = 100

    async def events_came() -> bool:
        return bool((await ready.activecampaign.state())["events"] > before)

    async with (
        Line.to(ready.activecampaign) as line,
        backfilling(ready, **line.environ(), KIVA_STREAM__ACTIVECAMPAIGN__EVENTS_PER_SECOND="100") as run,
    ):
        await until(events_came)
        await ready.activecampaign.fail("/event:500-before:1", "*:html-503:1")
        await assert_it_only_probes(ready, run)
        before = (await ready.activecampaign.state())["events"] + 100
        await ready.activecampaign.fail()
        await until(events_came)
        await status_with(ready)  # the first outage is over there too, or it is taken for the second
        await line.cut()
        await assert_it_only_probes(ready, run)
        await line.mend()
    assert (await ready.compare()).is_exact
    ready.assert_equation()
