"""An answer of ActiveCampaign as it came, and how errors quote it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeVar
from urllib.parse import quote_plus

import msgspec

T = TypeVar("T")

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
EXCERPT_CHARS = 300  # of a body, in an error
_ADDRESS = re.compile(r"[^\s\"'<>(){}\[\],;:=]+(?:@|%40)[^\s\"'<>(){}\[\],;:&]+")


class Response(NamedTuple):
    """Status, body and headers of an answer, and the secrets that no quotation may repeat."""

    status: int
    body: bytes
    retry_after: str | None = None
    secrets: tuple[str, ...] = ()
    location: str | None = None
    headers: Mapping[str, str] = NO_HEADERS

    def __repr__(self) -> str:
        return f"<Response {self.excerpt()}>"

    def decode(self, shape: type[T]) -> T | None:
        """Return the JSON body as `shape`, None if it has another shape; numbers may be written as text."""
        try:
            return msgspec.json.decode(self.body, type=shape, strict=False)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def excerpt(self) -> str:
        """Return the status, the Location and the beginning of the body, secrets and addresses masked."""
        to = "" if self.location is None else f"to {mask(self.location, self.secrets)}"
        body = mask(self.body.decode(errors="replace"), self.secrets)
        return " ".join(filter(None, (str(self.status), to, body)))


def addresses(text: str) -> list[str]:
    """Return the addresses that a text has, in lower case."""
    return [found.strip(".").lower() for found in _ADDRESS.findall(text)]


def mask(text: str, secrets: Iterable[str]) -> str:
    """Return the beginning of a text, on one line, without addresses and secrets, plain or form-encoded."""
    for secret in secrets:
        text = text.replace(secret, "[secret]").replace(quote_plus(secret), "[secret]")
    return _ADDRESS.sub("[address]", " ".join(text.split()))[:EXCERPT_CHARS]
