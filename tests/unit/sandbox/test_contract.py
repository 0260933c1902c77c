"""Which requests the sandbox accepts, and what it counts as a breach."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiva_stream.sandbox.activecampaign.contract import FORM_TYPE, contract, is_event_form
from kiva_stream.sandbox.activecampaign.responses import Response
from kiva_stream.sandbox.activecampaign.service import Request
from tests.support.sandbox import SHOP, Caller, event_form

_TEXTS = st.sampled_from(
    ["", "1", "12", "x", "1\n", "٣", "a" * 32, "a" * 33, '{"email": "a@b.co"}', '"email"']
)
_FORMS = st.dictionaries(st.sampled_from(["actid", "key", "event", "eventdata", "visit", "tags"]), _TEXTS)


@given(st.one_of(_FORMS, _FORMS.map(lambda form: event_form("ann@example.org") | form)))
def test_the_quick_check_of_an_event_agrees_with_the_schema(form: dict[str, str]) -> None:
    found = contract().find("POST", "/event")
    assert found

    assert is_event_form(form) == (found[0].body_problems(form, 0) == [])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/eventTracking", {"eventTracking": {"enabled": "yes"}}),
        ("/contact/sync", {"contact": {"email": "ann@example.org", "first_name": "Ann"}}),
        ("/contact/sync", {"contact": {"email": "no address"}}),
        ("/contact/sync", {"contact": {}}),
        ("/eventTrackingEvents", {"eventTrackingEvent": {"name": "x" * 33}}),
        ("/contactTags", {"contactTag": {"contact": 1, "tag": "open order"}}),
        ("/fields", {"field": {"title": "Kiva Status", "type": "string"}}),
        ("/ecom/graphql", {"variables": {}}),
        ("/tags", []),
        ("/tags", {"tag": {"tag": "open order"}}),
    ],
)
def test_a_body_that_fails_its_schema_is_refused_and_counted(path: str, body: object) -> None:
    caller = Caller()
    method = "PUT" if path == "/eventTracking" else "POST"

    status, _ = caller.call(method, path, body)

    assert status in {400, 422}
    assert caller.shop.tally.breaches == {"schema": 1}
    assert len(caller.shop.contacts) == 0


def test_an_address_that_fails_its_schema_is_answered_as_an_invalid_address() -> None:
    _, answer = Caller().call("POST", "/contact/sync", {"contact": {"email": "ann@nowhere"}})

    assert answer["errors"][0]["code"] == "email_invalid"
    assert answer["errors"][0]["error"] == "must_be_valid_email_address"


def test_a_sync_without_an_address_is_a_bad_request() -> None:
    status, answer = Caller().call("POST", "/contact/sync", {"contact": {"firstName": "Ann"}})

    assert (status, answer["errors"][0]["detail"]) == (400, "Contact email must be provided for sync")


@pytest.mark.parametrize(
    "query", [{"limit": "101"}, {"limit": "0"}, {"limit": "all"}, {"offset": "-1"}, {"page": "2"}]
)
def test_a_query_that_fails_its_schema_is_refused_and_counted(query: dict[str, str]) -> None:
    caller = Caller()

    assert caller.call("GET", "/tags", query=query)[0] == 422
    assert caller.shop.tally.breaches == {"schema": 1}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/campaigns"),
        ("DELETE", "/tags"),
        ("GET", "/contacts/ann"),
        ("POST", "/ecomOrders"),  # in the contract, but nothing the project uses
    ],
)
def test_an_unknown_operation_is_404_and_counted(method: str, path: str) -> None:
    caller = Caller()

    assert caller.call(method, path) == (404, {"message": "Not Found"})
    assert caller.shop.tally.breaches == {"unknown_operation": 1}


def test_a_path_outside_the_api_is_404_and_counted() -> None:
    caller = Caller()

    reply = caller.send(Request("GET", "/contacts", {}, SHOP.api_token, "", b""))

    assert isinstance(reply, Response)
    assert reply.status == 404
    assert caller.shop.tally.breaches == {"unknown_operation": 1}


def test_a_body_of_the_wrong_content_type_is_refused_and_counted() -> None:
    caller = Caller()
    body = b'{"contact": {"email": "ann@example.org"}}'

    reply = caller.send(Request("POST", "/api/3/contact/sync", {}, SHOP.api_token, "text/plain", body))

    assert isinstance(reply, Response)
    assert reply.status == 400
    assert caller.shop.tally.breaches == {"content_type": 1}
    assert len(caller.shop.contacts) == 0


def test_a_body_that_is_no_json_is_refused_and_counted() -> None:
    caller = Caller()

    reply = caller.send(Request("POST", "/api/3/tags", {}, SHOP.api_token, "application/json", b"{"))

    assert isinstance(reply, Response)
    assert reply.status == 400
    assert caller.shop.tally.breaches == {"schema": 1}


@pytest.mark.parametrize(
    "changes",
    [{"actid": "shop"}, {"key": ""}, {"event": "x" * 33}, {"visit": "ann@example.org"}, {"when": "now"}],
)
def test_an_event_that_fails_its_schema_is_refused_and_counted(changes: dict[str, str]) -> None:
    caller = Caller(tracking_enabled=True, event_names=("Customer cancelled",))

    assert caller.event(**changes) == (400, {})
    assert breaches(caller) == {"schema": 1}


def test_an_event_whose_visit_is_no_json_with_an_address_is_refused_and_counted() -> None:
    caller = Caller(tracking_enabled=True, event_names=("Customer cancelled",))

    assert caller.event(visit='{"email": ')[0] == 400
    assert caller.event(visit='{"email": 7}')[0] == 400
    assert caller.shop.tally.breaches == {"schema": 2}


def test_an_event_without_an_actid_is_answered_with_that_message() -> None:
    caller = Caller()

    reply = caller.send(
        Request("POST", "/event", {}, None, FORM_TYPE, b"key=k&event=e&visit=%7B%22email%22%7D")
    )

    assert isinstance(reply, Response)
    assert reply.body == b'{"success":0,"message":"An account ID must be provided."}'
    assert breaches(caller) == {"schema": 1}


@pytest.mark.parametrize("body", [b"", b"actid", b"\xff"])
def test_an_event_that_is_no_form_is_refused_and_counted(body: bytes) -> None:
    caller = Caller()

    reply = caller.send(Request("POST", "/event", {}, None, FORM_TYPE, body))

    assert isinstance(reply, Response)
    assert breaches(caller) == {"schema": 1}


def test_an_event_of_the_wrong_content_type_is_refused_and_counted() -> None:
    caller = Caller(tracking_enabled=True, event_names=("Customer cancelled",))
    body = urlencode(event_form("ann@example.org")).encode()

    reply = caller.send(Request("POST", "/event", {}, None, "text/plain", body))

    assert isinstance(reply, Response)
    assert reply.status == 400
    assert breaches(caller) == {"content_type": 1}
    assert caller.shop.events_without_contact == []


def test_an_event_with_a_field_twice_is_refused_and_counted() -> None:
    caller = Caller(tracking_enabled=True, event_names=("Customer cancelled",))
    form = event_form("ann@example.org")
    body = urlencode([*form.items(), ("key", form["key"])]).encode()

    reply = caller.send(Request("POST", "/event", {}, None, FORM_TYPE, body))

    assert isinstance(reply, Response)
    assert breaches(caller) == {"schema": 1}
    assert caller.shop.events_without_contact == []


def test_an_event_with_another_method_than_post_is_refused() -> None:
    caller = Caller()

    reply = caller.send(Request("GET", "/event", {}, None, FORM_TYPE, b""))

    assert isinstance(reply, Response)
    assert reply.status == 404
    assert breaches(caller) == {"unknown_operation": 1}


def test_a_breach_keeps_an_example_in_words() -> None:
    caller = Caller()
    caller.call("POST", "/tags", {"tag": {"tag": "open order"}})

    assert list(caller.shop.tally.examples) == ["schema: createTag: 'tagType' is a required property"]


def breaches(caller: Caller) -> dict[str, Any]:
    return dict(caller.shop.tally.breaches + caller.service.unattributed.breaches)
