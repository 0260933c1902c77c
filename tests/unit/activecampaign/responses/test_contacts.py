"""What the answers about contacts mean."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from kiva_stream.activecampaign.responses.contacts import (
    parse_contact_lookup,
    parse_contact_page,
    parse_renamed_contact,
    parse_upserted_contact,
)
from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.errors import (
    AccountRefused,
    AddressTaken,
    ContactGone,
    DeliveryError,
    ForeignAnswer,
    Rejected,
    TryLater,
)
from kiva_stream.model.ids import Email
from tests.unit.activecampaign.responses.builders import DUPLICATE, HTML, answer, is_accepted, raised

ANN = Email("ann@example.org")


@pytest.mark.parametrize(
    ("contacts", "found_id"),
    [
        ([], None),
        ([{"id": "1", "email": "Ann@Example.org"}], 1),
        ([{"id": "1", "email": "joann@example.org"}], None),
        ([{"id": "1", "email": "joann@example.org"}, {"id": 2, "email": "ann@example.org"}], 2),
        ([{"id": "1", "email": None}], None),
    ],
)
def test_a_contact_is_found_by_its_whole_address(contacts: object, found_id: int | None) -> None:
    assert parse_contact_lookup(answer(200, {"contacts": contacts}), ANN) == found_id


def test_an_address_that_activecampaign_does_not_take_is_of_no_contact() -> None:
    assert parse_contact_lookup(answer(422, {"errors": []}), ANN) is None


@pytest.mark.parametrize("parse", [partial(parse_contact_lookup, email=ANN), parse_contact_page])
@pytest.mark.parametrize("body", [{}, {"contacts": [{}]}, {"contacts": [{"email": "ann@example.org"}]}, b""])
def test_a_listing_without_contacts_in_it_is_tried_later(
    parse: Callable[[Response], Any], body: object
) -> None:
    assert type(raised(parse, answer(200, body))) is TryLater


def test_a_page_of_contacts_has_their_addresses_in_lower_case_and_keeps_the_last_id() -> None:
    contacts = [
        {"id": "3", "email": " Ann@Example.org", "firstName": "Ann"},
        {"id": "5", "email": ""},
        {"id": "7", "email": None},
        {"id": "8"},
    ]

    assert parse_contact_page(answer(200, {"contacts": contacts, "meta": {"total": "4"}})) == {
        "ann@example.org": 3,
        "": 8,
    }


def test_a_page_without_contacts_is_empty() -> None:
    assert parse_contact_page(answer(200, {"contacts": []})) == {}


@pytest.mark.parametrize("number", ["115", 115])
@pytest.mark.parametrize("status", [200, 201])
def test_the_id_of_a_contact_is_read_from_what_was_created_or_updated(status: int, number: object) -> None:
    assert (
        parse_upserted_contact(answer(status, {"contact": {"id": number, "email": "x"}, "fieldValues": []}))
        == 115
    )


@pytest.mark.parametrize(
    ("body", "meaning"),
    [({}, TryLater), ({"contact": {}}, TryLater), ({"contact": None}, TryLater), (HTML, ForeignAnswer)],
)
def test_a_contact_without_an_id_is_tried_later(body: object, meaning: type[TryLater]) -> None:
    assert type(raised(parse_upserted_contact, answer(200, body))) is meaning


def test_a_contact_that_is_refused_is_rejected() -> None:
    assert (
        type(raised(parse_upserted_contact, answer(422, {"errors": [{"code": "email_invalid"}]}))) is Rejected
    )


def test_a_contact_is_renamed_if_the_answer_shows_it() -> None:
    assert is_accepted(parse_renamed_contact, answer(200, {"contact": {"id": "1"}}))


@pytest.mark.parametrize(
    ("response", "meaning"),
    [
        (answer(422, DUPLICATE), AddressTaken),
        (answer(404, {"message": "No Result found for Subscriber with id 1"}), ContactGone),
        (answer(404), ContactGone),
        (answer(404, HTML), ForeignAnswer),
        (answer(422, {"errors": [{"code": "email_invalid"}]}), Rejected),
        (answer(405, {}), AccountRefused),
        (answer(200, {}), TryLater),
        (answer(500), TryLater),
    ],
)
def test_a_refused_address_is_taken_wrong_or_of_a_contact_that_is_gone(
    response: Response, meaning: type[DeliveryError]
) -> None:
    assert type(raised(parse_renamed_contact, response)) is meaning


def test_an_address_that_is_taken_is_masked_in_the_error() -> None:
    body = {"errors": [{"title": "ann@example.org is in use", "code": "duplicate"}]}
    error = raised(parse_renamed_contact, answer(422, body))

    assert isinstance(error, AddressTaken)
    assert "[address] is in use" in error.reply
