"""A pooler before the databases: a session of one's own is set up, and any other is refused."""

from __future__ import annotations

import asyncpg
import pytest
from msgspec.structs import replace

from kiva_stream.errors import CheckpointError, SourceError
from kiva_stream.primitives.postgres.errors import SHARED
from kiva_stream.source.source import Source
from kiva_stream.state.store import Store
from tests.support.pgbouncer import pgbouncer
from tests.support.postgres import connected
from tests.support.shop_rows import ShopRows, Sleeps, opened_log, positions, read, source_settings
from tests.support.state_schema import settings as state_settings

IGNORED = (
    "statement_timeout, default_transaction_read_only, idle_in_transaction_session_timeout, row_security"
)
SHARING = [
    ("transaction", {}),
    ("transaction", {"server_round_robin": 1, "min_pool_size": 2}),
    ("transaction", {"server_round_robin": 1, "min_pool_size": 3}),
    ("transaction", {"default_pool_size": 1}),
    ("statement", {}),
]


@pytest.mark.parametrize("settings", [{}, {"ignore_startup_parameters": IGNORED}, {"default_pool_size": 1}])
async def test_a_session_of_a_pooler_only_reads_and_has_its_time_out(
    database: str, shop: ShopRows, settings: dict[str, object]
) -> None:
    written = [await shop.entry(10) for _ in range(9)]
    with pgbouncer(database, "session", **settings) as dsn:
        chosen = source_settings(dsn, statement_timeout_s=0.05, max_connections=1)
        async with Source.open(chosen, Sleeps()) as source:
            for _ in range(2):  # also after a query has ended, and its connection was released
                with pytest.raises(SourceError, match="read-only transaction"):
                    await source.read(lambda connection: connection.execute("DELETE FROM kiva.sites"))
                with pytest.raises(SourceError, match="canceling statement due to statement timeout"):
                    await source.read(lambda connection: connection.execute("SELECT pg_sleep(5)"))
        async with opened_log(dsn, page_rows=2, range_rows=4) as opened:
            assert positions(await read(opened)) == written


@pytest.mark.parametrize(("mode", "settings"), SHARING)
async def test_a_pooler_that_gives_each_transaction_another_session_is_one_sentence(
    database: str, shop: ShopRows, mode: str, settings: dict[str, object]
) -> None:
    with pgbouncer(database, mode, **settings) as dsn:
        async with connected(dsn), connected(dsn):  # the shop's, idle
            with pytest.raises(SourceError) as source:
                async with Source.open(source_settings(dsn)):
                    pass
            with pytest.raises(CheckpointError) as state:
                async with Store.open(replace(state_settings(dsn), lease_s=3)):
                    pass
    assert str(source.value) == f"The shop's database cannot be read (source.dsn): {SHARED}"
    assert str(state.value) == f"The state database (state.dsn) cannot be used: {SHARED}"
    assert await writable(shop.connection)


async def test_no_setting_is_left_in_the_sessions_of_a_pooler_that_is_refused(
    database: str, shop: ShopRows
) -> None:
    with pgbouncer(database, "transaction", default_pool_size=2) as dsn:
        async with connected(dsn) as one, connected(dsn) as other:
            with pytest.raises(SourceError):
                async with Source.open(source_settings(dsn)):
                    pass
            for each in (one, other, one, other):
                assert await writable(each)


async def writable(connection: asyncpg.Connection) -> bool:
    """Return whether a session would write; asked without a prepared statement, which a pooler might lose."""
    await connection.execute("UPDATE kiva.sites SET name = name")
    return True


async def test_a_state_by_way_of_a_pooler_in_session_mode_is_used(database: str) -> None:
    with pgbouncer(database, "session") as dsn:
        async with Store.open(state_settings(dsn)) as store:
            assert await store.migrate()
            async with store.transaction() as connection:
                shown = await connection.fetchval("SHOW idle_in_transaction_session_timeout")
    assert shown == "30s"
