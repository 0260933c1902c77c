"""Incidents: since when they last and why, and when they are persisted. In virtual time."""

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
from tests.support.virtual_time import now, run
from tests.support.waiting import raises_one

T = TypeVar("T")


def second(when: datetime) -> float:
    """Return at which second of the story a moment is."""
    return round(when.timestamp(), 1)


def incidents() -> Incidents:
    return Incidents(now=lambda: datetime.fromtimestamp(now() - 1_000, UTC))


class Rows:
    """Implements IncidentStore: `persisted` is what was stored at which second of the story."""

    def __init__(self) -> None:
        self.persisted: list[tuple[float, list[str]]] = []
        self.is_away = False

    async def persist(self, incidents: Collection[Incident]) -> None:
        await anyio.lowlevel.checkpoint()
        if self.is_away:
            raise CheckpointError("gone")
        self.persisted.append((round(now() - 1_000), [f"{each.kind}: {each.why}" for each in incidents]))


def tell(story: Callable[[Incidents, Rows], Awaitable[T]]) -> T:
    async def told() -> T:
        return await story(incidents(), Rows())

    return run(told())


def test_an_incident_keeps_its_first_moment_and_has_its_latest_reason() -> None:
    async def story(found: Incidents, _rows: Rows) -> list[Incident]:
        await anyio.sleep(5)
        found.open("source", "it is away")
        await anyio.sleep(5)
        found.open("source", "it is in recovery")
        return found.all()

    [incident] = tell(story)

    assert (incident.kind, second(incident.since), incident.why) == ("source", 5, "it is in recovery")


def test_an_incident_lasts_until_every_reporter_has_resolved_it() -> None:
    found = Incidents()
    found.open("key", "REST refuses", "REST")
    found.open("key", "events refuse", "events")
    found.resolve("key", "REST")
    found.resolve("key", "REST")

    assert [each.why for each in found.all()] == ["events refuse"]
    found.resolve("key", "events")
    assert found.all() == []


def test_an_incident_is_logged_when_it_opens_and_when_it_is_resolved_at_most_once_a_minute() -> None:
    found = Incidents()
    with capture_logs() as lines:
        for _ in range(5):
            found.open("activecampaign", "503")
            found.open("activecampaign", "504")
        found.resolve("activecampaign")
        found.open("activecampaign", "503")

    assert [line["event"] for line in lines] == ["trouble", "trouble is over"]


def test_changes_are_persisted_at_most_once_a_second_and_a_good_end_leaves_none() -> None:
    async def story(found: Incidents, rows: Rows) -> list[tuple[float, list[str]]]:
        found.open("source", "early")
        async with found.persisted_in(rows):
            await anyio.sleep(2)
            found.resolve("source")
            for number in range(30):
                found.open("state", str(number))
                await anyio.sleep(0.1)
            await anyio.sleep(10)
        return rows.persisted

    kept = tell(story)

    assert kept[:2] == [(0, ["source: early"])] * 2
    assert kept[-2][1] == ["state: 29"]
    assert kept[-1:] == [(15, [])]
    assert len(kept) <= 8


def test_incidents_are_persisted_when_a_state_that_was_away_is_back() -> None:
    async def story(found: Incidents, rows: Rows) -> list[tuple[float, list[str]]]:
        async with found.persisted_in(rows):
            rows.is_away = True
            await anyio.sleep(5)
            found.open("state", "the disk is full")
            await anyio.sleep(5)
            rows.is_away = False
            await anyio.sleep(5)
        return rows.persisted

    assert tell(story)[1:-1] == [(10, ["state: the disk is full"])]


def test_a_run_that_fails_leaves_its_incidents() -> None:
    async def story(found: Incidents, rows: Rows) -> list[tuple[float, list[str]]]:
        with raises_one(ValueError):
            await _fail(found, rows)
        return rows.persisted

    assert tell(story)[-1] == (0, ["key: 403"])


async def _fail(found: Incidents, rows: Rows) -> None:
    async with found.persisted_in(rows):
        found.open("key", "403")
        raise ValueError


def test_a_cancelled_run_persists_nothing_more_since_another_process_may_have() -> None:
    async def story(found: Incidents, rows: Rows) -> list[tuple[float, list[str]]]:
        with anyio.move_on_after(3):
            async with found.persisted_in(rows):
                found.open("key", "403")
                await anyio.sleep_forever()
        return rows.persisted

    assert tell(story)[-1] == (0, ["key: 403"])
