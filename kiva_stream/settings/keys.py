"""The keys of the settings as rows of one table.

The example file, `--help` and docs/settings.md are made from it, and loading checks by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

from kiva_stream.settings.sections import Settings
from kiva_stream.settings.value_types import hints, is_secret, metas

VARIABLE_PREFIX = "KIVA_STREAM__"
UNITS = {
    "s": "s",
    "ms": "ms",
    "days": "days",
    "bytes": "bytes",
    "rows": "rows",
    "second": "per second",
    "minute": "per minute",
}  # by the end of a key's name


class Key(msgspec.Struct, frozen=True):
    """A row of the table of settings."""

    section: str
    name: str
    hint: Any  # the annotation: what msgspec checks a value against
    default: Any  # msgspec.NODEFAULT when the key is required

    def __str__(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is msgspec.NODEFAULT

    @property
    def secret(self) -> bool:
        """Whether the value must never show; a secret can also come from a file, `<name>_file`."""
        return is_secret(self.hint)

    @property
    def variable(self) -> str:
        """The environment variable that sets the key."""
        return f"{VARIABLE_PREFIX}{self.section}__{self.name}".upper()

    @property
    def meaning(self) -> str:
        """What the key is for."""
        return str(next(meta.description for meta in metas(self.hint) if meta.description))

    @property
    def unit(self) -> str:
        """The unit, by the end of the name; empty for texts and plain counts."""
        return UNITS.get(self.name.rpartition("_")[2], "")

    @property
    def expected(self) -> str:
        """Type and range, in words."""
        titles = [meta.title for meta in metas(self.hint) if meta.title]
        return titles[0] if titles else _type_words(get_args(self.hint)[0]) + _range_words(metas(self.hint))


def _type_words(kind: object) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    names: dict[object, str] = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
    }
    return names.get(kind, "a list of texts")


def _range_words(said: list[Meta]) -> str:
    bounds = [
        f"{words} {value:g}"
        for meta in said
        for words, value in (("at least", meta.ge), ("above", meta.gt), ("at most", meta.le))
        if value is not None
    ]
    return f", {' and '.join(bounds)}" if bounds else ""


def _rows() -> Iterator[Key]:
    for section, struct in hints(Settings):
        annotations = dict(hints(struct))
        for field in msgspec.structs.fields(struct):
            yield Key(section=section, name=field.name, hint=annotations[field.name], default=field.default)


KEYS: tuple[Key, ...] = tuple(_rows())
KEYS_BY_NAME = {str(key): key for key in KEYS}
FILE_KEYS = {f"{key}_file": key for key in KEYS if key.secret}
