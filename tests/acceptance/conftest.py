"""Stages for the acceptance tests: a test's own, or one for all tests of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from kiva_stream.sandbox.drill import History
from kiva_stream.sandbox.postgres import Server
from tests.acceptance.stages import ENTRIES, SEED, Stage, staged, staged_for_many


@pytest.fixture(scope="session")
def history(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """A shop of 3,000 entries, generated once, of which every stage gets a copy."""
    folder = tmp_path_factory.mktemp("history")
    write = partial(History.write, postgres, folder, entries=ENTRIES, seed=SEED)
    with start_blocking_portal() as portal:
        written = portal.call(write)
        yield written
        portal.call(postgres.drop_database, written.database)


@pytest.fixture
async def stage(history: History, tmp_path: Path) -> AsyncIterator[Stage]:
    """Yield a stage of the test's own, before `setup`."""
    async with staged(history, tmp_path) as stage:
        yield stage


@pytest.fixture
async def ready(stage: Stage) -> Stage:
    """Return a stage of the test's own after `setup`."""
    await stage.set_up()
    return stage


@pytest.fixture(scope="module")
def shared(history: History, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Yield a stage after `setup`, for all tests of a module that leave it as it is."""
    with staged_for_many(history, tmp_path_factory.mktemp("shared")) as (stage, _):
        yield stage


@pytest.fixture(scope="module")
def carried(history: History, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Yield a stage whose history has been carried, for all tests of a module that leave it so."""
    with staged_for_many(history, tmp_path_factory.mktemp("carried")) as (stage, _):
        stage.run("backfill", "--since", "day1", "--yes")
        yield stage
