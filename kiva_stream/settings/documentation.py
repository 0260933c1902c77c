"""How the settings are shown: the example file, `--help`, and the table of docs/settings.md."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kiva_stream.settings.keys import KEYS, Key
from kiva_stream.settings.sections import Settings
from kiva_stream.settings.value_types import hints


def example() -> str:
    """Return the settings file that `init` writes: required keys empty, defaults commented out."""
    lines = [
        "# Settings of kiva_stream. A key without # must be filled in; one with # shows its default.",
        "# Numbers stand without quotes.",
        f"# Any key can also come from the environment: {KEYS[0].variable} and so on.",
    ]
    for section, struct in hints(Settings):
        lines += ["", f"# {struct.__doc__}", f"[{section}]"]
        lines += [line for key in KEYS if key.section == section for line in _example_lines(key)]
    return "\n".join(lines) + "\n"


def _example_lines(key: Key) -> Iterator[str]:
    yield f"# {key.meaning} ({key.expected}{', ' + key.unit if key.unit else ''})"
    if key.required:
        yield f'{key.name} = ""'
    else:
        yield f"# {key.name} = {toml_value(key.default)}"
    if key.secret:
        yield f'# {key.name}_file = ""  # instead: a file that holds it'


def help_lines() -> list[str]:
    """Return a line a key for `--help`."""
    return [f"{key} {_default_words(key, '= {}')}: {key.meaning}" for key in KEYS]


def markdown() -> str:
    """Return the table of docs/settings.md."""
    rows = (
        f"| `{key}` | {_default_words(key, '`{}`')} | {key.expected} | {key.meaning.replace('<', '&lt;')} |"
        for key in KEYS
    )
    return "\n".join(["| key | default | expected | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _default_words(key: Key, shape: str) -> str:
    if key.required:
        return "(required)"
    return f"{shape.format(toml_value(key.default))} {key.unit}".rstrip()


def toml_value(value: object) -> str:
    """Write a value as TOML does. JSON writes numbers, texts, booleans and lists of texts in the same way."""
    return msgspec.json.encode(value).decode()
