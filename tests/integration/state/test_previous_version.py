"""The state schema that the previous version of kiva_stream left is migrated without loss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import asyncpg
import msgspec
import pytest

from kiva_stream.activecampaign.client import base_url
from kiva_stream.commands.status import status
from kiva_stream.errors import CheckpointError
from kiva_stream.model.positions import DAY1, Position
from kiva_stream.settings.sections import ActiveCampaignSettings, Settings, SourceSettings, StateSettings
from kiva_stream.state.answered_url import StoredAnsweredUrl
from kiva_stream.state.store import VERSION, Store
from tests.support.state_schema import held_ledger, migrated_store
from tests.support.state_schema import settings as state_settings

PREVIOUS = Path(__file__).with_name("previous")
PREVIOUS_VERSION = 2
COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, column_default
FROM information_schema.columns WHERE table_schema = $1 ORDER BY table_name, column_name
"""
TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'kiva_stream' ORDER BY 1"


@pytest.fixture
async def dump(look: asyncpg.Connection) -> asyncpg.Connection:
    """A connection to a database that holds the previous version's state."""
    await look.execute((PREVIOUS / f"schema_{PREVIOUS_VERSION}.sql").read_text("utf-8"))
    return look


@pytest.fixture
async def migrated(database: str, dump: asyncpg.Connection) -> None:
    """Migrate the previous version's state to this one."""
    async with Store.open(state_settings(database)) as store:
        await store.migrate()


async def rows(look: asyncpg.Connection) -> Mapping[str, list[asyncpg.Record]]:
    """Return all rows by table or view."""
    tables = [row[0] for row in await look.fetch(TABLES)]
    return {table: await look.fetch(f'SELECT * FROM kiva_stream."{table}" ORDER BY 1, 2') for table in tables}


async def test_the_previous_state_is_refused_until_it_is_migrated_and_a_refusal_changes_nothing(
    database: str, dump: asyncpg.Connection
) -> None:
    before = await rows(dump)
    async with Store.open(state_settings(database)) as store:
        with pytest.raises(CheckpointError, match="run `kiva-stream setup`"):
            await store.require_version()
    assert await rows(dump) == before


async def test_migrating_the_previous_state_loses_nothing(database: str, dump: asyncpg.Connection) -> None:
    before = await rows(dump)
    assert min(map(len, before.values())) > 0
    async with Store.open(state_settings(database)) as store:
        assert await store.migrate()
        await store.require_version()
    after = await rows(dump)
    for table, old in before.items():
        kept = [{name: row[name] for name in old[0].keys()} for row in after[table]]  # noqa: SIM118  a Record
        added = VERSION - PREVIOUS_VERSION if table == "version" else 0
        assert kept[: len(kept) - added] == [dict(row) for row in old]


@pytest.mark.usefixtures("migrated")
async def test_a_new_state_has_the_same_tables_and_columns(database: str, dump: asyncpg.Connection) -> None:
    def unqualified(columns: list[asyncpg.Record]) -> list[list[str]]:
        return [
            [str(part).replace("kiva_stream.", "").replace("old.", "") for part in row] for row in columns
        ]

    await dump.execute("ALTER SCHEMA kiva_stream RENAME TO old")
    async with migrated_store(database):
        new, old = await dump.fetch(COLUMNS, "kiva_stream"), await dump.fetch(COLUMNS, "old")
    assert unqualified(new) == unqualified(old) != []


@pytest.mark.usefixtures("migrated")
async def test_status_of_the_previous_state_is_what_the_previous_version_reported(database: str) -> None:
    report = await status(
        Settings(
            source=SourceSettings(dsn=database, site_id=1),
            state=StateSettings(dsn=database),
            activecampaign=ActiveCampaignSettings(
                api_url="https://account.example", api_token="x", event_actid="1", event_key="y"
            ),
        )
    )
    reported = msgspec.json.decode(msgspec.json.encode(report))
    expected = msgspec.json.decode((PREVIOUS / f"status_{PREVIOUS_VERSION}.json").read_bytes())
    assert {name: reported[name] for name in expected} == expected
    assert reported.keys() - expected.keys() == {
        "held",
        "held_by",
        "held_since",
        "lag_s",
        "not_on_list",
        "updated_at",
    }


@pytest.mark.usefixtures("migrated")
async def test_the_url_of_an_account_that_the_previous_state_is_bound_to_is_known_to_be_right(
    database: str,
) -> None:
    async with Store.open(state_settings(database)) as store:
        assert (await StoredAnsweredUrl.read(store, base_url("https://account.example/"))).is_known
        assert not (await StoredAnsweredUrl.read(store, base_url("https://other.example"))).is_known


@pytest.mark.usefixtures("migrated")
async def test_leftovers_of_the_previous_state_are_parked_entries_and_events_in_doubt(
    database: str, dump: asyncpg.Connection
) -> None:
    parked = {Position(*row) for row in await dump.fetch("SELECT txid, log_id FROM kiva_stream.parked")}
    out = await dump.fetchrow("SELECT out_txids, out_ids FROM kiva_stream.checkpoint")
    async with Store.open(state_settings(database)) as store, held_ledger(store) as ledger:
        left = await ledger.leftovers()
        assert set(await ledger.parked_page(DAY1, left.earlier_outcomes_to, 1_000)) == parked
    assert left.parked == len(parked)
    assert left.in_doubt == {Position(*each) for each in zip(*out, strict=True)}
