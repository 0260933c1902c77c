"""The real command on a real PostgreSQL while answers go wrong and plugs are pulled."""

from __future__ import annotations

import anyio
import pytest

from kiva_stream.sandbox.drill import History, Row
from tests.acceptance.drills import drilled

OUTAGES = (
    "postgres-stopped",
    "disk-full",
    "activecampaign-down",
    "another-server",
    "key-refused",
    "connection-deleted",
    "connections-silent",
    "source-errors",
)


@pytest.fixture(scope="module")
def rows(history: History, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    folder = tmp_path_factory.mktemp("faults")
    return anyio.run(drilled, ("all-faults", "rows-refused", *OUTAGES), history, folder)


def assert_whole(row: Row) -> None:
    assert (row.lost, row.repeated, row.out_of_order, row.dead_letters) == (0, 0, 0, 0), row
    assert row.ok, row


def test_one_faulty_answer_in_a_hundred_of_every_kind_loses_repeats_and_dead_letters_nothing(
    rows: dict[str, Row],
) -> None:
    assert_whole(rows["all-faults"])
    assert rows["all-faults"].times > 8 * 10


def test_imports_that_are_refused_for_a_row_cost_no_contact_its_place_or_its_events(
    rows: dict[str, Row],
) -> None:
    assert_whole(rows["rows-refused"])
    assert rows["rows-refused"].times == 3


@pytest.mark.parametrize("name", OUTAGES)
def test_an_outage_of_every_kind_loses_repeats_and_dead_letters_nothing(
    rows: dict[str, Row], name: str
) -> None:
    assert_whole(rows[name])
