"""Whom an entry without a customer is about."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiva_stream.model.event_catalog import CATALOG
from kiva_stream.source.identity import claimed, needs_customer


def text_of(data: object) -> str:
    return msgspec.json.encode(data).decode()


@pytest.mark.parametrize(
    "message",
    [
        "Customer #5123 (Ann Lee) made a substitution: Kale -> Apples",
        "customer #5123 (Ann Lee) logged in",
        "  Customer #5123 (Ann (Annie) Lee) logged in",
        "Customer #5123 () logged in",
        "Customer #5123 (Ann Lee) was seen by bob@example.com",
    ],
)
def test_a_numbered_actor_at_the_start_of_a_legacy_text_names_its_customer(message: str) -> None:
    assert claimed(None, message, None) == 5123


@pytest.mark.parametrize(
    "message",
    [
        "wayne logged in as customer #5123",
        "wayne logged in as customer #5123 (Ann Lee) today",
        "Note: Customer #5123 (Ann Lee) cancelled",
        "Customer #5123 logged in",
        "Customer #51x (Ann Lee) logged in",
        "Order #5123 (Ann Lee) logged in",
    ],
)
def test_a_number_anywhere_else_names_no_customer(message: str) -> None:
    assert claimed(None, message, None) is None


@pytest.mark.parametrize("number", [2**63, 10**18 * 9999])
def test_a_number_that_no_customer_can_have_names_no_customer(number: int) -> None:
    assert claimed(None, f"Customer #{number} (Ann Lee) logged in", None) is None
    assert claimed(None, f"Customer #{2**63 - 1} (Ann Lee) logged in", None) == 2**63 - 1


@pytest.mark.parametrize(
    "message",
    [
        "Unsubscribed email Ann@example.com",
        "Submitted Contact Form: delivery question from ann@example.com",
        "Ann Lee unsubscribed email ann@example.com.",
        "New customer signup: Ann Lee, ann@example.com",
    ],
)
def test_an_address_in_a_legacy_text_that_tells_of_an_event_names_its_person(message: str) -> None:
    assert claimed(None, message, None) == "ann@example.com"


@pytest.mark.parametrize(
    "message",
    [
        "Menu e-mail sent to ann@example.com",
        "Called ann@example.com, she said she cancelled",
    ],
)
def test_an_address_in_a_text_that_is_no_event_names_no_customer(message: str) -> None:
    assert claimed(None, message, None) is None


def test_a_structured_row_names_its_person_by_the_address_in_its_data() -> None:
    assert claimed("email.unsubscribe", "", text_of({"email": " Ann@Example.com "})) == "ann@example.com"


@pytest.mark.parametrize(
    "data",
    [
        None,
        "null",
        "[]",
        '"ann@example.com"',
        "{}",
        '{"email": null}',
        '{"email": 5}',
        '{"email": ["ann@example.com"]}',
        '{"email": "n/a"}',
        '{"emails": ["bob@example.com"]}',
        '{"email": "ann@example.com"',
        '{"email": "\ud800"}',
        '{"email": ' + "[" * 100_000,
    ],
)
def test_data_without_a_usable_address_names_no_customer(data: str | None) -> None:
    assert claimed("contact.form", "Customer #5123 (Ann Lee) wrote to ann@example.com", data) is None


def test_no_customer_is_looked_for_on_rows_that_are_noise_by_their_action() -> None:
    for code in CATALOG.noise:
        assert not needs_customer(code.replace("*", "anything"))


def test_a_customer_is_looked_up_for_every_row_but_noise() -> None:
    actions = [action for line in CATALOG.events for action in line.actions]
    for action in [*actions, *CATALOG.sync_only, "never.seen", "", None]:
        assert needs_customer(action)


@given(st.none() | st.text(), st.text(), st.none() | st.text())
def test_no_row_is_too_odd_to_look_at(action: str | None, message: str, data: str | None) -> None:
    assert isinstance(claimed(action, message, data), int | str | None)
