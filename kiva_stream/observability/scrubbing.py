"""Scrubbing: removes secrets and addresses from texts that are shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

HIDDEN = "***"
SHORTEST_SECRET = 4  # characters; hiding shorter ones would only make the lines unreadable

# An address in a text, or, with %40, in a URL. It begins where a word begins: were it tried at every letter
# of a long text without an address, the time would grow with the square of the length.
_WORD = r"""[^\s@"'`<>(),;:=&?/\\]"""
_ADDRESS = re.compile(rf"(?<!{_WORD})({_WORD}){_WORD}*?(@|%40)(?=\w)")


class Scrubber:
    """Removes secrets from a text, and with `mask_emails` the local parts of e-mail addresses."""

    def __init__(self, secrets: Iterable[str] = (), *, mask_emails: bool = True) -> None:
        forms = {form for secret in secrets if len(secret) >= SHORTEST_SECRET for form in _forms(secret)}
        longest_first = sorted(forms, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first))) if forms else None
        self._mask_emails = mask_emails

    def __call__(self, text: str) -> str:
        """Return the scrubbed text: `***` for a secret, `a***@example.com` for an address."""
        if self._secrets:
            text = self._secrets.sub(HIDDEN, text)
        return _ADDRESS.sub(rf"\1{HIDDEN}\2", text) if self._mask_emails else text


def _forms(secret: str) -> set[str]:
    """Return the forms that a secret has in log lines: plain, in a URL, in a repr; each also in JSON."""
    plain = {secret, quote(secret, safe=""), repr(secret)[1:-1], repr(secret.encode())[2:-1]}
    return plain | {
        json.dumps(form, ensure_ascii=escaped)[1:-1] for form in plain for escaped in (True, False)
    }
