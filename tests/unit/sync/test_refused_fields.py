"""Refused fields: which value a refusal names, in the wordings that public clients report."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kiva_stream.model.contacts import (
    Contact,
    ContactRecord,
    ContactStatus,
    DesiredContact,
    LeftOut,
    ListStatus,
)
from kiva_stream.model.ids import ContactId, Email
from kiva_stream.sync.refused_fields import (
    left_out,
    names_field_id,
    names_value,
    refused_field,
    value_hash,
    without,
)

ANN = DesiredContact(
    email=Email("ann@example.org"),
    first_name="Annabel",
    last_name="Lee",
    phone="+1 555 0100",
    customer_id="5",
    list_status=ListStatus.KEEP,
    status="active",
    next_delivery="2030-01-07",
    birthday="1990-02-03",
)
RECORD = ContactRecord(Contact(ContactId(7), ANN.email, ContactStatus.LINKED), (), None)


def at(pointer: str, title: str = "It is invalid") -> str:
    return f'422 {{"errors":[{{"title":"{title}","source":{{"pointer":"{pointer}"}}}}]}}'


@pytest.mark.parametrize(
    ("reply", "field"),
    [
        (at("/data/attributes/phone"), "phone"),
        (at(r"\/data\/attributes\/phone"), "phone"),
        (at("/data/attributes/firstName"), "first_name"),
        (at("/data/attributes/last_name"), "last_name"),
        (at("/data/attributes/email", "The phone's owner has another e-mail"), None),
        (at("/data/attributes/fieldValues/3", "The birthday"), None),
        ("Phone number is invalid.", "phone"),
        ("The telephone has letters", "phone"),
        ("First Name is too long", "first_name"),
        ("last-name: unacceptable", "last_name"),
        ("Birthday must be in the past", "birthday"),
        ("'+1 555 0100' is not valid", "phone"),
        ("The value 1990-02-03 of field 4 is invalid.", "birthday"),
        ("The value active of field 4 is invalid.", None),
        ("Field 4 (Birthday) does not exist", None),
        ("Birthday: field id 4 is unknown", None),
        ("microphone", None),
        ("Lee is no name", None),  # so short a value may be part of any text
        ("Bad Request", None),
        ("", None),
    ],
)
def test_a_refusal_names_an_optional_field_by_value_pointer_or_name(reply: str, field: str | None) -> None:
    assert refused_field(reply, ANN) == field


def test_a_field_that_was_not_sent_is_not_named() -> None:
    assert refused_field("Phone number is invalid.", replace(ANN, phone="")) is None
    assert refused_field("Phone number is invalid.", without(ANN, ["phone"])) is None


def test_a_value_that_two_fields_have_names_neither() -> None:
    assert refused_field("Annabel is invalid", replace(ANN, last_name="Annabel")) is None


@pytest.mark.parametrize(
    ("reply", "of_value", "of_field"),
    [
        ("Email [address] is invalid.", True, False),
        ("Phone number is invalid.", True, False),
        ("The value active of field 4 is invalid.", True, False),
        ("Field 4 does not exist", False, True),
        ("Unknown field id", False, True),
        ("Bad Request", False, False),
    ],
)
def test_a_refusal_is_about_a_value_or_a_custom_field_or_neither(
    reply: str, *, of_value: bool, of_field: bool
) -> None:
    assert (names_value(reply, ANN), names_field_id(reply, ANN)) == (of_value, of_field)


def test_a_value_is_left_out_until_it_changes() -> None:
    refused = replace(RECORD, left_out={"phone": LeftOut(value_hash(ContactId(7), ANN.phone or ""), "no")})
    assert left_out(refused, ANN) == ["phone"]
    assert left_out(refused, replace(ANN, phone="+1 555 0101")) == []
    assert left_out(refused, replace(ANN, phone="")) == []
    assert left_out(RECORD, ANN) == []


def test_the_hash_of_a_value_is_the_contacts_own() -> None:
    assert value_hash(ContactId(7), "1990-02-03") != value_hash(ContactId(8), "1990-02-03")
