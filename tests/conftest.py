"""What every test may ask for."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import settings

from kiva_stream.sandbox.postgres import Server, embedded_postgres
from tests.support.reused_databases import ReusedDatabases

settings.register_profile("search")  # what `make drill-long` chooses: more examples, and others in each run


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """One server a run: that of KIVA_STREAM_TEST_DSN (a role that may create databases), else a new one."""
    with embedded_postgres(os.environ.get("KIVA_STREAM_TEST_DSN")) as server:
        yield server


@pytest.fixture(scope="session")
def databases(postgres: Server) -> ReusedDatabases:
    """Return the databases of a run."""
    return ReusedDatabases(postgres)


@pytest.fixture
async def database(databases: ReusedDatabases) -> AsyncIterator[str]:
    """Yield the DSN of an empty database of the test's own."""
    dsn = await databases.lend()
    yield dsn
    await databases.take_back(dsn)
