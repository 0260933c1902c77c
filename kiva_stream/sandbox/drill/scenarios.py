"""The plugs that are pulled: each scenario disturbs a run in its own way."""

from __future__ import annotations

import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import anyio

from kiva_stream.sandbox.activecampaign.faults import FaultKind
from kiva_stream.sandbox.drill.run import AGAIN, REFUSED, TERMINATED, Run
from kiva_stream.sandbox.drill.stage import LOOKUP_SETTLE_S, MAX_IN_FLIGHT
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
PATIENT_S = 6.0  # until an event is looked up whose log is late
CUTS = (0.2, 0.4, 0.6, 0.8)

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
_FULL, _FREE = (f"UPDATE public.disk SET is_full = {is_full}" for is_full in ("true", "false"))

Disturb = Callable[[Run], Coroutine[Any, Any, None]]
NONE: Mapping[str, object] = {}


class Intensity(NamedTuple):
    """How hard it is pulled."""

    kills: int
    outage_s: float


class Scenario(NamedTuple):
    """One way to disturb a run."""

    name: str
    disturb: Disturb
    settings: Mapping[str, object] = NONE  # of kiva_stream
    account: Mapping[str, object] = NONE  # of the sandbox
    again: frozenset[int] = AGAIN  # exit codes after which the command is run again
    repeats_allowed: int = 0
    stops_postgres: bool = False  # so it has a server of its own


def scenarios(wanted: Intensity) -> list[Scenario]:
    """Return all, in the order of the table."""
    late = {"tracking_log_delay_s": 0.6 * LOOKUP_SETTLE_S}
    very_late = {"tracking_log_delay_s": 0.8 * PATIENT_S}  # when a killed one's lease has ended, and later
    no_look_ups = {"ACTIVECAMPAIGN__LOOKUP": "false"}
    kill = partial(signal_at_random, signal.SIGKILL, wanted.kills)
    terminate = partial(signal_at_random, signal.SIGTERM, wanted.kills)
    outage_s = wanted.outage_s
    return [
        Scenario("kills", kill),
        Scenario("kills-logs-late", kill, {"ACTIVECAMPAIGN__LOOKUP_SETTLE_S": PATIENT_S}, account=very_late),
        Scenario(
            "kills-no-look-ups",
            kill,
            settings=no_look_ups,
            repeats_allowed=wanted.kills * MAX_IN_FLIGHT,
        ),
        Scenario("stops", terminate, settings=no_look_ups, again=AGAIN | {TERMINATED}),
        Scenario("frozen", freeze, repeats_allowed=1),
        *(Scenario(kind.value, partial(go_wrong, (kind,))) for kind in KINDS),
        Scenario("all-faults", partial(go_wrong, KINDS), account=late),
        Scenario("postgres-stopped", partial(stop_postgres, outage_s), stops_postgres=True),
        Scenario("connections-cut", cut_connections),
        Scenario("disk-full", partial(fill_disk, outage_s)),
        Scenario("activecampaign-down", partial(take_down, outage_s)),
        Scenario("key-refused", partial(refuse_key, outage_s), again=AGAIN | {REFUSED}),
    ]


async def signal_at_random(number: signal.Signals, times: int, run: Run) -> None:
    """Send a signal that often, each when a random share has arrived and something since the last restart."""
    chance, there = _chance(run), 0
    for share in sorted(chance.uniform(FIRST, LAST) for _ in range(times)):
        await run.reached(share)
        await run.stage.reached(there + 1)
        starts = run.starts
        if run.send_signal(number):
            run.strike()
        await run.restarted(starts)
        run.over()
        there = await run.stage.arrivals()


async def freeze(run: Run) -> None:
    """Stop the process for longer than its lease, let another one take over, and let the first go on."""
    await run.reached(_chance(run).uniform(FIRST, LAST))
    run.strike()
    run.send_signal(signal.SIGSTOP)
    there = await run.stage.arrivals()
    second = Run(run.stage)
    async with anyio.create_task_group() as group:
        group.start_soon(second.carry)
        await second.restarted(0)
        run.over()
        more = there + 2 * MAX_IN_FLIGHT  # than were in flight
        await run.stage.reached(min(more, run.stage.history.arrivals))
        run.send_signal(signal.SIGCONT)
    run.starts += second.starts


def _chance(run: Run) -> random.Random:
    return random.Random(run.stage.history.seed)  # noqa: S311  chance, not secrets


async def go_wrong(kinds: tuple[FaultKind, ...], run: Run) -> None:
    """Have a share of all requests go wrong, of each kind, until the end."""
    await run.stage.activecampaign.fail(*(f"*:{kind}:{SHARE}" for kind in kinds))


async def stop_postgres(outage_s: float, run: Run) -> None:
    """Stop the server of source and state, and start it again."""
    server = run.stage.history.server
    if not isinstance(server, OwnServer):
        raise TypeError("this server is not ours to stop")
    async with _outage(outage_s, run, partial(anyio.to_thread.run_sync, server.start)):
        await anyio.to_thread.run_sync(server.stop)


async def cut_connections(run: Run) -> None:
    """End all connections to source and state, several times."""
    for share in CUTS:
        await run.reached(share)
        run.strike()
        await run.stage.execute(_CUT)
        run.over()


async def fill_disk(outage_s: float, run: Run) -> None:
    """Refuse every write to the state schema as on a full disk."""
    await run.stage.execute(_DISK)
    async with _outage(outage_s, run, partial(run.stage.execute, _FREE)):
        await run.stage.execute(_FULL)


async def take_down(outage_s: float, run: Run) -> None:
    """Have ActiveCampaign answer nothing but error pages and resets, or nothing at all."""
    async with _outage(outage_s, run, run.stage.activecampaign.fail):
        await run.stage.activecampaign.fail("*:hang:0.05", "*:html-503:0.5", "*:reset-before:1")


async def refuse_key(outage_s: float, run: Run) -> None:
    """Have ActiveCampaign refuse the key."""
    async with _outage(outage_s, run, run.stage.activecampaign.fail):
        await run.stage.activecampaign.fail("*:403:1")


@asynccontextmanager
async def _outage(outage_s: float, run: Run, end: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Do the block when a part has arrived, let it last, then end it."""
    await run.reached(AT)
    run.strike()
    yield
    await anyio.sleep(outage_s)
    await end()
    run.over()
