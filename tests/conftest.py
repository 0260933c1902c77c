"""What every test may ask for."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest

from kiva_stream.sandbox.postgres import Server, embedded_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """One server a run: that of KIVA_STREAM_TEST_DSN (a role that may create databases), else a new one."""
    with embedded_postgres(os.environ.get("KIVA_STREAM_TEST_DSN")) as server:
        yield server


@pytest.fixture
async def database(postgres: Server) -> AsyncIterator[str]:
    """Yield the DSN of an empty database of the test's own."""
    name = f"kiva_test_{uuid4().hex}"
    yield await postgres.create_database(name)
    await postgres.drop_database(name)
