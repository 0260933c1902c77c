"""The table of what the answers of event tracking mean, row by row."""

from __future__ import annotations

import pytest

from kiva_stream.activecampaign.responses.events import (
    UnknownEventName,
    error_after_registration,
    parse_event,
)
from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.errors import AccountRefused, DeliveryError, Rejected, UnknownOutcome
from tests.unit.activecampaign.responses.builders import HTML, answer, is_accepted, raised, refused


@pytest.mark.parametrize(
    "body",
    [
        {"success": 1, "message": "Event spawned"},
        {"success": 1},
        {"success": "1", "message": "Event spawned"},
        b"1",
        b" 1\n",
    ],
)
def test_an_event_is_recorded_if_the_body_has_success_1(body: object) -> None:
    assert is_accepted(parse_event, answer(200, body))
    assert is_accepted(parse_event, answer(201, body))


@pytest.mark.parametrize(
    "message",
    [
        "An account ID must be provided.",
        "Invalid event key.",
        "Unknown event key",
        "Event tracking is not enabled.",
        "Tracking is disabled for this actid",
        "Authentication failed",
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_a_text_about_the_key_the_account_or_tracking_refuses_the_account(message: str, status: int) -> None:
    assert type(raised(parse_event, refused(message, status))) is AccountRefused


@pytest.mark.parametrize(
    "message",
    [
        "Unknown event name.",
        "Unknown event for this account",
        "Event 'Customer cancelled' does not exist",
        "The event is not registered",
        "Invalid event",
    ],
)
def test_a_text_about_the_name_of_the_event_is_an_unknown_event_name(message: str) -> None:
    error = raised(parse_event, refused(message))

    assert type(error) is UnknownEventName
    assert error.message == message


@pytest.mark.parametrize("body", [b"0", {"success": 0}, {"success": "0"}, {"success": 0, "message": ""}])
def test_a_bare_0_is_an_unknown_event_name(body: object) -> None:
    error = raised(parse_event, answer(200, body))

    assert type(error) is UnknownEventName
    assert error.message == ""


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("", AccountRefused),
        ("Unknown event name: event tracking is off", AccountRefused),
        ("Unknown event name.", Rejected),
    ],
)
def test_a_name_unknown_after_its_registration_rejects_the_event_only_if_the_answer_says_so(
    said: str, meaning: type[DeliveryError]
) -> None:
    assert type(error_after_registration(UnknownEventName(said))) is meaning


def test_any_other_success_0_rejects_the_event_and_quotes_the_answer() -> None:
    error = raised(parse_event, refused("Event could not be saved."))

    assert type(error) is Rejected
    assert "Event could not be saved." in error.reply


@pytest.mark.parametrize(
    "response",
    [
        answer(200, HTML),
        answer(200, b""),
        answer(200, {"ok": True}),
        answer(200, {"success": 7}),
        answer(200, {"success": True}),
        answer(200, b"\xff\xfe"),
        answer(204),
        answer(302, b""),
        *(answer(status, {"success": success}) for status in (301, 308) for success in (0, 1)),
        answer(307, {"success": 0, "message": "Invalid event key."}),
        answer(403, HTML),
        answer(404, HTML),
        answer(400, {"success": 1}),
        *(answer(status, body) for status in (408, 425, 499) for body in (b"", {"success": 0})),
        *(answer(status) for status in (500, 502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 590)),
        answer(500, {"success": 1}),
        answer(500, {"success": 0, "message": "Invalid event key."}),
        answer(503, HTML),
    ],
)
def test_an_event_whose_answer_does_not_say_whether_it_is_recorded_is_of_unknown_outcome(
    response: Response,
) -> None:
    assert type(raised(parse_event, response)) is UnknownOutcome


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("body", [{}, b"", {"message": "no"}, {"success": 0, "message": "no"}])
def test_any_other_refusal_of_one_event_rejects_it(status: int, body: object) -> None:
    assert type(raised(parse_event, answer(status, body))) is Rejected


@pytest.mark.parametrize("body", [{}, b"", b"<html>too large</html>", {"success": 0, "message": "no"}])
def test_a_proxy_that_calls_an_event_too_large_refuses_neither_it_nor_the_account(body: object) -> None:
    assert type(raised(parse_event, answer(413, body))) is UnknownOutcome


@pytest.mark.parametrize("status", [404, 405, 406, 409, 410, 415, 421, 451])
@pytest.mark.parametrize("body", [{}, b"", b"404 page not found", {"success": 0, "message": "no"}])
def test_a_status_that_no_event_causes_refuses_the_account_and_names_event_url(
    status: int, body: object
) -> None:
    error = raised(parse_event, answer(status, body))

    assert type(error) is AccountRefused
    assert "event_url" in str(error)
