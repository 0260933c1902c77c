"""The table of what the answers of REST mean, row by row."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.activecampaign.responses.rest import (
    Duplicate,
    parse_by_contact_id,
    parse_deleted,
    parse_rest,
)
from kiva_stream.errors import (
    AccountRefused,
    ContactGone,
    DeliveryError,
    ForeignAnswer,
    Rejected,
    TryLater,
)
from tests.unit.activecampaign.responses.builders import (
    DUPLICATE,
    HTML,
    REST_PARSERS,
    Thing,
    answer,
    parse_import,
    parse_thing,
    raised,
)


def test_the_body_is_returned_in_the_shape_asked_for() -> None:
    assert parse_rest(answer(200, {"id": "7", "more": []}), Thing) == Thing(7)
    assert parse_rest(answer(201, {"id": 7}), Thing) == Thing(7)


def test_only_what_stands_under_the_key_is_returned() -> None:
    assert parse_rest(answer(200, {"thing": {"id": "7"}, "id": 8}), Thing, key="thing") == Thing(7)


@pytest.mark.parametrize("body", [{}, {"thing": None}, {"thing": [7]}, {"other": {"id": 7}}])
def test_an_answer_without_the_key_is_no_answer(body: object) -> None:
    parse = partial(parse_rest, shape=Thing, key="thing")
    assert type(raised(parse, answer(200, body))) is TryLater


@pytest.mark.parametrize("parse", REST_PARSERS)
@pytest.mark.parametrize(
    "response",
    [
        answer(200, b""),
        answer(200, {"surprise": 1}),
        answer(200, b"\xff"),
        answer(204),
        answer(408),
        answer(425),
        answer(499, {"message": "Client Closed Request"}),
        *(answer(status) for status in (500, 502, 503, 504, 520, 521, 525, 526, 590)),
        answer(500, {"id": 1, "batchId": "x", "status": "completed"}),
    ],
)
def test_an_answer_that_is_missing_or_unreadable_is_tried_later(
    parse: Callable[[Response], Any], response: Response
) -> None:
    error = raised(parse, response)

    assert type(error) is TryLater
    assert error.after_s is None


@pytest.mark.parametrize("parse", REST_PARSERS)
@pytest.mark.parametrize(
    "response",
    [
        *(answer(status) for status in (300, 301, 302, 303, 304, 307, 308)),
        answer(301, {"id": 7}),
        *(answer(status, HTML) for status in (200, 201, 301, 400, 404, 405, 422)),
        answer(200, BOM_UTF8 + b"\r\n <!DOCTYPE html>"),
    ],
)
def test_a_redirect_or_a_page_is_the_answer_of_another_server(
    parse: Callable[[Response], Any], response: Response
) -> None:
    error = raised(parse, response)

    assert type(error) is ForeignAnswer
    assert error.after_s is None


@pytest.mark.parametrize("parse", [parse_thing, parse_import])
@pytest.mark.parametrize("status", [404, 405, 406, 410, 415, 421, 451])
@pytest.mark.parametrize("body", [b"", b"404 page not found", b"\xff", b"[1]"])
def test_a_refusal_that_is_no_json_object_is_the_answer_of_another_server(
    parse: Callable[[Response], Any], status: int, body: bytes
) -> None:
    assert type(raised(parse, answer(status, body))) is ForeignAnswer


def test_where_a_redirect_leads_is_named_without_secrets() -> None:
    there = "https://green.example/login?key=the-key&of=ann@example.org"
    error = raised(parse_thing, Response(302, b"", secrets=("the-key",), location=there))

    assert "302 to https://green.example/login" in str(error)
    assert "the-key" not in str(error)
    assert "ann@" not in str(error)


@pytest.mark.parametrize(
    "response",
    [
        answer(422, {"errors": [{"title": "Email is not valid", "code": "email_invalid"}]}),
        answer(422, {"errors": "a bare text"}),
        answer(422, {"errors": [{"title": "The connection service was not provided."}]}),
        answer(422, b"\xff"),
        answer(422),
        answer(400, {"errors": [{"status": 400, "title": "Bad Request"}]}),
        answer(400, DUPLICATE),
        answer(409, {}),
        answer(413, {}),
    ],
)
def test_a_refusal_of_one_object_rejects_it(response: Response) -> None:
    assert type(raised(parse_thing, response)) is Rejected


def test_a_404_for_an_id_rejects_the_object_or_says_that_the_contact_is_gone() -> None:
    response = answer(404, {"message": "No Result found for Subscriber with id 1"})

    assert type(raised(partial(parse_by_contact_id, shape=Thing), response)) is ContactGone
    assert type(raised(partial(parse_rest, shape=Thing, by_id=True), response)) is Rejected


@pytest.mark.parametrize("parse", [parse_thing, parse_import])
@pytest.mark.parametrize("status", [404, 405, 406, 410, 415, 421, 451])
@pytest.mark.parametrize("body", [{}, {"message": "Not Found"}])
def test_an_api_without_such_a_call_refuses_the_account_and_names_api_url(
    parse: Callable[[Response], Any], status: int, body: object
) -> None:
    error = raised(parse, answer(status, body))

    assert type(error) is AccountRefused
    assert "api_url" in str(error)


def test_a_422_with_the_code_duplicate_is_a_duplicate() -> None:
    assert type(raised(parse_thing, answer(422, DUPLICATE))) is Duplicate


def test_a_deletion_says_whether_the_object_existed() -> None:
    assert parse_deleted(answer(200, {})) is True
    assert parse_deleted(answer(404, {"message": "No Result found for Subscriber with id 1"})) is False


@pytest.mark.parametrize(("status", "meaning"), [(422, Rejected), (403, AccountRefused), (500, TryLater)])
def test_a_deletion_that_fails_raises(status: int, meaning: type[DeliveryError]) -> None:
    assert type(raised(parse_deleted, answer(status, {}))) is meaning
