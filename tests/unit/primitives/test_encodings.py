"""Bytes of a database that checks no text, made readable."""

from __future__ import annotations

import pytest

from kiva_stream.primitives.postgres.encodings import readable


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("José 🥕".encode(), "José 🥕"),
        ("José 🥕".encode()[:-1], "José "),
        ("José".encode()[:-1], "Jos"),
        ("José".encode("latin-1"), "José"),
        ("Grün, José".encode("latin-1"), "Grün, José"),
        (b"", ""),
    ],
)
def test_bytes_are_read_as_utf_8_without_a_cut_character_or_else_as_latin_1(
    written: bytes, text: str
) -> None:
    assert readable(written) == text
