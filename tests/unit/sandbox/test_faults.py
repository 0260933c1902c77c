"""The sandbox's faults: which requests they strike, how often, and their texts."""

from __future__ import annotations

from typing import Any

import pytest

from kiva_stream.sandbox.activecampaign.contract import JSON_TYPE
from kiva_stream.sandbox.activecampaign.faults import Fault, FaultKind, Faults, parse_fault
from kiva_stream.sandbox.activecampaign.responses import Response, Silence
from kiva_stream.sandbox.activecampaign.service import API_PREFIX, Request
from tests.support.sandbox import SHOP, Caller

NAMES = ("Customer cancelled",)
EMPTY = Response(b"")


def kind_drawn(faults: Faults, path: str, body: bytes, method: str = "POST") -> FaultKind | None:
    fault = faults.draw(method, path, body)
    return fault.kind if fault else None


def test_a_fault_is_read_from_its_text() -> None:
    assert parse_fault("/event:500-after:0.05") == Fault(
        path="/event", kind=FaultKind.ERROR_AFTER, share=0.05, count=0
    )
    assert parse_fault("/contacts/*:hang:1:3") == Fault(
        path="/contacts/*", kind=FaultKind.HANG, share=1.0, count=3
    )


@pytest.mark.parametrize("kind", list(FaultKind))
def test_every_kind_has_a_text(kind: FaultKind) -> None:
    assert parse_fault(f"*:{kind}:1").kind is kind


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("/event", "is not PATH:KIND:SHARE"),
        ("/event:429:1:2:3", "is not PATH:KIND:SHARE"),
        ("event:429:1", "must be * or begin with /"),
        ("/event:418:1", "'418' is none of 500-before, 500-after"),
        ("/event:429:half", "the share 'half' must be above 0"),
        ("/event:429:0", "the share '0' must be above 0"),
        ("/event:429:1.5", "the share '1.5' must be above 0"),
        ("/event:429:nan", "the share 'nan' must be above 0"),
        ("/event:429:1:0", "the count '0' must be a whole number"),
        ("/event:429:1:few", "the count 'few' must be a whole number"),
    ],
)
def test_a_wrong_text_is_refused_with_a_sentence_that_names_the_problem(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match="fault") as caught:
        parse_fault(text)

    assert sentence in str(caught.value)


def test_a_counted_fault_strikes_exactly_that_often() -> None:
    faults = Faults([Fault(path="/event", kind=FaultKind.THROTTLED, count=2)])

    drawn = [kind_drawn(faults, "/event", b"") for _ in range(4)]

    assert drawn == [FaultKind.THROTTLED, FaultKind.THROTTLED, None, None]
    assert faults.drawn == {"429": 2}


def test_counted_faults_strike_one_after_another() -> None:
    script = [FaultKind.ERROR_BEFORE, FaultKind.THROTTLED, FaultKind.HTML_200]
    faults = Faults([Fault(path="/event", kind=kind, count=1) for kind in script])

    assert [kind_drawn(faults, "/event", b"") for _ in range(4)] == [*script, None]


def test_a_fault_strikes_its_share_of_the_requests_the_same_ones_every_time() -> None:
    def hits() -> list[bool]:
        faults = Faults([Fault(path="*", kind=FaultKind.THROTTLED, share=0.25)], seed=7)
        return [kind_drawn(faults, "/event", b"") is not None for _ in range(1000)]

    assert hits() == hits()
    assert 200 < sum(hits()) < 300


def test_a_fault_strikes_its_path_only() -> None:
    faults = Faults([Fault(path="/contacts/*/trackingLogs", kind=FaultKind.HANG)])

    assert kind_drawn(faults, "/contacts/17/trackingLogs", b"") is FaultKind.HANG
    assert kind_drawn(faults, "/contacts/17", b"") is None


def test_a_fault_may_strike_only_requests_that_contain_a_text_encoded_or_not() -> None:
    faults = Faults([Fault(path="*", kind=FaultKind.HANG, containing="at=1; log=17")])

    assert kind_drawn(faults, "/event", b"eventdata=at%3D1%3B+log%3D17") is FaultKind.HANG
    assert kind_drawn(faults, "/import/bulk_import", b'{"x": "at=1; log=17"}') is FaultKind.HANG
    assert kind_drawn(faults, "/event", b"eventdata=at%3D1%3B+log%3D18") is None


def test_a_fault_may_strike_only_requests_that_match_a_pattern_encoded_or_not() -> None:
    faults = Faults([Fault(path="*", kind=FaultKind.HANG, matching=r'"email": ?"(bad|worse)@')])

    assert (
        kind_drawn(faults, "/event", b"visit=%7B%22email%22%3A%22bad%40example.org%22%7D") is FaultKind.HANG
    )
    assert kind_drawn(faults, "/import/bulk_import", b'{"email": "worse@example.org"}') is FaultKind.HANG
    assert kind_drawn(faults, "/import/bulk_import", b'{"email": "ann@example.org"}') is None


def test_a_fault_may_strike_one_method_only() -> None:
    faults = Faults([Fault(path="/tags", method="POST", kind=FaultKind.HANG)])

    assert kind_drawn(faults, "/tags", b"", method="GET") is None
    assert kind_drawn(faults, "/tags", b"") is FaultKind.HANG


def test_a_fault_without_a_bound_strikes_until_it_is_lifted_by_its_name() -> None:
    poison = Fault(path="/event", kind=FaultKind.ERROR_BEFORE, name="poison")
    faults = Faults([poison, Fault(path="/tags", kind=FaultKind.HANG, name="other")])
    assert all(kind_drawn(faults, "/event", b"") for _ in range(50))

    faults.lift("poison")

    assert kind_drawn(faults, "/event", b"") is None
    assert kind_drawn(faults, "/tags", b"") is FaultKind.HANG


def test_a_fault_may_have_an_answer_of_its_own() -> None:
    fault = Fault(
        path="/event",
        kind=FaultKind.ANSWER_BEFORE,
        status=301,
        headers={"Location": "https://elsewhere.example"},
        text="moved",
    )

    reply = Caller(fault).post_event()

    assert reply == Response(b"moved", 301, headers={"Location": "https://elsewhere.example"})


def test_an_empty_200_may_follow_the_processing() -> None:
    caller = Caller(Fault(path="/contact/sync", kind=FaultKind.ANSWER_AFTER))

    body = b'{"contact": {"email": "ann@example.org"}}'
    sync = Request("POST", f"{API_PREFIX}/contact/sync", {}, SHOP.api_token, JSON_TYPE, body)

    assert caller.send(sync) == EMPTY
    assert caller.shop.contacts.find("ann@example.org")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kind": FaultKind.HANG, "matching": "("}, "is no regular expression"),
        ({"kind": FaultKind.HANG, "status": 504}, "are for answer-before and answer-after, not hang"),
    ],
)
def test_a_fault_that_contradicts_itself_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Fault(path="*", **settings)


@pytest.mark.parametrize("kind", list(FaultKind))
def test_only_kinds_that_end_in_after_leave_an_event_recorded(kind: FaultKind) -> None:
    caller = Caller(Fault(path="/event", kind=kind), tracking_enabled=True, event_names=NAMES)
    caller.contact()

    caller.post_event()

    applied = {"500-after", "answer-after", "hang-after", "reset-after"}
    assert len(caller.shop.events) == (1 if kind in applied else 0)


@pytest.mark.parametrize(
    ("kind", "status", "content_type"),
    [
        (FaultKind.ERROR_BEFORE, 500, "application/json"),
        (FaultKind.ERROR_AFTER, 500, "application/json"),
        (FaultKind.HTML_503, 503, "text/html"),
        (FaultKind.HTML_200, 200, "text/html"),
        (FaultKind.THROTTLED, 429, "application/json"),
        (FaultKind.FORBIDDEN, 403, "application/json"),
        (FaultKind.LAPSED, 402, "application/json"),
        (FaultKind.REFUSED_EVENT, 200, "application/json"),
    ],
)
def test_a_fault_has_the_response_of_its_name(kind: FaultKind, status: int, content_type: str) -> None:
    reply = Caller(Fault(path="/event", kind=kind)).post_event()

    assert isinstance(reply, Response)
    assert (reply.status, reply.content_type) == (status, content_type)


def test_a_fault_of_silence_gives_no_response() -> None:
    assert Caller(Fault(path="/event", kind=FaultKind.HANG)).post_event() is Silence.HANG
    assert Caller(Fault(path="/event", kind=FaultKind.HANG_AFTER)).post_event() is Silence.HANG
    assert Caller(Fault(path="/event", kind=FaultKind.RESET_BEFORE)).post_event() is Silence.RESET
    assert Caller(Fault(path="/event", kind=FaultKind.RESET_AFTER)).post_event() is Silence.RESET


def test_a_throttling_fault_is_no_breach_of_the_client() -> None:
    caller = Caller(Fault(path="/tags", kind=FaultKind.THROTTLED))

    assert caller.call("GET", "/tags")[0] == 429
    assert caller.shop.tally.breaches == {}
