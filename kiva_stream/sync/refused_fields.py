"""Refused fields: which value of a contact a refusal names, without I/O.

Optional fields are first name, last name, phone and birthday. If ActiveCampaign refuses the value of one, the
contact goes without it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from hashlib import blake2b

import msgspec

from kiva_stream.model.contacts import ContactRecord, DesiredContact
from kiva_stream.model.ids import ContactId

OPTIONAL = ("first_name", "last_name", "phone", "birthday")
LEAST_QUOTED = 4  # characters; a shorter value may stand in any text

# A refusal has one of these names in a text, or as the last part of a JSON pointer ("Errors" in
# ActiveCampaign's API reference).
_NAMES = {
    "first_name": re.compile(r"\bfirst[ _-]?name\b", re.IGNORECASE),
    "last_name": re.compile(r"\blast[ _-]?name\b", re.IGNORECASE),
    "phone": re.compile(r"\b(?:tele)?phone\b", re.IGNORECASE),
    "birthday": re.compile(r"\bbirth ?(?:day|date)\b", re.IGNORECASE),
}
_POINTER = re.compile(r'"pointer"\s*:\s*"([^"]*)"')
_EMAIL = re.compile(r"\be-?mail\b", re.IGNORECASE)
_ADDRESS = "[address]"
_FIELD_ID = re.compile(r"\bfields?(?:values?)?\b\W{0,3}(?:ids?\b\W{0,3})?\d+\b|\bfield ids?\b", re.IGNORECASE)


def refused_field(reply: str, contact: DesiredContact) -> str | None:
    """Return the optional field whose value a refusal names, None if it names none that was sent.

    | the refusal                                                | the field                       |
    |------------------------------------------------------------|---------------------------------|
    | quotes a value that one field alone has                    | this one                        |
    | has JSON pointers                                          | the first that a pointer names  |
    | has the id of a custom field: the account is at fault      | none                            |
    | has the name of a field                                    | this one                        |
    """
    text = reply.replace("\\/", "/")
    if quoted := [name for name, value in _values(contact) if _quotes(text, value)]:
        return quoted[0] if len(quoted) == 1 and quoted[0] in OPTIONAL else None
    if pointers := _POINTER.findall(text):
        text = " ".join(pointer.rpartition("/")[2] for pointer in pointers)
    elif _FIELD_ID.search(text):
        return None
    sent = (name for name in OPTIONAL if getattr(contact, name))
    return next((name for name in sent if _NAMES[name].search(text)), None)


def names_value(reply: str, contact: DesiredContact) -> bool:
    """Return whether a refusal names a value of the contact; else the account may be the cause."""
    is_named = bool(_EMAIL.search(reply)) or refused_field(reply, contact) is not None
    return is_named or quotes_value(reply, contact)


def quotes_value(reply: str, contact: DesiredContact) -> bool:
    """Return whether a refusal repeats a value of the contact, or an address, which is masked."""
    return _ADDRESS in reply or any(_quotes(reply, value) for _, value in _values(contact))


def names_field_id(reply: str, contact: DesiredContact) -> bool:
    """Return whether a refusal is about a custom field by its id, and not about a value of this contact."""
    return bool(_FIELD_ID.search(reply)) and not names_value(reply, contact)


def without(contact: DesiredContact, fields: Collection[str]) -> DesiredContact:
    """Return a contact without the values of these fields: they stay at ActiveCampaign as they are."""
    return msgspec.structs.replace(contact, **dict.fromkeys(fields)) if fields else contact


def left_out(record: ContactRecord, contact: DesiredContact) -> list[str]:
    """Return the fields of a contact that ActiveCampaign refused with the values that they have now."""
    return [
        name
        for name, refused in record.left_out.items()
        if (value := getattr(contact, name)) and value_hash(record.contact.id, value) == refused.value_hash
    ]


def value_hash(contact: ContactId, value: str) -> str:
    """Return 32 hexadecimal digits that tell whether a contact has the same value, and not which."""
    return blake2b(f"{contact} {value}".encode(), digest_size=16).hexdigest()


def _values(contact: DesiredContact) -> Iterator[tuple[str, str]]:
    """Yield the values of the fields, but those that two fields have."""
    names = (*OPTIONAL, "customer_id", "status", "next_delivery", "cancel_date", "box_type")
    values = [getattr(contact, name) for name in names]
    for name, value in zip(names, values, strict=True):
        if value and values.count(value) == 1:
            yield name, value


def _quotes(text: str, value: str) -> bool:
    return len(value) >= LEAST_QUOTED and re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None
