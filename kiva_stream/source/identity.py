"""Who an entry of the log is about when its row does not name a customer."""

from __future__ import annotations

from typing import Any

import msgspec

from kiva_stream.events.matching import customer_number, is_noise, line_of_text
from kiva_stream.model.addresses import first_email, parse_email
from kiva_stream.model.ids import CustomerId, Email

_MAX_ID = 2**63 - 1  # bigint


class _Addressed(msgspec.Struct):
    """The one field of a structured row's data that can name its person."""

    email: Any = None


_ADDRESSED = msgspec.json.Decoder(_Addressed)


def needs_customer(action: str | None) -> bool:
    """Tell whether an entry can come to something, so that its customer is worth finding."""
    return action is None or not is_noise(action)


def claimed(action: str | None, message: str, data: str | None) -> CustomerId | Email | None:
    """Return the customer id or the address by which an entry names its person, if it does.

    `action` is None for legacy text; `data` is JSON text. What is claimed need not exist. A structured row is
    believed by its data, a legacy one by its actor or, where it tells of an event, by an address in it.
    """
    if action is not None:
        return _address_in(data)
    number = customer_number(message)
    if number is not None:
        return CustomerId(number) if number <= _MAX_ID else None
    return _address_told_of(message)


def _address_in(data: str | None) -> Email | None:
    if data is None:
        return None
    try:
        email = _ADDRESSED.decode(data).email
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    return parse_email(email).email if isinstance(email, str) else None


def _address_told_of(message: str) -> Email | None:
    return first_email(message) if "@" in message and line_of_text(message) is not None else None
