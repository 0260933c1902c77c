"""The real command on a real PostgreSQL, killed with SIGKILL at random points, and started again.

The next process takes the lease of a killed one of the same host at once. The lease of another host must end
first: until then a backfill ends with exit code 6, and is started again, as systemd does it.
"""

from __future__ import annotations

import anyio
import pytest

from kiva_stream.primitives.processes import this_process
from kiva_stream.sandbox.drill import History, Row
from kiva_stream.sandbox.drill.site import MAX_IN_FLIGHT
from tests.acceptance.drills import INTENSITY, drilled

LOOKED_UP = ("kills", "kills-logs-late")
NOT_LOOKED_UP = "kills-no-look-ups"
ELSEWHERE = "kills-elsewhere"


@pytest.fixture(scope="module")
def rows(history: History, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    folder = tmp_path_factory.mktemp("kills")
    return anyio.run(drilled, (*LOOKED_UP, NOT_LOOKED_UP, ELSEWHERE), history, folder)


@pytest.mark.parametrize("name", LOOKED_UP)
def test_killed_at_random_points_nothing_is_lost_and_nothing_repeated_with_look_ups(
    rows: dict[str, Row], name: str
) -> None:
    row = rows[name]
    assert row.times == INTENSITY.kills
    assert (row.lost, row.repeated, row.out_of_order, row.dead_letters) == (0, 0, 0, 0), row
    assert row.ok, row


@pytest.mark.skipif(this_process() is None, reason="this system does not tell processes apart")
@pytest.mark.parametrize("name", [*LOOKED_UP, NOT_LOOKED_UP])
def test_killed_at_random_points_a_backfill_goes_on_with_its_next_start(
    rows: dict[str, Row], name: str
) -> None:
    assert rows[name].starts == INTENSITY.kills + 1


def test_killed_on_another_host_the_site_is_waited_for_and_nothing_is_lost_or_repeated(
    rows: dict[str, Row],
) -> None:
    row = rows[ELSEWHERE]
    assert row.times == 1
    assert row.starts > 2, row  # some of them were refused with exit code 6
    assert row.ok, row


def test_without_look_ups_a_kill_repeats_at_most_what_was_in_flight_and_it_is_counted(
    rows: dict[str, Row],
) -> None:
    row = rows[NOT_LOOKED_UP]
    assert row.times == INTENSITY.kills
    assert (row.lost, row.out_of_order, row.dead_letters, row.wrong) == (0, 0, 0, {}), row
    assert row.repeated <= INTENSITY.kills * MAX_IN_FLIGHT, row
    assert row.sent_again or not row.repeated, row
    assert row.ok, row
