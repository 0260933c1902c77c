"""Cleans text, so that ActiveCampaign, JSON and PostgreSQL can hold it."""

from __future__ import annotations

import re

# Lone surrogates cannot be written as UTF-8. jsonb refuses NUL, so a shop's text columns hold its escape
# as six characters.
_LINE_BREAK = re.compile(r"\r\n|[\n\r\v\f\x85\u2028\u2029]")
_UNWANTED = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]|\\u0000")


def clean(text: str) -> str:
    """Return the text on one line, without control characters and lone surrogates, trimmed.

    A line break becomes a blank. Markup, emoji and wrongly decoded letters stay as they are.
    """
    if not (text.isascii() and text.isprintable() and "\\" not in text):
        text = _UNWANTED.sub("", _LINE_BREAK.sub(" ", text))
    return text.strip()
