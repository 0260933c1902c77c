"""The texts of refusals, by which they are compared."""

from __future__ import annotations

import re

_VARYING = re.compile(r"\d+|\[address\]|[^\s\"'<>(){}\[\],;:=]+@[^\s\"'<>(){}\[\],;:]+")


def blanked(said: str) -> str:
    """Return a text without its digits and addresses, by which those of different records may differ."""
    return _VARYING.sub("#", said)
