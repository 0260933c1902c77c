"""R8: what kiva_stream costs the shop's database, in a backfill and while it follows 60 entries a second.

The shop has a server of its own; the state and the foreground are other databases of it. kiva_stream's
sessions are looked at every 20 ms. The foreground is pgbench, the writer of entries beside it all the time,
`follow` at work or stopped (SIGSTOP) by turns. It is reported only: on a machine of few cores it shows what
the processes of kiva_stream and of the sandbox take, more than what the database does for them.

The gate on what an entry costs is on the processor time of the server's processes for kiva_stream, ÷ that
of the calibration just before and after. What pg_stat_statements says is time by the clock, planning
included: 14 to 33 µs in runs beside other work, where processor time was 11 to 14.

Seen to fail: sessions (4) with source.max_connections = 10, and (0) where those of another name are looked
at, with which nothing would be seen of the rest; the transaction (13 s) with 130,000 entries in one range,
a row a fetch: source.page_rows = 1, range_rows = 1000000, range_max_s = 60; an entry's cost (23) with
source.customer_cache_rows = 1 and page_rows = 20; scans (6 and 16) without the index system_log_commit, and
(1) by the count with which a backfill begins, of a log that was never vacuumed, before it was made to go
along an index; the rows (5,490) with a pace a fifth too quick. That they are fewer is the machine's: 4,479
on one that was ten times as busy as it has cores.
"""

from __future__ import annotations

import math
import signal
import time
from statistics import mean
from typing import NamedTuple

import anyio
import msgspec

from benchmarks import ratios
from benchmarks.accounts import ready
from benchmarks.bench import Bench
from benchmarks.calibration import Calibration
from benchmarks.figures import Figure
from benchmarks.following import LOOK_EVERY_S, SETTINGS
from benchmarks.foreground import Arms, Foreground
from benchmarks.shop_server import ShopServer, shop_server
from benchmarks.source_sessions import Sessions, watched
from benchmarks.writer import writing
from kiva_stream.model.positions import DAY1
from kiva_stream.runtime.shop import open_shop
from kiva_stream.sandbox.process import LocalActiveCampaign

ENTRIES = 20_000
MOST_S = 5
SERVER, MOST_OF_COMMITTED = "server", 1.25
PIECES = 40
MOST_SESSIONS = 3
ROWS_PER_S = 5_000
ARM_S, FULL_ARM_S = 3, 10
PATIENCE_S = 60
NO_LIMITS = {
    "KIVA_STREAM__ACTIVECAMPAIGN__REQUESTS_PER_SECOND": "200",
    "KIVA_STREAM__ACTIVECAMPAIGN__IMPORT_POLL_S": "0.1",
}


class Shop(NamedTuple):
    """A shop with a history, and how kiva_stream is run on it."""

    bench: Bench  # of the shop's own server
    server: ShopServer
    dsn: str
    reader_dsn: str
    arm_s: float
    repetitions: int


class Load(NamedTuple):
    """What a command of kiva_stream did to the shop."""

    sessions: Sessions
    scans: int  # of the whole log
    statements_s: float | None = None
    piece_cpu_s: float = math.nan  # of the calibration, just before and after


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    with shop_server() as server:
        folder = bench.folder / "shop"
        folder.mkdir()
        own = Bench(server.server, folder, is_full=bench.is_full)
        history = await own.history(entries or ENTRIES, "load")
        reader_dsn = await server.add_reader(history.dsn)
        arm_s = FULL_ARM_S if bench.is_full else ARM_S
        shop = Shop(own, server, history.dsn, reader_dsn, arm_s, bench.repetitions)
        paced = Figure(
            f"R8: rows/s read with max_rows_per_s = {ROWS_PER_S:,}",
            [await _rows_per_s(shop)],
            most=ROWS_PER_S,
        )
        more, state_dsn = SETTINGS, await server.server.create_database("state")
        if not bench.is_full:
            more = {**more, **NO_LIMITS}
        async with ready(own, reader_dsn, state_dsn=state_dsn, more=more) as (environ, activecampaign):
            if not bench.is_full:
                await activecampaign.change(requests_per_second=0, import_duration_s=0.1)
            backfill = await _backfilled(shop, environ)
            following, arms = await _followed(shop, environ, activecampaign)
    return [*_load_figures(backfill, following, history.entries), *_foreground_figures(arms), paced]


async def _rows_per_s(shop: Shop) -> float:
    """Return how many rows a second the whole log is read at, each page until the next one comes."""
    settings = shop.bench.settings(shop.reader_dsn)
    source = msgspec.structs.replace(settings.source, max_rows_per_s=ROWS_PER_S)
    async with open_shop(msgspec.structs.replace(settings, source=source)) as opened:
        mark = await opened.horizon.high_water_mark()
        rows, per_s, began_at = 0, 0.0, time.monotonic()
        async for page in opened.log.pages(DAY1, mark):
            per_s = rows / (time.monotonic() - began_at)
            rows += len(page)
        return per_s


async def _backfilled(shop: Shop, environ: dict[str, str]) -> Load:
    """Run a backfill."""
    before = await shop.server.scans(shop.dsn)
    await shop.server.count_anew()
    calibration = Calibration()
    pieces_s = [await calibration.mean_cpu_s(PIECES)]
    async with watched(shop.server.server.dsn()) as sessions:
        await shop.bench.backfill(environ)
    pieces_s.append(await calibration.mean_cpu_s(PIECES))
    scans = await shop.server.scans(shop.dsn) - before
    return Load(sessions, scans, await shop.server.statements_s(), mean(pieces_s))


async def _followed(
    shop: Shop, environ: dict[str, str], activecampaign: LocalActiveCampaign
) -> tuple[Load, Arms | None]:
    """Follow the shop while it is written to, with the foreground by turns where there is one."""
    foreground = await Foreground.create(shop.server.server, shop.bench.folder)
    before, delivered = await shop.server.scans(shop.dsn), (await activecampaign.state())["events"]
    async with (
        watched(shop.server.server.dsn()) as sessions,
        writing(shop.dsn) as writer,
        shop.bench.follow(environ) as process,
    ):

        async def follow() -> None:
            """Let it work; return when more is delivered than was written until now."""
            process.send_signal(signal.SIGCONT)
            wanted = delivered + writer.written + 1
            with anyio.fail_after(PATIENCE_S):
                while (await activecampaign.state())["events"] < wanted:  # noqa: ASYNC110  it is remote
                    await anyio.sleep(LOOK_EVERY_S)

        async def stop() -> None:
            """Stop it where it has no transaction open, which would be open all the time."""
            process.send_signal(signal.SIGSTOP)
            while not await shop.server.is_left_alone():
                process.send_signal(signal.SIGCONT)
                await anyio.sleep(LOOK_EVERY_S)
                process.send_signal(signal.SIGSTOP)

        await follow()
        try:
            arms = None
            if foreground is not None:
                arms = await foreground.by_turns(
                    follow, stop, seconds=shop.arm_s, repetitions=shop.repetitions
                )
        finally:
            process.send_signal(signal.SIGCONT)  # or it could not end
    return Load(sessions, await shop.server.scans(shop.dsn) - before), arms


def _load_figures(backfill: Load, following: Load, entries: int) -> list[Figure]:
    found = [
        Figure(f"R8: {what}, {when}", [value], least=least, most=most)
        for when, load in (("backfill", backfill), ("following", following))
        for what, value, least, most in (
            ("longest transaction at the shop in s", load.sessions.longest_s, None, MOST_S),
            ("most sessions at the shop at once", load.sessions.most, 1, MOST_SESSIONS),
            ("scans of the whole log", load.scans, None, 0),
        )
    ]
    cpu_us = backfill.sessions.cpu_s / entries * 1e6
    ratio = backfill.sessions.cpu_s / backfill.piece_cpu_s / entries * 1_000
    found.append(
        ratios.figure(SERVER, "R8: server CPU / calibration", [ratio], most_of_committed=MOST_OF_COMMITTED)
    )
    found.append(Figure("R8: server CPU µs per entry", [cpu_us]))
    if backfill.statements_s is not None:
        found.append(
            Figure("R8: server µs per entry, by pg_stat_statements", [backfill.statements_s / entries * 1e6])
        )
    return found


def _foreground_figures(arms: Arms | None) -> list[Figure]:
    if arms is None:
        return []
    ratios = [beside / alone for beside, alone in zip(*arms, strict=True)]
    return [
        Figure("R8: foreground p95, with follow / without", ratios),
        Figure("R8: foreground p95 in ms, with follow", arms.beside),
        Figure("R8: foreground p95 in ms, without", arms.alone),
    ]
