"""The bench: a PostgreSQL with generated histories, and the main job run and measured on them."""

from __future__ import annotations

import os
import re
import sqlite3
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from datetime import datetime
from itertools import count, pairwise
from pathlib import Path
from statistics import mean
from subprocess import DEVNULL
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import anyio
import asyncpg
import msgspec
from anyio.abc import Process

from benchmarks.carried import Carried
from benchmarks.command import Measured, measured
from benchmarks.figures import Plot
from kiva_stream.commands import setup
from kiva_stream.sandbox.comparison import Comparison, compare_arrived
from kiva_stream.sandbox.generator import generate
from kiva_stream.sandbox.postgres import Server, embedded_postgres
from kiva_stream.sandbox.process import Keys, LocalActiveCampaign, local_activecampaign
from kiva_stream.settings import loading
from kiva_stream.settings.sections import Settings

T = TypeVar("T")

SEED = 1
SITE_ID = 1
SHORT = 2_500  # entries, where the customers matter more than the log
HALF_OF_THE_EVENTS = 0.25  # of the entries: about half of them become events
HOUR_S = 3600
KILLED_LATENCY_MS = 5
HELD = 6  # exit code of a backfill whose site another process still holds
REAL_LIMIT = 5  # requests a second
SETUP_LIMIT = 200  # what set-up may use: it is not measured
NOWHERE = LocalActiveCampaign(
    "http://127.0.0.1:9", "http://127.0.0.1:9", [Keys("nowhere", "token", "1", "key")]
)
NO_MORE: Mapping[str, str] = MappingProxyType({})
PY_SPY = [
    *(str(Path(sys.executable).with_name("py-spy")), "record", "--nonblocking", "--rate", "500"),
    *("--format", "speedscope", "--full-filenames"),
]
_schemas = (f"state_{number}" for number in count())
_CUSTOMERS = """
INSERT INTO kiva.customers (id, site_id, email, first_name, last_name, created_at, updated_at)
SELECT 8000000 + n, 1, 'crowd' || n || '@example.com', 'Ann', 'Lee', now(), now()
FROM generate_series(1, $1) AS n;
INSERT INTO kiva.orders (id, site_id, customer_id, week_start, delivery_date, status, payment_status,
                         subtotal_cents, total_cents, created_at, paid_at, updated_at)
SELECT id, site_id, id, current_date, current_date, 'complete', 'completed', 3800, 3800, now(), now(), now()
FROM kiva.customers WHERE id > 8000000;
INSERT INTO kiva.order_items (order_id, name, category, qty, unit_price_cents)
SELECT id, 'Carrots', 'menu', 1, 0 FROM kiva.customers WHERE id > 8000000;
"""
_LOGOUTS = """
INSERT INTO kiva.system_log
    (site_id, occurred_at, inserted_at, category, action, actor_type, message, customer_id)
SELECT site_id, ago, ago, 'customer', 'logout', 'customer', 'Logged out', id
FROM generate_series(1, $1) AS turn, kiva.customers, (SELECT now() - interval '1 day' AS ago) AS stamps
WHERE id > 8000000
ORDER BY turn, id
"""
_DONE = re.compile(r"entries in .+: ([\d,]+) an hour")


class History(NamedTuple):
    """A generated shop: its database, and what must become of its log."""

    dsn: str
    truth: Path
    entries: int


class Job(NamedTuple):
    """A backfill that ran as a user runs it, and what arrived."""

    entries: int
    measured: Measured
    said_per_hour: float  # entries, as its own summary says
    comparison: Comparison
    requests: Counter[str]  # by operation, at the receiver
    breaches: int
    most_events_in_a_second: int  # any sliding second, at the receiver

    @property
    def per_hour(self) -> float:
        """Entries an hour, from the start of the command to its end."""
        return self.entries / self.measured.seconds * HOUR_S

    @property
    def cpu_us_per_entry(self) -> float:
        """Processor time of the backfill's process, in µs an entry."""
        return self.measured.cpu_s / self.entries * 1e6

    @property
    def peak_mb(self) -> float:
        """Most memory of the backfill's process, in units of 1,000,000 bytes."""
        return self.measured.peak_bytes / 1e6

    @property
    def differences(self) -> int:
        """What of the ground truth did not arrive as it should, or should not have arrived."""
        found: dict[str, int] = msgspec.structs.asdict(self.comparison)
        counts = ("expected", "arrived", "contacts", "orders_expected", "orders_arrived")
        return sum(count for name, count in found.items() if name not in counts)


class Year(NamedTuple):
    """A backfill that was planned before, and run again after."""

    job: Job
    planned_hours: float
    phases: dict[str, float]  # seconds of each
    state: dict[str, Any]  # of the account, at the end
    changing_again: int  # requests of the second backfill that could change something


class Crowd(NamedTuple):
    """What a backfill of many contacts asked for, and what there was at its end."""

    contacts: int
    orders: int
    requests: Counter[str]  # by operation, at the receiver
    breaches: int


class Killed(NamedTuple):
    """What a backfill left that was killed and run again."""

    events_when_killed: int
    comparison: Comparison
    breaches: int


class Bench:
    """What the benchmarks share. Histories and unpaced jobs are made once, when first asked for.

    A full one measures more often, and larger histories; `plots` are those that were made of it.
    """

    def __init__(self, server: Server, folder: Path, *, is_full: bool = False) -> None:
        self.folder = folder
        self.is_full = is_full
        self.plots: list[Plot] = []
        self._server = server
        self._histories: dict[str, History] = {}
        self._making = anyio.Lock()
        self._unpaced: dict[int, Job] = {}
        self._config = folder / "kiva_stream.toml"  # empty: the machine's own is not read
        self._config.touch()
        self._command = [sys.executable, "-m", "kiva_stream", "--config", str(self._config)]
        self._backfill = [*self._command, "backfill", "--since", "day1"]

    @classmethod
    @asynccontextmanager
    async def open(cls, *, is_full: bool = False) -> AsyncIterator[Bench]:
        """Start the PostgreSQL; it and all that is written go with the block."""
        with embedded_postgres() as server, TemporaryDirectory() as folder:
            yield cls(server, Path(folder), is_full=is_full)

    def command(self, *arguments: str) -> list[str]:
        """Return a command of kiva_stream; what it works on stands in its environment."""
        return [*self._command, *arguments]

    @property
    def repetitions(self) -> int:
        """How often what is compared is measured."""
        return 5 if self.is_full else 3

    async def history(self, entries: int, kind: str = "shop", *, only: str | None = None) -> History:
        """Return a history of that many entries, dirt included. One of another kind is another database.

        `only` keeps the entries of one outcome in the log; the truth still tells of all.
        """
        name = "_".join(filter(None, (kind, only, str(entries))))
        async with self._making:  # two may ask for the same side by side
            if name not in self._histories:
                self._histories[name] = await self._made(name, entries, only)
        return self._histories[name]

    async def _made(self, name: str, entries: int, only: str | None) -> History:
        dsn = await self._server.create_database(name)
        truth = self.folder / f"{name}.truth"
        await generate(dsn, entries, SEED, truth=truth)
        return History(dsn, truth, entries if only is None else await _keep(dsn, truth, only))

    def settings(self, dsn: str, activecampaign: LocalActiveCampaign = NOWHERE) -> Settings:
        """Return settings that carry a history to an account, its events unpaced, into a new state."""
        return loading.load(self._config, _environ(dsn, activecampaign, next(_schemas), 0))

    async def carried(
        self, history: History, account: LocalActiveCampaign | None = None, **more: int
    ) -> Carried:
        """Carry a history in a process of its own, on one core: to an account, else to an instant sink.

        `more` are settings of section activecampaign.
        """
        return await self._carried([], history, account, **more)

    async def profiled(
        self, history: History, account: LocalActiveCampaign | None = None
    ) -> tuple[Carried, Path]:
        """Carry a history like this under py-spy; return also the file of what that saw, for speedscope."""
        path = self.folder / f"profile_{next(_schemas)}.json"
        return await self._carried([*PY_SPY, "--output", str(path), "--"], history, account), path

    async def _carried(
        self, within: list[str], history: History, account: LocalActiveCampaign | None, **more: int
    ) -> Carried:
        environ = _environ(history.dsn, account or NOWHERE, next(_schemas), 0)
        environ |= {f"KIVA_STREAM__ACTIVECAMPAIGN__{key.upper()}": str(value) for key, value in more.items()}
        sink = "http" if account else "instant"
        command = [*within, sys.executable, "-m", "benchmarks.carried", str(self._config), sink]
        said = await anyio.run_process(command, env=environ, stderr=None)
        lines = said.stdout.splitlines()
        return msgspec.json.decode(next(line for line in lines if line.startswith(b"{")), type=Carried)

    async def unpaced(self, entries: int) -> Job:
        """Return the main job as fast as it goes: no latency, events unpaced, the limits as always."""
        if entries not in self._unpaced:
            self._unpaced[entries] = await self.job(entries, latency_ms=0, events_per_second=0)
        return self._unpaced[entries]

    async def job(self, entries: int, *, latency_ms: float, events_per_second: int) -> Job:
        """Run and measure `backfill --since day1` on a history, in an account that was set up before."""
        history = await self.history(entries)
        async with self.ready(history.dsn, latency_ms=latency_ms, events_per_second=events_per_second) as (
            environ,
            activecampaign,
        ):
            before = await activecampaign.state()
            return await _arrived(history, await self.backfill(environ), activecampaign, before)

    async def year(self, entries: int, *, latency_ms: float) -> Year:
        """Plan a backfill, run it at the documented limits, its events unpaced, and run it again."""
        history = await self.history(entries, "year")
        async with self.ready(history.dsn, latency_ms=latency_ms) as (environ, activecampaign):
            before = await activecampaign.state()
            plan = await self._said(["plan", "--since", "day1", "--json"], environ)
            run = await self.backfill(environ)
            job = await _arrived(history, run, activecampaign, before)
            state = await activecampaign.state()
            await self._said(["backfill"], environ)
            changing = (await activecampaign.state())["changing_requests"] - state["changing_requests"]
            return Year(job, msgspec.json.decode(plan)["hours"], phases(run.output), state, changing)

    @asynccontextmanager
    async def following(
        self, entries: int, schema: str, more: Mapping[str, str]
    ) -> AsyncIterator[tuple[str, LocalActiveCampaign]]:
        """Carry a history, then follow its shop with these settings; give the shop's DSN and the account."""
        history = await self.history(entries, "following")
        async with self.ready(history.dsn, schema=schema, more=more) as (environ, activecampaign):
            await self.backfill(environ)
            async with self.follow(environ):
                yield history.dsn, activecampaign

    @asynccontextmanager
    async def ready(
        self,
        dsn: str,
        *,
        state_dsn: str | None = None,
        schema: str | None = None,
        more: Mapping[str, str] = NO_MORE,
        latency_ms: float = 0,
        events_per_second: int = 0,
    ) -> AsyncIterator[tuple[dict[str, str], LocalActiveCampaign]]:
        """Set a new state and an account up; give the environment of commands for them, and the account.

        The state is the shop's database unless another is named; `more` are further settings.
        """
        async with local_activecampaign("--latency-ms", str(latency_ms)) as activecampaign:
            environ = _environ(dsn, activecampaign, schema or next(_schemas), events_per_second)
            environ = {**more, **environ, "KIVA_STREAM__STATE__DSN": state_dsn or dsn}
            await _set_up(loading.load(self._config, environ), activecampaign)
            yield environ, activecampaign

    async def backfill(self, environ: dict[str, str]) -> Measured:
        """Run a backfill to its end, and measure it."""
        return await anyio.to_thread.run_sync(measured, self._backfill, self.folder, environ)

    @asynccontextmanager
    async def follow(self, environ: dict[str, str]) -> AsyncIterator[Process]:
        """Have a process follow the log in this block."""
        process = await anyio.open_process(
            [*self._command, "follow"], cwd=self.folder, env=environ, stdout=DEVNULL, stderr=DEVNULL
        )
        try:
            yield process
        finally:
            process.terminate()
            await process.wait()

    async def crowd(self, customers: int) -> Crowd:
        """Carry a short history of a shop with so many customers more, each of them with an order."""
        history = await self.history(SHORT, "crowd")
        await _add_customers(history.dsn, customers)
        async with self.ready(history.dsn) as (environ, activecampaign):
            before = await activecampaign.state()
            await self.backfill(environ)
            state = await activecampaign.state()
            requests = Counter(state["requests"]) - Counter(before["requests"])
            return Crowd(state["contacts"], state["orders"], requests, sum(state["breaches"].values()))

    async def by_turns(self, customers: int, times: int) -> History:
        """Return a history in whose log so many customers come by turns, so often; each is an event."""
        history = await self.history(SHORT, "turns")
        await _add_customers(history.dsn, customers)
        await _execute(history.dsn, _LOGOUTS.replace("$1", str(times)))
        return history._replace(entries=SHORT + customers * times)

    async def killed(self, entries: int) -> Killed:
        """Kill a backfill when half of its events are there, run it again, and return what arrived.

        The lease is short, so that who was killed is followed soon.
        """
        history = await self.history(entries)
        more = {"KIVA_STREAM__STATE__LEASE_S": "2"}
        async with self.ready(history.dsn, more=more, latency_ms=KILLED_LATENCY_MS) as (
            environ,
            activecampaign,
        ):
            child = await anyio.open_process(
                self._backfill, cwd=self.folder, env=environ, stdout=DEVNULL, stderr=DEVNULL
            )
            events = 0
            while events < entries * HALF_OF_THE_EVENTS:
                if child.returncode is not None:
                    raise ValueError("the backfill ended before it could be killed")
                await anyio.sleep(0.1)
                events = (await activecampaign.state())["events"]
            child.kill()
            await child.wait()
            await self._backfilled_when_free(environ)
            state = await activecampaign.state()
            comparison = await compare_arrived(history.truth, SITE_ID, activecampaign)
            return Killed(events, comparison, sum(state["breaches"].values()))

    async def _backfilled_when_free(self, environ: dict[str, str]) -> None:
        """Run a backfill to its end, as soon as nobody holds the site."""
        while True:
            run = await anyio.run_process(self._backfill, cwd=self.folder, env=environ, check=False)
            if run.returncode != HELD:
                run.check_returncode()
                return
            await anyio.sleep(0.1)

    @asynccontextmanager
    async def unlimited(
        self, history: History, schema: str, *options: str
    ) -> AsyncIterator[tuple[dict[str, str], LocalActiveCampaign]]:
        """Give an account that is set up, and the environment of who carries a history to it.

        The limit of 5 requests a second is lifted at both ends, and events are unpaced.
        """
        async with local_activecampaign(*options) as activecampaign:
            environ = {
                **_environ(history.dsn, activecampaign, schema, 0),
                "KIVA_STREAM_CONFIG": str(self._config),
                "KIVA_STREAM__ACTIVECAMPAIGN__REQUESTS_PER_SECOND": str(SETUP_LIMIT),
            }
            await _set_up(loading.load(self._config, environ), activecampaign)
            await activecampaign.change(requests_per_second=0)
            yield environ, activecampaign

    async def _said(self, arguments: list[str], environ: dict[str, str]) -> bytes:
        """Run another command to its end; return what it said on stdout."""
        command = [*self._command, *arguments]
        return (await anyio.run_process(command, cwd=self.folder, env=environ, stderr=None)).stdout


async def _add_customers(dsn: str, count: int) -> None:
    await _execute(dsn, _CUSTOMERS.replace("$1", str(count)))


async def _execute(dsn: str, statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


def _environ(
    dsn: str, activecampaign: LocalActiveCampaign, schema: str, events_per_second: int
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


async def _set_up(loaded: Settings, activecampaign: LocalActiveCampaign) -> None:
    """Run `setup` with the limit lifted at both ends."""
    hurried = msgspec.structs.replace(loaded.activecampaign, requests_per_second=SETUP_LIMIT)
    await activecampaign.change(requests_per_second=0)
    await setup.set_up(msgspec.structs.replace(loaded, activecampaign=hurried))
    await activecampaign.change(requests_per_second=REAL_LIMIT)


async def _arrived(
    history: History, run: Measured, activecampaign: LocalActiveCampaign, before: Mapping[str, Any]
) -> Job:
    state = await activecampaign.state()
    events = [event async for event in activecampaign.rows("events")]
    said = _DONE.search(run.output)
    if said is None:
        raise ValueError(f"the backfill did not say how fast it was: {run.output}")
    return Job(
        entries=history.entries,
        measured=run,
        said_per_hour=float(said[1].replace(",", "")),
        comparison=await compare_arrived(history.truth, SITE_ID, activecampaign),
        requests=Counter(state["requests"]) - Counter(before["requests"]),
        breaches=sum(state["breaches"].values()),
        most_events_in_a_second=most_in_a_second(event["received_at"] for event in events),
    )


async def _keep(dsn: str, truth: Path, outcome: str) -> int:
    """Remove the entries that have another outcome from the log; return how many are left."""
    query = "SELECT log_id FROM entry WHERE site_id = ? AND outcome = ?"
    with closing(sqlite3.connect(truth)) as database:
        ids = [log_id for (log_id,) in database.execute(query, (SITE_ID, outcome))]
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("DELETE FROM kiva.system_log WHERE id <> ALL($1::bigint[])", ids)
        await connection.execute("VACUUM ANALYZE kiva.system_log")
    finally:
        await connection.close()
    return len(ids)


async def interleaved(arms: Mapping[str, Callable[[], Awaitable[T]]], repetitions: int) -> dict[str, list[T]]:
    """Run each arm in turn, so often; return what each found. What the machine does meanwhile meets all."""
    found: dict[str, list[T]] = {name: [] for name in arms}
    for _ in range(repetitions):
        for name, arm in arms.items():
            found[name].append(await arm())
    return found


def against(runs: Sequence[T], others: Sequence[T], value: Callable[[T], float]) -> list[float]:
    """Return the value of each run ÷ the mean of those of the other arm before and after it.

    A machine's speed drifts: the other arm has run once more, at the end.
    """
    return [value(run) / mean(map(value, around)) for run, around in zip(runs, pairwise(others), strict=True)]


def phases(output: str) -> dict[str, float]:
    """Return the seconds of each phase of a backfill, by its progress lines; a short one may be missed."""
    began: dict[str, datetime] = {}
    for line in output.splitlines():
        if line.startswith("{") and '"event": "progress"' in line:
            progress = msgspec.json.decode(line)
            began.setdefault(progress["phase"], datetime.fromisoformat(progress["timestamp"]))
    moments = list(began.items())
    return {
        phase: (ended_at - began_at).total_seconds() for (phase, began_at), (_, ended_at) in pairwise(moments)
    }


def most_in_a_second(moments: Iterable[float]) -> int:
    """Return the most of these ascending moments, in seconds, that any sliding second holds."""
    window: deque[float] = deque()
    most = 0
    for moment in moments:
        window.append(moment)
        while window[0] <= moment - 1:
            window.popleft()
        most = max(most, len(window))
    return most
