"""E-mail addresses: which are usable, and their normal form, which identifies a contact."""

from __future__ import annotations

import re
from typing import NamedTuple

import idna

from kiva_stream.model.ids import Email

MAX_BYTES = 254  # of a whole address: RFC 5321, 4.5.3.1.3, and ActiveCampaign's own limit

# What ActiveCampaign's schema of an address asks for, without the characters that RFC 5322 reserves (3.2.3)
# and with a domain that is a host name: one address it refuses would cost the whole import it is in.
_ADDRESS = re.compile(r"[^@\s()<>\[\]:;,\\\"]+@(?:[a-z0-9_-]+\.)+[a-z0-9-]{2,}")
_BETWEEN_ADDRESSES = re.compile(r"[;,\s]+")
_BETWEEN_WORDS = re.compile(r"[\s()<>\[\]:;,\"]+")


class Parsed(NamedTuple):
    """What an address field holds."""

    email: Email | None  # normalised; None: no usable address
    several: bool = False  # it holds more than one address; `email` is the first usable one


def parse_email(text: str | None) -> Parsed:
    """Parse a customer's address field, as the shop stored it. Nothing is corrected by guessing."""
    if not text or "@" not in text:
        return Parsed(None)
    if text.count("@") == 1:
        return Parsed(_normalised(text))
    parts = [part for part in _BETWEEN_ADDRESSES.split(text) if "@" in part]
    return Parsed(_first_usable(parts), several=len(parts) > 1)


def first_email(text: str) -> Email | None:
    """Return the first usable address in free text, normalised, or None."""
    if "@" not in text:
        return None
    return _first_usable([word.strip("'.!?") for word in _BETWEEN_WORDS.split(text) if "@" in word])


def spellings(email: Email) -> list[str]:
    """Return the spellings of an address that a look-up tries, in lower case and without blanks around them.

    They are the address, the one with its domain in Unicode, and each with a trailing dot. `parse_email`
    reads more spellings as this address: with several trailing dots, or with other addresses beside it.
    """
    local, _, host = email.rpartition("@")
    return [f"{local}@{each}{dot}" for each in dict.fromkeys((host, _in_unicode(host))) for dot in ("", ".")]


def _first_usable(candidates: list[str]) -> Email | None:
    return next((email for text in candidates if (email := _normalised(text))), None)


def _normalised(text: str) -> Email | None:
    local, _, domain = text.strip().lower().rpartition("@")
    address = f"{local}@{_host(domain)}"
    usable = address.isprintable() and _ADDRESS.fullmatch(address) and len(address.encode()) <= MAX_BYTES
    return Email(address) if usable else None


def _host(domain: str) -> str:
    """Return a domain without trailing dots, in ASCII (UTS 46); "" if it has no such form."""
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode()
        except UnicodeError:  # idna's errors are its kind
            return ""
    return domain.rstrip(".")


def _in_unicode(host: str) -> str:
    """Return a host name in Unicode, as people write it."""
    try:
        return idna.decode(host) if "xn--" in host else host
    except UnicodeError:  # idna's errors are its kind
        return host
