"""The state schema of a test's own database, and a connection beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from kiva_stream.state.ledger import SiteLedger
from kiva_stream.state.store import Store
from tests.support.postgres import connected
from tests.support.state_schema import begin, held_ledger, migrated_store


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    """A state schema of this version."""
    async with migrated_store(database) as opened:
        yield opened


@pytest.fixture
async def ledger(store: Store) -> AsyncIterator[SiteLedger]:
    """The ledger of site 1, which began after START."""
    async with held_ledger(store) as opened:
        await begin(opened)
        yield opened


@pytest.fixture
async def look(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection beside, to look at the tables."""
    async with connected(database) as connection:
        yield connection
