"""Faults of the shop's database and of the state: stopped, cut off, silent, failing and full."""

from __future__ import annotations

from functools import partial

import anyio

from kiva_stream.sandbox.drill.run import Run
from kiva_stream.sandbox.postgres import OwnServer

CUTS = (0.2, 0.4, 0.6, 0.8)
PASSING_CODES = (
    "40P01",
    "40001",
    "55P03",
    "57014",
)  # a deadlock, a conflict, a lock or time that was not there
FAILING_S = 2.0

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


async def stop_postgres(outage_s: float, run: Run) -> None:
    """Stop the server of source and state, and start it again."""
    server = run.site.history.server
    if not isinstance(server, OwnServer):
        raise TypeError("the server was not started by this process")
    async with run.outage(outage_s, partial(anyio.to_thread.run_sync, server.start)):
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
    async with run.outage(outage_s, partial(run.site.execute, _FREE)):
        await run.site.execute(_FULL)
