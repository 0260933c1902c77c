"""What holds for the answers of every call: throttling, refusal of the account, masked quotations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from kiva_stream.activecampaign.responses.bulk_imports import parse_import_report
from kiva_stream.activecampaign.responses.contacts import parse_renamed_contact
from kiva_stream.activecampaign.responses.events import parse_event
from kiva_stream.activecampaign.responses.response import EXCERPT_CHARS, Response
from kiva_stream.activecampaign.responses.tags import parse_added_tag
from kiva_stream.errors import AccountRefused, Rejected, TryLater, UnknownOutcome
from tests.unit.activecampaign.responses.builders import (
    ALL_PARSERS,
    HTML,
    answer,
    parse_import,
    parse_orders,
    parse_thing,
    raised,
)


@pytest.mark.parametrize("parse", ALL_PARSERS)
@pytest.mark.parametrize("body", [b"", HTML, {"message": "Too Many Requests"}, {"success": 0}])
@pytest.mark.parametrize(
    ("status", "retry_after", "after_s"),
    [
        (429, "30", 30),
        (429, "0", 0),
        (503, "7", 7),
        (429, None, 30),
        (503, "Sun, 06 Nov 1994 08:49:37 GMT", 30),
    ],
)
def test_throttling_is_tried_later_after_the_wait_that_is_asked_for(
    parse: Callable[[Response], Any], body: object, status: int, retry_after: str | None, after_s: float
) -> None:
    error = raised(parse, answer(status, body, retry_after))

    assert type(error) is TryLater
    assert error.after_s == after_s


@pytest.mark.parametrize("parse", ALL_PARSERS)
@pytest.mark.parametrize("status", [401, 402, 403])
@pytest.mark.parametrize("body", [b"", {"message": "Forbidden"}, {"success": 0}, HTML])
def test_401_402_and_403_refuse_the_account_but_for_a_proxys_403_of_an_event(
    parse: Callable[[Response], Any], status: int, body: object
) -> None:
    is_about_event = parse is parse_event and status == 403 and body == HTML
    meaning = UnknownOutcome if is_about_event else AccountRefused
    assert type(raised(parse, answer(status, body))) is meaning


@pytest.mark.parametrize("parse", ALL_PARSERS)
@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_challenge_page_is_told_as_a_proxys_and_not_as_a_wrong_key(
    parse: Callable[[Response], Any], status: int
) -> None:
    page = b"\n<!DOCTYPE html><html><title>Just a moment...</title></html>"

    assert "A proxy before ActiveCampaign refuses this machine" in str(raised(parse, answer(status, page)))
    assert "refuses the key" in str(raised(parse, answer(status, {"message": "Forbidden"})))


@pytest.mark.parametrize(
    ("parse", "status", "body"),
    [
        (parse_event, 200, {"success": 0, "message": "refused: {}"}),
        (parse_event, 200, {"success": 0, "message": "Unknown event name of {}"}),
        (parse_event, 200, {"success": 0, "message": "Invalid event key {}"}),
        (parse_event, 500, {"trace": "{}"}),
        (parse_event, 429, {"trace": "{}"}),
        (parse_event, 404, {"trace": "{}"}),
        (parse_thing, 403, {"message": "{}"}),
        (parse_thing, 422, {"errors": [{"title": "{}"}]}),
        (parse_thing, 422, {"errors": [{"title": "{}", "code": "duplicate"}]}),
        (parse_thing, 200, {"title": "{}"}),
        (parse_thing, 502, {"title": "{}"}),
        (parse_import, 400, {"message": "no", "failureReasons": [{"contact": 1, "failureReason": "{}"}]}),
        (parse_import, 400, {"message": "{}"}),
        (parse_import, 400, {"message": "Rate limit exceeded. {}"}),
        (parse_import_report, 500, {"title": "{}"}),
        (parse_renamed_contact, 422, {"errors": [{"title": "{}", "code": "duplicate"}]}),
        (parse_renamed_contact, 404, {"message": "{}"}),
        (parse_added_tag, 422, {"message": "{}"}),
        (parse_orders, 200, {"errors": [{"message": "{}"}]}),
        (parse_orders, 200, {"errors": [{"message": "no", "extensions": {"x-storeOrderId-4": "{}"}}]}),
        (parse_orders, 422, {"message": "{}"}),
        (parse_orders, 413, {"message": "{}"}),
        (parse_orders, 200, {"data": None, "more": "{}"}),
    ],
)
@pytest.mark.parametrize(
    "secret", ["tok+en/1", "tok%2Ben%2F1", "event-key", "ann.o'nym+x@example.org", "ann%40example.org"]
)
def test_no_error_repeats_a_secret_or_an_address(
    parse: Callable[[Response], Any], status: int, body: object, secret: str
) -> None:
    text = msgspec.json.encode(body).decode().replace("{}", f"x {secret} y")
    error = raised(parse, Response(status, text.encode(), None, ("tok+en/1", "event-key")))
    kept = f"{error} {vars(error)} {error.__cause__!r}"

    assert secret not in kept
    assert "example.org" not in kept


def test_the_repr_of_a_response_masks_its_secrets() -> None:
    assert "event-key" not in repr(Response(200, b"the parse_event-key", None, ("event-key",)))


def test_an_error_quotes_only_the_beginning_of_an_answer() -> None:
    error = raised(parse_thing, answer(422, b"{" + b"long\n" * 1_000))

    assert isinstance(error, Rejected)
    assert len(error.reply) <= EXCERPT_CHARS + 4
    assert "\n" not in error.reply
