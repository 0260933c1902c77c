"""`verify` and `rewind` on the command line."""

from __future__ import annotations

import json
from datetime import date

import pytest

from kiva_stream.commands import rewind as rewinds
from kiva_stream.commands.rewind import RewindReport, RewindRequest
from kiva_stream.model.ids import CustomerId
from kiva_stream.model.positions import DAY1, Position
from kiva_stream.settings.sections import Settings
from kiva_stream.verification import verify as verifications
from kiva_stream.verification.verify import DiscrepancyRow, VerifyReport, VerifyRequest
from tests.unit.cli.command_line import Run, words


class Rewinds:
    """Stands for a rewind: notes what it is asked, and answers."""

    def __init__(self) -> None:
        self.previewed: list[RewindRequest] = []
        self.done: list[RewindRequest] = []

    def answer(self, request: RewindRequest, *, is_done: bool) -> RewindReport:
        horizon = request.to.txid > 0
        above = 12 if horizon else None
        to = str(request.to)
        return RewindReport(
            "900:90", to, request.resend, above, above, None, horizon=horizon, is_done=is_done
        )

    async def preview(self, _: Settings, request: RewindRequest) -> RewindReport:
        self.previewed.append(request)
        return self.answer(request, is_done=False)

    async def rewind(self, _: Settings, request: RewindRequest) -> RewindReport:
        self.done.append(request)
        return self.answer(request, is_done=True)


@pytest.fixture
def rewound(monkeypatch: pytest.MonkeyPatch) -> Rewinds:
    fake = Rewinds()
    monkeypatch.setattr(rewinds, "preview", fake.preview)
    monkeypatch.setattr(rewinds, "rewind", fake.rewind)
    return fake


def test_a_rewind_gets_the_position_and_the_bounds_of_its_options(run: Run, rewound: Rewinds) -> None:
    run("rewind", "--to", "day1", "--events-since", "2018-03-04")
    run("rewind", "--to", "7:8", "--resend", "--events-since", "none")
    assert rewound.done == [
        RewindRequest(DAY1, events_since=date(2018, 3, 4)),
        RewindRequest(Position(7, 8), resend=True, forget_events_since=True),
    ]


def test_a_rewind_says_what_it_did(run: Run, rewound: Rewinds) -> None:
    out = words(run("rewind", "--to", "7:8").out)
    assert "moved from 900:90 back to 7:8 deliveries above it 12 kept: not sent again" in out
    assert "12 removed: sent again" in run("rewind", "--to", "7:8", "--resend").out
    assert "0:ID" in run("rewind", "--to", "0:8").out


def test_on_a_terminal_a_rewind_shows_what_it_would_do_and_asks(
    run: Run, rewound: Rewinds, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, True])
    monkeypatch.setattr("typer.confirm", lambda _: next(answers))
    assert "moves from 900:90" in words(run("rewind", "--to", "7:8", on_terminal=True).out)
    assert rewound.done == []
    assert "moved from 900:90" in words(run("rewind", "--to", "7:8", on_terminal=True).out)
    assert (len(rewound.previewed), len(rewound.done)) == (2, 1)


GAP = DiscrepancyRow("tag", "its week tag is none, and should be 'open order'", "1001", "17")
UNCOUNTED = DiscrepancyRow("outcome", "2 entries have no outcome", None, None)


class Verifications:
    """Stands for `verify`: notes what it is asked, and answers `answer`."""

    def __init__(self) -> None:
        self.asked: list[VerifyRequest] = []
        self.answer = VerifyReport([GAP, UNCOUNTED], [], 200, 2_000, is_sample=True, requests={})

    async def verify(self, _: Settings, request: VerifyRequest) -> VerifyReport:
        self.asked.append(request)
        return self.answer


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> Verifications:
    fake = Verifications()
    monkeypatch.setattr(verifications, "verify", fake.verify)
    return fake


def test_verify_shows_a_line_for_each_gap_and_exits_with_7(run: Run, verified: Verifications) -> None:
    result = run("verify")
    assert result.code == 7
    assert result.out.splitlines() == [
        "gap: tag  customer 1001  contact 17  its week tag is none, and should be 'open order'",
        "gap: outcome  2 entries have no outcome",
        "200 contacts were looked at, a sample of 2,000: the others may have gaps too.",
        "2 gaps",
    ]
    assert verified.asked == [VerifyRequest(sample=200)]


def test_a_repair_that_closed_every_gap_exits_with_0(run: Run, verified: Verifications) -> None:
    verified.answer = VerifyReport([], [GAP], 1, 2_000, is_sample=False, requests={})
    result = run("verify", "--customer", "1001", "--repair", "--events")
    assert result.code == 0
    assert result.out.splitlines()[1:] == ["1 contacts were looked at.", "0 gaps, 1 closed"]
    assert verified.asked == [VerifyRequest(200, CustomerId(1001), repair=True, events=True)]


def test_verify_as_json_lists_the_gaps_under_their_published_names(run: Run, verified: Verifications) -> None:
    answer = json.loads(run("verify", "--sample", "7", "--json").out)
    assert answer["gaps"][1] == {
        "kind": "outcome",
        "what": "2 entries have no outcome",
        "customer": None,
        "ac_contact_id": None,
    }
    assert (answer["closed"], answer["contacts_total"], answer["is_sample"]) == ([], 2_000, True)
    assert verified.asked[0].sample == 7


def test_verify_refuses_events_without_repair(run: Run, verified: Verifications) -> None:
    assert run("verify", "--events").code == 2
    assert verified.asked == []
