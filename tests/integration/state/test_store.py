"""The state schema in a real PostgreSQL: its migrations, roles, addresses and errors."""

from __future__ import annotations

from traceback import format_exception
from uuid import uuid4

import asyncpg
import pytest

from kiva_stream.errors import CheckpointError
from kiva_stream.model.ids import CustomerId
from kiva_stream.model.positions import Position
from kiva_stream.sandbox.postgres import Server
from kiva_stream.state.links import ContactLinks
from kiva_stream.state.status import read_status
from kiva_stream.state.store import VERSION, Store
from tests.support.postgres import UNREADABLE_DSNS, as_role, encoded_database
from tests.support.state_schema import (
    ACCOUNT,
    ANN,
    begin,
    commit_of,
    delivered,
    held_ledger,
    settings,
)


async def test_migrating_again_changes_nothing(database: str, look: asyncpg.Connection) -> None:
    async with Store.open(settings(database)) as store:
        assert await store.version() == 0
        assert await store.migrate()
        assert not await store.migrate()
        assert await store.version() == VERSION
        await store.require_version()
    assert await look.fetchval("SELECT count(*) FROM kiva_stream.version") == VERSION


async def test_two_schemas_of_one_database_are_strangers(database: str) -> None:
    async with Store.open(settings(database)) as one, Store.open(settings(database, "other")) as other:
        await one.migrate()
        assert await other.version() == 0
        await other.migrate()
        async with held_ledger(one) as first, held_ledger(other) as second:
            await begin(first)
            assert await second.saved(ACCOUNT) is None


async def test_a_schema_that_was_there_before_will_do(database: str, look: asyncpg.Connection) -> None:
    await look.execute("CREATE SCHEMA kiva_stream")
    async with Store.open(settings(database)) as store:
        assert await store.migrate()


async def test_a_newer_schema_is_refused(store: Store, look: asyncpg.Connection) -> None:
    await look.execute("INSERT INTO kiva_stream.version VALUES (99)")
    for refused in (store.require_version(), store.migrate()):
        with pytest.raises(CheckpointError, match=r"of version 99, newer .* use the newer kiva_stream"):
            await refused


async def test_a_missing_schema_says_to_run_setup(database: str) -> None:
    async with Store.open(settings(database)) as store:
        with pytest.raises(CheckpointError, match="run `kiva-stream setup`"):
            await store.require_version()


async def test_a_migration_that_fails_leaves_nothing_behind(
    database: str, look: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    migration = Store._migration
    monkeypatch.setattr(Store, "_migration", lambda self, version: migration(self, version) + "SELECT 1/0;")
    async with Store.open(settings(database)) as store:
        with pytest.raises(CheckpointError, match="division by zero"):
            await store.migrate()
    assert not await look.fetchval("SELECT to_regnamespace('kiva_stream') IS NOT NULL")


async def test_a_role_that_may_not_create_the_schema_gets_a_clear_sentence(
    database: str, look: asyncpg.Connection
) -> None:
    role = f"kiva_test_{uuid4().hex}"
    await look.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    async with Store.open(settings(as_role(database, role))) as store:
        with pytest.raises(CheckpointError, match=r"may not do this: .* GRANT CREATE ON DATABASE"):
            await store.migrate()
    await look.execute(f"DROP ROLE {role}")


async def test_a_role_that_may_create_the_schema_needs_nothing_else(
    database: str, look: asyncpg.Connection
) -> None:
    role = f"kiva_test_{uuid4().hex}"
    name = await look.fetchval("SELECT current_database()")
    await look.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT CREATE ON DATABASE {name} TO {role}")
    async with Store.open(settings(as_role(database, role))) as store:
        await store.migrate()
        async with held_ledger(store) as ledger:
            await begin(ledger)
            await ledger.commit(commit_of(Position(6, 60), [delivered(6, 60)], delivered=1))
        await ContactLinks(store, 1).link({CustomerId(5): ANN})
        assert await read_status(store, 1)
    await look.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_server_out_of_reach_is_one_sentence() -> None:
    with pytest.raises(CheckpointError, match=r"^The state database \(state\.dsn\) cannot be used: "):
        async with Store.open(settings("postgresql://nobody@127.0.0.1:1/nothing")):
            pass


@pytest.mark.parametrize("dsn", UNREADABLE_DSNS)
async def test_an_address_that_cannot_be_read_is_one_sentence_without_it(dsn: str) -> None:
    with pytest.raises(
        CheckpointError, match=r"^state\.dsn cannot be read as a PostgreSQL address"
    ) as caught:
        async with Store.open(settings(dsn)):
            pass
    assert "s3cret" not in "".join(format_exception(caught.value))


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252", "EUC_JP"])
async def test_a_database_that_cannot_hold_every_text_is_refused_when_it_is_opened(
    postgres: Server, encoding: str
) -> None:
    async with encoded_database(postgres, encoding) as dsn:
        with pytest.raises(CheckpointError, match=f"is of the encoding {encoding}.* ENCODING 'UTF8'"):
            async with Store.open(settings(dsn)):
                pass


async def test_what_fails_inside_a_transaction_is_not_the_state_databases_fault(store: Store) -> None:
    with pytest.raises(ValueError, match=r"^mine$"):
        async with store.transaction():
            raise ValueError("mine")
