"""Connections to the state database that go silent: they are dropped, and the work goes on in new ones."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from msgspec.structs import replace

from kiva_stream.errors import StateBusyError
from kiva_stream.model.ids import CustomerId
from kiva_stream.model.positions import Position
from kiva_stream.observability.incidents import Incidents
from kiva_stream.primitives import sql_blocks
from kiva_stream.primitives.postgres.connections import SILENT
from kiva_stream.sandbox.relay import Relay
from kiva_stream.state.leases import hold, renew
from kiva_stream.state.links import ContactLinks
from kiva_stream.state.store import REPEATABLE, SQL_FILES, Store
from tests.support.postgres import connected
from tests.support.state_schema import ANN, begin, commit_of, delivered, held_ledger, settings
from tests.support.waiting import until

LEASE_S = 2.0
PATIENCE_S = 5 * LEASE_S  # far less than for ever
A, B = Position(6, 60), Position(7, 70)


@asynccontextmanager
async def relayed(database: str, incidents: Incidents | None = None) -> AsyncIterator[tuple[Relay, Store]]:
    """Give a relay to a state schema, and the store by way of it."""
    async with Relay.to(database) as relay:
        state = replace(settings(relay.dsn), lease_s=LEASE_S)
        async with Store.open(state, incidents) as store:
            await store.migrate()
            yield relay, store


async def test_a_commit_whose_connection_goes_silent_is_made_once_within_the_lease(database: str) -> None:
    incidents = Incidents()
    async with relayed(database, incidents) as (relay, store), held_ledger(store, lease_s=LEASE_S) as ledger:
        await begin(ledger)
        await ledger.commit(commit_of(A, [delivered(*A)], delivered=1))
        relay.silence()
        began = time.monotonic()
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as group:
                group.start_soon(ledger.commit, commit_of(B, [delivered(*B)], delivered=1))
                await until(incidents.all)
        assert incidents.all() == []
        assert time.monotonic() - began < 2 * LEASE_S
    async with connected(database) as look:
        assert await look.fetchval("SELECT watermark_id FROM kiva_stream.checkpoint") == B.id
        assert await look.fetch("SELECT name, count FROM kiva_stream.tally") == [("delivered", 2)]


@pytest.mark.parametrize("answers", range(4, 10))
async def test_the_state_is_read_wherever_its_connection_goes_silent(database: str, answers: int) -> None:
    async with relayed(database) as (_, first), held_ledger(first) as ledger:
        await begin(ledger)
    async with Relay.to(database) as relay:
        relay.silence_next(answers)
        with anyio.fail_after(PATIENCE_S):
            async with Store.open(replace(settings(relay.dsn), lease_s=0.3)) as store:
                assert await first_phase(store) == "contacts"
                assert await first_phase(store) == "contacts"


async def first_phase(store: Store) -> str:
    rows = await store.fetch("checkpoint", 1)
    return str(rows[0]["phase"])


async def test_a_lease_is_renewed_in_time_when_all_connections_go_silent(database: str) -> None:
    async with relayed(database) as (relay, store):
        with anyio.fail_after(PATIENCE_S):
            async with (
                hold(store, 1, "account", lease_s=LEASE_S) as lease,
                anyio.create_task_group() as group,
            ):
                group.start_soon(renew, store, lease)
                await anyio.sleep(LEASE_S / 4)
                relay.silence()
                ends_at = time.monotonic() + 2 * LEASE_S
                while time.monotonic() < ends_at:
                    lease.require()
                    await anyio.sleep(0.01)
                group.cancel_scope.cancel()


@pytest.mark.parametrize("answers", range(12, 17))
async def test_a_transaction_is_made_wherever_its_connection_goes_silent(database: str, answers: int) -> None:
    async with relayed(database):
        pass
    async with Relay.to(database) as relay:
        relay.silence_next(answers)
        with anyio.fail_after(PATIENCE_S):
            async with Store.open(replace(settings(relay.dsn), lease_s=LEASE_S / 2)) as store:
                linked = await ContactLinks(store, 1).link({CustomerId(5): ANN})
    async with connected(database) as look:
        rows = await look.fetch("SELECT customer_id, contact_id FROM kiva_stream.customer")
    assert [tuple(row) for row in rows] == [(5, linked[CustomerId(5)].id)]


async def test_reading_is_repeated_though_its_statement_begins_with_a_comment(database: str) -> None:
    async with relayed(database) as (relay, store):
        assert store.sql["last_resolved"].startswith("--")
        relay.silence()
        with anyio.fail_after(PATIENCE_S):
            assert await store.fetch("last_resolved", 1) == []


async def test_a_transaction_that_may_not_be_repeated_says_to_run_the_command_again(database: str) -> None:
    async with relayed(database) as (relay, store):
        relay.silence()
        with anyio.fail_after(PATIENCE_S), pytest.raises(StateBusyError, match="run the command again"):
            async with store.transaction():
                pass


async def test_a_statement_that_may_not_be_repeated_is_a_sentence(database: str) -> None:
    async with relayed(database) as (relay, store):
        relay.silence()
        with anyio.fail_after(PATIENCE_S), pytest.raises(StateBusyError, match=SILENT):
            await store.fetch("count_notes", 1, ["late"], [1])


async def test_locks_that_a_silent_connection_holds_do_not_hold_others_up_for_ever(database: str) -> None:
    async with relayed(database) as (_, store), store.transaction() as connection:
        ends_after = await connection.fetchval("SHOW idle_in_transaction_session_timeout")
    assert ends_after == f"{LEASE_S:g}s"


def test_statements_that_may_be_repeated_exist() -> None:
    assert set(sql_blocks.load("kiva_stream.state", "kiva_stream", *SQL_FILES)) >= REPEATABLE
