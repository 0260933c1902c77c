"""`dead-letters` on the command line."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kiva_stream.commands.dead_letters import details, discard, listing, replay
from kiva_stream.commands.dead_letters.details import DeadLetterDetails
from kiva_stream.commands.dead_letters.discard import DiscardReport
from kiva_stream.commands.dead_letters.listing import DeadLetterList, DeadLetterRow, ReasonCount
from kiva_stream.commands.dead_letters.replay import ReplayReport
from kiva_stream.commands.dead_letters.selection import DeadLetterRequest
from kiva_stream.model.bounds import Place
from kiva_stream.model.ids import CustomerId, OrderId
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import Position
from kiva_stream.settings.sections import Settings
from tests.unit.cli.command_line import Run, words

DIED_AT = datetime(2026, 11, 26, 2, 5, tzinfo=UTC)
LETTER = DeadLetterRow("734:12345", "no_email", "5123", 0, DIED_AT, "", "discarded")
REFUSED = DeadLetterRow("order:881", "order_invalid", None, None, None, "its total is negative")


class DeadLetters:
    """Stands for the commands on dead letters: notes what they were asked, and answers."""

    def __init__(self) -> None:
        self.asked: list[DeadLetterRequest] = []
        self.limits: list[tuple[int, bool]] = []
        self.held = 0

    async def dead_letters(
        self, _: Settings, request: DeadLetterRequest, limit: int, *, oldest_first: bool
    ) -> DeadLetterList:
        self.asked.append(request)
        self.limits.append((limit, oldest_first))
        return DeadLetterList(5, [ReasonCount("no_email", 4, 2, 1)], [LETTER, REFUSED])

    async def show(self, _: Settings, place: Place) -> DeadLetterDetails:
        entry = {} if place == OrderId(881) else {"message": "Subscription paused"}
        return DeadLetterDetails(LETTER, entry, "dead: no_email", "Give it an address.")

    async def replay(self, _: Settings, request: DeadLetterRequest) -> ReplayReport:
        self.asked.append(request)
        return ReplayReport(3, {"delivered": 2, "dead no_email": 1} if request.places else None)

    async def count(self, _: Settings, request: DeadLetterRequest) -> DiscardReport:
        self.asked.append(request)
        return DiscardReport(1_234, held=self.held)

    async def discard(self, _: Settings, request: DeadLetterRequest) -> DiscardReport:
        self.asked.append(request)
        return DiscardReport(1_234)


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> DeadLetters:
    fake = DeadLetters()
    monkeypatch.setattr(listing, "list_dead_letters", fake.dead_letters)
    monkeypatch.setattr(details, "show_dead_letter", fake.show)
    monkeypatch.setattr(replay, "replay", fake.replay)
    monkeypatch.setattr(discard, "count_undiscarded", fake.count)
    monkeypatch.setattr(discard, "discard", fake.discard)
    return fake


def test_dead_letters_are_listed_with_their_reasons_and_marks(run: Run, letters: DeadLetters) -> None:
    out = words(run("dead-letters", "list").out)
    assert "5 dead letters Reason letters replay asked discarded no_email 4 2 1 place reason" in out
    assert "734:12345 no_email 5123 0 2026-11-26 02:05:00+00:00 discarded" in out
    assert "order:881 order_invalid its total is negative 3 more" in out
    run("dead-letters", "list", "--reason", "no_email", "--customer", "7", "--limit", "3", "--oldest")
    assert letters.asked == [DeadLetterRequest(), DeadLetterRequest(Reason.NO_EMAIL, CustomerId(7))]
    assert letters.limits == [(100, False), (3, True)]


def test_a_dead_letter_is_shown_with_its_entry_and_what_to_do(run: Run, letters: DeadLetters) -> None:
    out = words(run("dead-letters", "show", "734:12345").out)
    assert "message Subscription paused now dead: no_email to do Give it an address." in out
    assert "does not have it any more" in run("dead-letters", "show", "order:881").out


def test_a_replay_says_what_became_of_the_dead_letters_or_which_process_replays_them(
    run: Run, letters: DeadLetters
) -> None:
    out = words(run("dead-letters", "replay", "734:12345", "order:881").out)
    assert "3 dead letters are to be replayed Became delivered 2 dead no_email 1" in out
    assert "at its next poll" in run("dead-letters", "replay", "--reason", "no_email").out
    assert letters.asked[0].places == (Position(734, 12345), OrderId(881))


@pytest.mark.parametrize("command", ["replay", "discard"])
@pytest.mark.parametrize("which", [(), ("--all", "7:8"), ("--all", "--reason", "no_email")])
def test_dead_letters_named_in_no_way_or_in_two_are_refused(
    run: Run, letters: DeadLetters, command: str, which: tuple[str, ...]
) -> None:
    result = run("dead-letters", command, *which)
    assert (result.code, letters.asked) == (2, [])
    assert "--all" in result.err


def test_an_unknown_reason_or_place_is_refused_with_what_there_is(run: Run) -> None:
    assert "no_contact, wrong_site, ac_rejected" in words(run("dead-letters", "list", "--reason", "x").err)
    for place in ("881", "order:x", f"order:{2**63}", "7:"):
        assert "order:ID" in run("dead-letters", "show", place).err


def test_on_a_terminal_a_discard_asks_first(
    run: Run, letters: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def confirm(text: str) -> bool:
        asked.append(text)
        return len(asked) > 1

    monkeypatch.setattr("typer.confirm", confirm)
    discard = ("dead-letters", "discard", "--all")
    assert run(*discard, on_terminal=True).out == ""
    assert "1,234 dead letters discarded" in run(*discard, on_terminal=True).out
    assert asked == ["Discard 1,234 dead letters?"] * 2
    letters.held = 2
    run(*discard, on_terminal=True)
    assert asked[2:] == ["Discard 1,234 dead letters and 2 held records, which become dead?"]
    assert "1,234" in run(*discard, "--yes", on_terminal=True).out
