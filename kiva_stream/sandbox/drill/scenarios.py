"""The scenarios: each disturbs a run in one way."""

from __future__ import annotations

import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import anyio

from kiva_stream.sandbox.activecampaign.faults import FaultKind
from kiva_stream.sandbox.drill.run import REFUSED, RESTARTED_CODES, TERMINATED, Run
from kiva_stream.sandbox.drill.site import LOOKUP_SETTLE_S, MAX_IN_FLIGHT
from kiva_stream.sandbox.postgres import OwnServer

SHARE = 0.01  # of the requests that go wrong
KINDS = (
    FaultKind.ERROR_BEFORE,
    FaultKind.ERROR_AFTER,
    FaultKind.HTML_503,
    FaultKind.HTML_200,
    FaultKind.THROTTLED,
    FaultKind.RESET_BEFORE,
    FaultKind.RESET_AFTER,
    FaultKind.HANG,
)
FIRST, LAST = 0.02, 0.95  # kills fall between these shares of what must arrive
AT = 1 / 3  # of what must arrive is there when an outage begins
ELSEWHERE_LEASE_S = 30.0  # longer than a command takes to start, however busy the machine is
LATE_LOG_SETTLE_S = 6.0  # before an event is looked up, where tracking logs are late
CUTS = (0.2, 0.4, 0.6, 0.8)
PASSING_CODES = (
    "40P01",
    "40001",
    "55P03",
    "57014",
)  # a deadlock, a conflict, a lock or time that was not there
FAILING_S = 2.0
ELSEWHERE: Sequence[Mapping[str, object]] = (
    {"status": 301, "headers": {"Location": "https://www.example/"}, "share": 0.4},
    {"status": 404, "text": "<html>not found</html>", "share": 0.5},
    {"status": 200, "text": "<html>log in</html>"},
)

_CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_DISK = """
CREATE TABLE public.disk (is_full boolean);
INSERT INTO public.disk VALUES (false);
CREATE FUNCTION public.need_disk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT is_full FROM public.disk) THEN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
  END IF;
  RETURN NULL;
END $$;
DO $$
DECLARE name text;
BEGIN
  FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'kiva_stream' LOOP
    EXECUTE format('CREATE TRIGGER need_disk BEFORE INSERT OR UPDATE ON kiva_stream.%I '
                   'FOR EACH STATEMENT EXECUTE FUNCTION public.need_disk()', name);
  END LOOP;
END $$;
"""
_ELSEWHERE = """
CREATE FUNCTION public.elsewhere() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.boot_id = 'of another host';
  RETURN NEW;
END $$;
CREATE TRIGGER elsewhere BEFORE INSERT OR UPDATE ON kiva_stream.lease
FOR EACH ROW EXECUTE FUNCTION public.elsewhere();
UPDATE kiva_stream.lease SET boot_id = '';
"""
_FULL, _FREE = (f"UPDATE public.disk SET is_full = {is_full}" for is_full in ("true", "false"))

_FAULT = """
CREATE TABLE public.fault (code text);
CREATE FUNCTION public.is_readable() RETURNS boolean STABLE LANGUAGE plpgsql AS $$
DECLARE state text := (SELECT code FROM public.fault);
BEGIN
  IF state IS NOT NULL THEN
    RAISE EXCEPTION 'it failed' USING ERRCODE = state;
  END IF;
  RETURN true;
END $$;
DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['system_log', 'customers', 'orders'] LOOP
    EXECUTE format('ALTER TABLE kiva.%I RENAME TO %I', name, name || '_rows');
    EXECUTE format('CREATE VIEW kiva.%I AS SELECT * FROM kiva.%I WHERE public.is_readable()', name,
                   name || '_rows');
  END LOOP;
END $$;
"""

# Of an import of one nothing is refused.
_ROW_REFUSED = {
    "path": "/import/bulk_import",
    "kind": FaultKind.ANSWER_BEFORE,
    "matching": '"email".*"email"',
    "count": 3,
    "status": 400,
    "text": '{"success":0,"failureReasons":[{"contact":3,"failureReason":"Phone is invalid."}]}',
}

Disturb = Callable[[Run], Coroutine[Any, Any, None]]
NO_SETTINGS: Mapping[str, object] = {}


class Intensity(NamedTuple):
    """How often processes are killed, and how long outages last."""

    kills: int
    outage_s: float


class Scenario(NamedTuple):
    """One way to disturb a run."""

    name: str
    disturb: Disturb
    settings: Mapping[str, object] = NO_SETTINGS  # of kiva_stream
    account: Mapping[str, object] = NO_SETTINGS  # of the sandbox
    restarted_codes: frozenset[int] = RESTARTED_CODES  # exit codes after which the command is run again
    repeats_allowed: int = 0
    stops_postgres: bool = False  # needs a server of its own
    relayed: bool = False  # the commands reach the database by way of a relay


def scenarios(wanted: Intensity) -> list[Scenario]:
    """Return all scenarios in the order of the table."""
    late = {"tracking_log_delay_s": 0.6 * LOOKUP_SETTLE_S}
    very_late = {"tracking_log_delay_s": 0.8 * LATE_LOG_SETTLE_S}  # long after the next process has started
    no_look_ups = {"ACTIVECAMPAIGN__LOOKUP": "false"}
    kill = partial(signal_at_random, signal.SIGKILL, wanted.kills)
    terminate = partial(signal_at_random, signal.SIGTERM, wanted.kills)
    outage_s = wanted.outage_s
    return [
        Scenario("kills", kill),
        Scenario(
            "kills-logs-late", kill, {"ACTIVECAMPAIGN__LOOKUP_SETTLE_S": LATE_LOG_SETTLE_S}, account=very_late
        ),
        Scenario(
            "kills-no-look-ups",
            kill,
            settings=no_look_ups,
            repeats_allowed=wanted.kills * MAX_IN_FLIGHT,
        ),
        Scenario("kills-elsewhere", kill_elsewhere, {"STATE__LEASE_S": ELSEWHERE_LEASE_S}),
        Scenario("stops", terminate, settings=no_look_ups, restarted_codes=RESTARTED_CODES | {TERMINATED}),
        Scenario("frozen", freeze, repeats_allowed=1),
        *(Scenario(kind.value, partial(inject_faults, (kind,))) for kind in KINDS),
        Scenario("all-faults", partial(inject_faults, KINDS), account=late),
        Scenario("postgres-stopped", partial(stop_postgres, outage_s), stops_postgres=True),
        Scenario("connections-cut", cut_connections),
        Scenario("connections-silent", silence_connections, {"SOURCE__STATEMENT_TIMEOUT_S": 1}, relayed=True),
        Scenario("source-errors", let_queries_fail),
        Scenario("disk-full", partial(fill_disk, outage_s)),
        Scenario("activecampaign-down", partial(take_down, outage_s)),
        Scenario("rows-refused", refuse_rows),
        Scenario("another-server", partial(answer_elsewhere, outage_s)),
        Scenario("key-refused", partial(refuse_key, outage_s), restarted_codes=RESTARTED_CODES | {REFUSED}),
    ]


async def signal_at_random(number: signal.Signals, times: int, run: Run) -> None:
    """Send a signal that often, each at a random share of the arrivals and after some progress."""
    chance, arrived = _chance(run), 0
    for share in sorted(chance.uniform(FIRST, LAST) for _ in range(times)):
        await run.wait_for_share(share)
        await run.site.wait_for_arrivals(arrived + 1)
        starts = run.starts
        if run.send_signal(number):
            run.note_strike()
        await run.wait_for_start(starts)
        run.note_end()
        arrived = await run.site.arrivals()


async def kill_elsewhere(run: Run) -> None:
    """Kill the process once, and let its lease be that of another host: the next process has to wait."""
    await run.site.execute(_ELSEWHERE)
    await signal_at_random(signal.SIGKILL, 1, run)


async def freeze(run: Run) -> None:
    """Freeze the process for longer than its lease, start a second one, and let the first continue."""
    await run.wait_for_share(_chance(run).uniform(FIRST, LAST))
    run.note_strike()
    run.send_signal(signal.SIGSTOP)
    arrived = await run.site.arrivals()
    second = Run(run.site)
    async with anyio.create_task_group() as group:
        group.start_soon(second.complete)
        await second.wait_for_start(0)
        run.note_end()
        more = arrived + 2 * MAX_IN_FLIGHT  # more than were in flight
        await run.site.wait_for_arrivals(min(more, run.site.history.arrivals))
        run.send_signal(signal.SIGCONT)
    run.add_starts(second.starts)


def _chance(run: Run) -> random.Random:
    return random.Random(run.site.history.seed)  # noqa: S311  chance, not secrets


async def inject_faults(kinds: tuple[FaultKind, ...], run: Run) -> None:
    """Let a share of all requests fail in each of these ways until the end."""
    await run.site.activecampaign.fail(*(f"*:{kind}:{SHARE}" for kind in kinds))


async def stop_postgres(outage_s: float, run: Run) -> None:
    """Stop the server of source and state, and start it again."""
    server = run.site.history.server
    if not isinstance(server, OwnServer):
        raise TypeError("the server was not started by this process")
    async with _outage(outage_s, run, partial(anyio.to_thread.run_sync, server.start)):
        await anyio.to_thread.run_sync(server.stop)


async def cut_connections(run: Run) -> None:
    """Cut all connections to source and state, several times."""
    for share in CUTS:
        await run.wait_for_share(share)
        run.note_strike()
        await run.site.execute(_CUT)
        run.note_end()


async def silence_connections(run: Run) -> None:
    """Pass nothing more on in the connections that are open, several times; serve new ones."""
    for share in CUTS:
        await run.wait_for_share(share)
        run.note_strike()
        run.site.relay.silence()
        run.note_end()


async def let_queries_fail(run: Run) -> None:
    """Let every query of the shop's tables fail for a moment, several times, each with another SQLSTATE."""
    await run.site.execute(_FAULT)
    for share, code in zip(CUTS, PASSING_CODES, strict=True):
        await run.wait_for_share(share)
        run.note_strike()
        await run.site.execute(f"INSERT INTO public.fault VALUES ('{code}')")
        await anyio.sleep(FAILING_S)
        await run.site.execute("DELETE FROM public.fault")
        run.note_end()


async def fill_disk(outage_s: float, run: Run) -> None:
    """Let every write to the state schema fail as on a full disk."""
    await run.site.execute(_DISK)
    async with _outage(outage_s, run, partial(run.site.execute, _FREE)):
        await run.site.execute(_FULL)


async def take_down(outage_s: float, run: Run) -> None:
    """Let ActiveCampaign answer with error pages and resets only, or not at all."""
    async with _outage(outage_s, run, run.site.activecampaign.fail):
        await run.site.activecampaign.fail("*:hang:0.05", "*:html-503:0.5", "*:reset-before:1")


async def refuse_rows(run: Run) -> None:
    """Let ActiveCampaign refuse imports for one of their rows, several times."""
    await run.site.activecampaign.fail(_ROW_REFUSED)


async def answer_elsewhere(outage_s: float, run: Run) -> None:
    """Let another server answer in the place of ActiveCampaign: by redirects and pages."""
    async with _outage(outage_s, run, run.site.activecampaign.fail):
        await run.site.activecampaign.fail(
            *({"path": "*", "kind": FaultKind.ANSWER_BEFORE, **answer} for answer in ELSEWHERE)
        )


async def refuse_key(outage_s: float, run: Run) -> None:
    """Let ActiveCampaign refuse the key."""
    async with _outage(outage_s, run, run.site.activecampaign.fail):
        await run.site.activecampaign.fail("*:403:1")


@asynccontextmanager
async def _outage(outage_s: float, run: Run, end: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Begin an outage by the block when a share has arrived, let it last, then end it."""
    await run.wait_for_share(AT)
    run.note_strike()
    yield
    await anyio.sleep(outage_s)
    await end()
    run.note_end()
