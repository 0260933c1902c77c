"""`rewind`, and a state that is restored from an older backup: what is sent again, and what is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date

import asyncpg
import msgspec
import pytest

from kiva_stream.commands import rewind as rewinds
from kiva_stream.commands.rewind import RewindReport, RewindRequest
from kiva_stream.errors import SettingsError
from kiva_stream.model.positions import DAY1, Position
from kiva_stream.settings import loading
from tests.acceptance.stages import Stage
from tests.support.postgres import connected

BACKFILL = ("backfill", "--since", "day1", "--yes")
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'kiva_stream' ORDER BY tablename"


@pytest.fixture
async def look(carried: Stage) -> AsyncIterator[asyncpg.Connection]:
    """A connection to look at the state, and to harm it."""
    async with connected(carried.dsn) as connection:
        yield connection


async def rewound(stage: Stage, request: RewindRequest) -> RewindReport:
    return await rewinds.rewind(loading.load(None, stage.environ), request)


async def half_way(look: asyncpg.Connection) -> tuple[Position, int]:
    """Return the position of a delivered event in the middle, and how many were delivered above it."""
    count = await look.fetchval("SELECT count(*) FROM kiva_stream.ledger")
    row = await look.fetchrow(
        "SELECT txid, log_id FROM kiva_stream.ledger ORDER BY txid, log_id LIMIT 1 OFFSET $1", count // 2
    )
    return Position(row["txid"], row["log_id"]), count - count // 2 - 1


async def entries_above(look: asyncpg.Connection, position: Position) -> int:
    return await look.fetchval(  # type: ignore[no-any-return]
        "SELECT count(*) FROM kiva.system_log WHERE site_id = 1 AND (txid, id) > ($1::xid8, $2)",
        *position,
    )


async def test_what_the_ledger_holds_is_not_sent_again_and_the_counts_begin_anew(
    carried: Stage, look: asyncpg.Connection
) -> None:
    deliveries = await look.fetchval("SELECT count(*) FROM kiva_stream.ledger")
    report = msgspec.json.decode(carried.run("rewind", "--to", "day1", "--json"))
    assert (report["to"], report["deliveries"], report["resend"]) == ("day1", deliveries, False)
    status = carried.status()
    assert (status["counted_from"], status["watermark"]) == ("0:0", "0:0")
    assert status["equation"]["entries_read"] == 0
    carried.run("backfill")
    assert (await carried.compare()).is_exact
    carried.assert_equation()


async def test_after_a_rewind_the_counts_are_those_of_the_entries_above_its_position(
    carried: Stage, look: asyncpg.Connection
) -> None:
    position, above = await half_way(look)
    report = await rewound(carried, RewindRequest(position))
    assert (report.to, report.deliveries) == (str(position), above)
    carried.run("backfill", "--since", str(position))
    equation = carried.status()["equation"]
    assert (equation["entries_read"], equation["delivered"]) == (await entries_above(look, position), above)
    assert (await carried.compare()).is_exact
    assert "rewind" in carried.run("backfill", "--since", "day1", code=2)


async def test_without_a_horizon_positions_are_ids_and_the_ledger_still_knows_what_it_holds(
    carried: Stage, look: asyncpg.Connection
) -> None:
    by_ids = loading.load(None, {**carried.environ, "KIVA_STREAM__SOURCE__HORIZON": "false"})
    highest = await look.fetchval("SELECT max(id) FROM kiva.system_log WHERE site_id = 1")
    for to, said in ((Position(1, 1), "are 0:ID then"), (Position(0, highest + 1), "by these positions too")):
        with pytest.raises(SettingsError, match=said):
            await rewinds.rewind(by_ids, RewindRequest(to))
    first, count = await look.fetchrow("SELECT min(log_id), count(*) FROM kiva_stream.ledger")
    request = RewindRequest(Position(0, first))
    assert (await rewinds.preview(by_ids, request)).deliveries is None
    report = await rewinds.rewind(by_ids, request)
    assert (report.horizon, report.deliveries) == (False, count - 1)
    assert await look.fetchval("SELECT max(txid) FROM kiva_stream.ledger") == 0
    report = await rewound(carried, RewindRequest(DAY1))
    assert (report.horizon, report.deliveries) == (True, count)
    assert await look.fetchval("SELECT min(txid) FROM kiva_stream.ledger") > 0
    carried.run("backfill")
    assert (await carried.compare()).is_exact
    carried.assert_equation()


async def test_a_rewind_goes_back_only_and_not_beyond_what_the_ledger_holds(
    carried: Stage, look: asyncpg.Connection
) -> None:
    watermark = Position.parse(carried.status()["watermark"])
    with pytest.raises(SettingsError, match="a checkpoint only moves back"):
        await rewound(carried, RewindRequest(watermark._replace(id=watermark.id + 1)))
    position, _ = await half_way(look)
    await look.execute(
        "UPDATE kiva_stream.ledger SET delivered_at = now() - interval '500 days' "
        "WHERE (txid, log_id) <= ($1, $2)",
        *position,
    )
    carried.run("backfill")
    assert f"up to {position}" in carried.run("rewind", "--to", "day1", code=2)
    await rewound(carried, RewindRequest(position))
    carried.run("backfill")
    assert (await carried.compare()).is_exact


async def test_a_rewind_sets_events_since_and_removes_it_again(
    carried: Stage, look: asyncpg.Connection
) -> None:
    position, _ = await half_way(look)
    report = await rewound(carried, RewindRequest(position, events_since=date(2100, 1, 1)))
    assert report.events_since is not None
    carried.run("backfill")
    equation = carried.status()["equation"]
    assert equation["skipped"]["before_events_since"] > 0
    report = await rewound(carried, RewindRequest(position, forget_events_since=True))
    assert report.events_since is None
    carried.run("backfill")
    assert (await carried.compare()).is_exact


async def test_with_resend_exactly_the_events_above_the_position_are_sent_again(
    carried: Stage, look: asyncpg.Connection
) -> None:
    position, above = await half_way(look)
    before = (await carried.compare()).repeated
    await rewound(carried, RewindRequest(position, resend=True))
    carried.run("backfill")
    comparison = await carried.compare()
    assert (comparison.lost, comparison.repeated - before) == (0, above)
    assert (comparison.out_of_order, comparison.unexpected, comparison.changed) == (0, 0, 0)
    assert carried.status()["equation"]["delivered"] == above


async def test_a_rewind_is_exit_6_while_another_process_holds_the_site(carried: Stage) -> None:
    async with connected(carried.dsn) as connection:
        await connection.execute(
            "INSERT INTO kiva_stream.lease (name, site_id, epoch, holder, taken_at, expires_at) VALUES "
            "('site 1', 1, 99, 'another pid 7', now(), now() + interval '1 minute') "
            "ON CONFLICT (name) DO UPDATE SET epoch = 99, holder = excluded.holder, boot_id = 'another', "
            "expires_at = excluded.expires_at"
        )
        assert "another pid 7" in carried.run("rewind", "--to", "day1", code=6)
        await connection.execute("DELETE FROM kiva_stream.lease")


# A backup of the state


async def backed_up(look: asyncpg.Connection) -> None:
    """Copy the state's tables aside, as a dump would."""
    await look.execute("CREATE SCHEMA backup")
    for (table,) in await look.fetch(TABLES):
        await look.execute(f"CREATE TABLE backup.{table} AS TABLE kiva_stream.{table}")


async def restored(look: asyncpg.Connection) -> None:
    """Put them back."""
    tables = [table for (table,) in await look.fetch(TABLES)]
    async with look.transaction():
        await look.execute("SET LOCAL session_replication_role = replica")  # references are put back as well
        await look.execute(f"TRUNCATE {', '.join(f'kiva_stream.{table}' for table in tables)}")
        for table in tables:
            await look.execute(
                f"INSERT INTO kiva_stream.{table} OVERRIDING SYSTEM VALUE TABLE backup.{table}"
            )


async def test_an_older_state_repeats_what_was_delivered_since_and_loses_nothing(ready: Stage) -> None:
    async with connected(ready.dsn) as look:
        middle = await look.fetchrow(
            "SELECT txid, id FROM kiva.system_log WHERE site_id = 1 ORDER BY txid, id "
            "OFFSET (SELECT count(*) / 2 FROM kiva.system_log WHERE site_id = 1) LIMIT 1"
        )
        ready.run(*BACKFILL, "--until", f"{middle['txid']}:{middle['id']}")
        await backed_up(look)
        kept = await look.fetchval("SELECT count(*) FROM kiva_stream.ledger")
        ready.run("backfill")
        since = await look.fetchval("SELECT count(*) FROM kiva_stream.ledger") - kept
        await restored(look)
    ready.run("backfill")
    comparison = await ready.compare()
    assert since > 0
    assert comparison.repeated == since
    assert msgspec.structs.replace(comparison, repeated=0, arrived=comparison.expected).is_exact
    ready.assert_equation()
