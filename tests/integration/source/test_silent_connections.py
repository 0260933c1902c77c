"""Connections to the shop's database that go silent: they are dropped, and reading goes on in new ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import asyncpg
import pytest

from kiva_stream.errors import SourceError
from kiva_stream.observability.incidents import Incidents
from kiva_stream.primitives.clock import Sleep
from kiva_stream.primitives.postgres import connections
from kiva_stream.primitives.postgres.connections import SILENT
from kiva_stream.sandbox.relay import Relay
from kiva_stream.source import source as source_module
from kiva_stream.source.source import Source
from tests.support.shop_rows import ShopRows, opened_log, positions, read, source_settings
from tests.support.state_schema import until
from tests.support.waiting import no_time

STATEMENT_S, ANSWER_S, CONNECT_S = 0.3, 0.2, 0.3
PATIENCE_S = 5.0  # far less than for ever, far more than a statement and the drop of its connection take


@pytest.fixture(autouse=True)
def _short_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "ANSWER_S", ANSWER_S)


@asynccontextmanager
async def relayed(
    database: str,
    sleep: Sleep = no_time,
    **options: Any,  # noqa: ANN401  of any type
) -> AsyncIterator[tuple[Relay, Source]]:
    """Give a relay to a shop's database, and the source by way of it."""
    async with Relay.to(database) as relay:
        settings = source_settings(relay.dsn, statement_timeout_s=STATEMENT_S)
        async with Source.open(settings, sleep, **options) as source:
            yield relay, source


@pytest.mark.parametrize("answers", range(4, 16))
async def test_a_log_is_read_on_wherever_its_connection_goes_silent(
    database: str, shop: ShopRows, answers: int
) -> None:
    """It goes silent after so many answers: to BEGIN, to a fetch of the cursor, to COMMIT …"""
    written = [await shop.entry(10) for _ in range(9)]
    with anyio.fail_after(PATIENCE_S):
        async with Relay.to(database) as relay:
            relay.silence_next(answers)
            async with opened_log(
                relay.dsn, no_time, page_rows=2, range_rows=4, statement_timeout_s=STATEMENT_S
            ) as opened:
                assert positions(await read(opened)) == written
                await until(lambda: has_none(shop))
            assert relay.served > 1


@pytest.mark.parametrize("answers", range(1, 4))
async def test_a_connection_that_goes_silent_as_it_is_set_up_is_a_sentence(
    database: str, shop: ShopRows, monkeypatch: pytest.MonkeyPatch, answers: int
) -> None:
    """It comes after the deadline of a connection, however long a statement may take."""
    monkeypatch.setattr(connections, "CONNECT_S", CONNECT_S)
    with anyio.fail_after(PATIENCE_S):
        async with Relay.to(database) as relay:
            relay.silence_next(answers)
            with pytest.raises(SourceError, match=r"\(source\.dsn\): no connection in time$"):
                async with opened_log(relay.dsn, no_time, statement_timeout_s=10 * PATIENCE_S):
                    pass


async def test_all_connections_that_go_silent_at_once_cost_one_deadline(
    database: str, shop: ShopRows
) -> None:
    incidents = Incidents()
    told: list[str] = []
    three = 3

    async def sleep(_seconds: float, /) -> None:
        told.extend(f"{each.kind}: {each.why}" for each in incidents.all())

    async with relayed(database, sleep, incidents=incidents) as (relay, source):

        async def at_once() -> None:
            async with anyio.create_task_group() as group:
                for _ in range(three):
                    group.start_soon(source.read, lambda each: each.fetch("SELECT pg_sleep(0.05)"))

        await at_once()
        assert relay.silence() == three
        with anyio.fail_after(PATIENCE_S):
            assert len(await source.fetch("site", 1)) == 1
            assert told == [f"source: The shop's database cannot be read (source.dsn): {SILENT}"]
            assert incidents.all() == []
            await at_once()
        assert len(told) == 1
    assert len(await sessions_in_transactions(shop)) == 0


async def test_counting_goes_on_when_its_connection_goes_silent(database: str, shop: ShopRows) -> None:
    async with relayed(database) as (relay, source):
        assert relay.silence() == 1
        with anyio.fail_after(PATIENCE_S):
            rows = await source.fetch_if_quick("count_paid", 1)
    assert rows is not None


async def test_a_server_that_never_answers_is_a_sentence_after_a_few_tries(
    database: str, shop: ShopRows
) -> None:
    async with relayed(database, waits_s=(9, 9)) as (relay, source):
        with anyio.fail_after(2 * PATIENCE_S), pytest.raises(SourceError, match=SILENT):
            await source.read(lambda connection: silenced(connection, relay))


async def silenced(connection: asyncpg.Connection, relay: Relay) -> None:
    """Ask something by a connection that has just gone silent."""
    relay.silence()
    await connection.fetch("SELECT 1")


async def test_a_transaction_that_a_silent_connection_left_open_ends_at_the_server(
    database: str, shop: ShopRows
) -> None:
    """It would hold its snapshot, and keep the shop from vacuuming its tables."""
    await shop.entry(10)
    async with relayed(database, waits_s=()) as (relay, source):

        async def silent(connection: asyncpg.Connection) -> None:
            async with source.cursor(connection, "clock") as cursor:
                await cursor.fetch(1)
                assert len(await sessions_in_transactions(shop)) == 1
                await silenced(connection, relay)

        with pytest.raises(SourceError, match=SILENT):
            await source.read(silent)
        await until(lambda: has_none(shop))


async def sessions_in_transactions(shop: ShopRows) -> list[asyncpg.Record]:
    return await shop.connection.fetch(  # type: ignore[no-any-return]
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle' "
        "AND pid <> pg_backend_pid()"
    )


async def has_none(shop: ShopRows) -> bool:
    return not await sessions_in_transactions(shop)
