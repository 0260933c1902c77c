"""Which customer an entry of the log names in its text or data, when its row has no customer id."""

from __future__ import annotations

from typing import Any

import msgspec

from kiva_stream.events.matching import customer_number, event_line_of_text, is_noise
from kiva_stream.model.addresses import first_email, parse_email
from kiva_stream.model.ids import CustomerId, Email

_MAX_ID = 2**63 - 1  # bigint


class _Addressed(msgspec.Struct):
    """The field of a structured row's data that can name its customer."""

    email: Any = None


_ADDRESSED = msgspec.json.Decoder(_Addressed)


def needs_customer(action: str | None) -> bool:
    """Return whether an entry needs its customer. Noise does not."""
    return action is None or not is_noise(action)


def claimed(action: str | None, message: str, data: str | None) -> CustomerId | Email | None:
    """Return the customer id or the address that an entry names, or None. Such a customer need not exist.

    `action` is None for a legacy text; `data` is JSON text. A structured row names a customer in its data. A
    legacy text does by the number of its actor or, if it is an event, by an address in it.
    """
    if action is not None:
        return _address_in(data)
    number = customer_number(message)
    if number is not None:
        return CustomerId(number) if number <= _MAX_ID else None
    return _address_in_event(message)


def _address_in(data: str | None) -> Email | None:
    if data is None:
        return None
    try:
        email = _ADDRESSED.decode(data).email
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    return parse_email(email).email if isinstance(email, str) else None


def _address_in_event(message: str) -> Email | None:
    return first_email(message) if "@" in message and event_line_of_text(message) is not None else None
