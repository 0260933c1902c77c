"""procrastinate: a job queue in PostgreSQL, an event a job, each with its contact as `lock`.

As its documentation has it: jobs of a lock run one after another, in the order in which they were deferred.
A page's jobs are deferred in the transaction that moves the checkpoint ("Using an external database
connection"), so that a crash neither loses nor doubles a job. Jobs that a killed worker was at are retried
by a periodic task ("Retry stalled jobs"); since nobody knows whether their events arrived, they are sent
again.

Chosen in its favour: pages deferred at once; jobs deleted when done; as many jobs at a time as made it
fastest; short waits between two looks for a job whose lock is free (the default is 5 s); heartbeats so
short that a new start need not wait for half a minute. And its table is analyzed before a worker starts, as
autovacuum would sooner or later: with a plan made while the table was empty, the same history took four to
seven times as long.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import psycopg
import uvloop
from procrastinate import App, PsycopgConnector
from procrastinate.jobs import Job

from benchmarks.peers.script import DueEvent, Script
from kiva_stream.model.ids import Email
from kiva_stream.model.positions import DAY1, Position

CONCURRENCY = 20
LOOK_EVERY_S = 0.02
HEARTBEAT_S = 1.0
STALLED_S = 3.0  # without a heartbeat
EVERY_SECOND = "* * * * * *"
QUEUE = "events"

_IS_THERE = "SELECT to_regclass('read_to') IS NOT NULL"
_LEFT = "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE queue_name = %s AND status IN ('todo', 'doing'))"


async def main() -> None:
    """Carry the log: defer all of its events, then work them."""
    async with Script.open() as script:
        state = script.settings.state
        schema = f"{state.schema}_jobs"
        options = f"-c search_path={schema}"
        app = App(connector=PsycopgConnector(conninfo=state.dsn, kwargs={"options": options}))
        _add_tasks(app, script)
        async with (
            await psycopg.AsyncConnection.connect(state.dsn, options=options, autocommit=True) as connection,
            app.open_async(),
        ):
            await _set_up(app, connection, schema)
            await _defer(app, script, connection)
            await connection.execute("ANALYZE procrastinate_jobs")
            worker = asyncio.create_task(_work(app))
            while await _one(connection, _LEFT, QUEUE):  # noqa: ASYNC110  it is in the database
                await asyncio.sleep(LOOK_EVERY_S)
            worker.cancel()
            with suppress(asyncio.CancelledError):
                await worker


def _add_tasks(app: App, script: Script) -> None:
    @app.task(name="deliver", queue=QUEUE)
    async def deliver(*, position: str, email: str, customer: str, name: str, eventdata: str) -> None:
        await script.deliver(DueEvent(Position.parse(position), Email(email), customer, name, eventdata))

    @app.periodic(cron=EVERY_SECOND)
    @app.task(name="retry_stalled_jobs", queueing_lock="retry_stalled_jobs")
    async def retry_stalled_jobs(timestamp: int) -> None:  # noqa: ARG001  a periodic task is given it
        for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=STALLED_S):
            await app.job_manager.retry_job(job)


async def _set_up(app: App, connection: psycopg.AsyncConnection, schema: str) -> None:
    """Create what a first start needs."""
    if await _one(connection, _IS_THERE):
        return
    await connection.execute(f"CREATE SCHEMA {schema}")
    await connection.execute("CREATE TABLE read_to (txid bigint NOT NULL, id bigint NOT NULL)")
    await connection.execute("INSERT INTO read_to VALUES (%s, %s)", DAY1)
    await app.schema_manager.apply_schema_async()


async def _work(app: App) -> None:
    await app.run_worker_async(
        concurrency=CONCURRENCY,
        fetch_job_polling_interval=LOOK_EVERY_S,
        update_heartbeat_interval=HEARTBEAT_S,
        stalled_worker_timeout=STALLED_S,
        delete_jobs="always",
        install_signal_handlers=False,
    )


async def _defer(app: App, script: Script, connection: psycopg.AsyncConnection) -> None:
    """Defer the rest of the log, a page in a transaction with the position of its end."""
    cursor = await connection.execute("SELECT txid, id FROM read_to")
    row = await cursor.fetchone()
    assert row is not None
    async for end, events in script.pages(Position(*row)):
        async with connection.transaction():
            if events:
                await app.job_manager.batch_defer_jobs_async([_job(app, due) for due in events], connection)
            await connection.execute("UPDATE read_to SET (txid, id) = (%s, %s)", end)


def _job(app: App, due: DueEvent) -> Job:
    values = {**due._asdict(), "position": str(due.position)}
    return app.configure_task("deliver", lock=due.email).make_new_job(**values)


async def _one(connection: psycopg.AsyncConnection, query: str, *values: object) -> bool:
    """Return what a query says."""
    row = await (await connection.execute(query, values)).fetchone()
    assert row is not None
    return bool(row[0])


if __name__ == "__main__":
    uvloop.run(main())
