"""What is wrong just now: since when and why, and how the state comes to say so. In virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime
from typing import TypeVar

import anyio
import anyio.lowlevel
from structlog.testing import capture_logs

from kiva_stream.errors import CheckpointError
from kiva_stream.model.incidents import Incident
from kiva_stream.observability.incidents import Incidents
from tests.fakes import raises_one
from tests.virtual_time import now, run

T = TypeVar("T")


def second(when: datetime) -> float:
    """Return at which second of the story a moment is."""
    return round(when.timestamp(), 1)


def troubles() -> Incidents:
    return Incidents(now=lambda: datetime.fromtimestamp(now() - 1_000, UTC))


class Rows:
    """Stands for the state: `kept` is what it said at which second of the story."""

    def __init__(self) -> None:
        self.kept: list[tuple[float, list[str]]] = []
        self.is_away = False

    async def keep(self, troubles: Collection[Incident]) -> None:
        await anyio.lowlevel.checkpoint()
        if self.is_away:
            raise CheckpointError("gone")
        self.kept.append((round(now() - 1_000), [f"{each.kind}: {each.why}" for each in troubles]))


def tell(story: Callable[[Incidents, Rows], Awaitable[T]]) -> T:
    async def told() -> T:
        return await story(troubles(), Rows())

    return run(told())


def test_a_trouble_keeps_its_first_moment_and_says_its_last_word() -> None:
    async def story(found: Incidents, _rows: Rows) -> list[Incident]:
        await anyio.sleep(5)
        found.begin("source", "it is away")
        await anyio.sleep(5)
        found.begin("source", "it is in recovery")
        return found.all()

    [trouble] = tell(story)

    assert (trouble.kind, second(trouble.since), trouble.why) == ("source", 5, "it is in recovery")


def test_a_trouble_lasts_until_every_place_takes_it_back() -> None:
    found = Incidents()
    found.begin("key", "REST refuses", "REST")
    found.begin("key", "events refuse", "events")
    found.end("key", "REST")
    found.end("key", "REST")

    assert [each.why for each in found.all()] == ["events refuse"]
    found.end("key", "events")
    assert found.all() == []


def test_a_trouble_is_logged_when_it_begins_and_when_it_is_over_and_not_at_every_flicker() -> None:
    found = Incidents()
    with capture_logs() as lines:
        for _ in range(5):
            found.begin("activecampaign", "503")
            found.begin("activecampaign", "504")
        found.end("activecampaign")
        found.begin("activecampaign", "503")

    assert [line["event"] for line in lines] == ["trouble", "trouble is over"]


def test_what_changes_is_saved_at_most_once_a_second_and_gone_when_all_ended_well() -> None:
    async def story(found: Incidents, rows: Rows) -> list[tuple[float, list[str]]]:
        found.begin("source", "early")
        async with found.kept_in(rows):
            await anyio.sleep(2)
            found.end("source")
            for number in range(30):
                found.begin("state", str(number))
                await anyio.sleep(0.1)
            await anyio.sleep(10)
        return rows.kept

    kept = tell(story)

    assert kept[:2] == [(0, ["source: early"])] * 2
    assert kept[-2][1] == ["state: 29"]
    assert kept[-1:] == [(15, [])]
    assert len(kept) <= 8


def test_a_state_that_is_away_for_a_while_is_told_when_it_is_back() -> None:
    async def story(found: Incidents, rows: Rows) -> list[tuple[float, list[str]]]:
        async with found.kept_in(rows):
            rows.is_away = True
            await anyio.sleep(5)
            found.begin("state", "the disk is full")
            await anyio.sleep(5)
            rows.is_away = False
            await anyio.sleep(5)
        return rows.kept

    assert tell(story)[1:-1] == [(10, ["state: the disk is full"])]


def test_a_run_that_fails_leaves_what_was_wrong() -> None:
    async def story(found: Incidents, rows: Rows) -> list[tuple[float, list[str]]]:
        with raises_one(ValueError):
            await _fail(found, rows)
        return rows.kept

    assert tell(story)[-1] == (0, ["key: 403"])


async def _fail(found: Incidents, rows: Rows) -> None:
    async with found.kept_in(rows):
        found.begin("key", "403")
        raise ValueError


def test_a_run_that_is_cut_short_writes_no_more_since_another_one_may_tell_its_own() -> None:
    async def story(found: Incidents, rows: Rows) -> list[tuple[float, list[str]]]:
        with anyio.move_on_after(3):
            async with found.kept_in(rows):
                found.begin("key", "403")
                await anyio.sleep_forever()
        return rows.kept

    assert tell(story)[-1] == (0, ["key: 403"])
