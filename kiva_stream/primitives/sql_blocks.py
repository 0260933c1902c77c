"""Reads named blocks of SQL from the SQL files of a package."""

from __future__ import annotations

import re
from importlib.resources import files

_BLOCK = re.compile(r"^-- name: (\w+)\n(.*?)(?=^-- name: |\Z)", re.MULTILINE | re.DOTALL)
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)


def load(package: str, schema: str, *names: str) -> dict[str, str]:
    """Return the blocks of a package's SQL files, by name.

    A block starts with `-- name: NAME` and ends where the next one starts. It replaces one of its name in an
    earlier file. `{schema}` stands for the quoted schema, `{NAME}` for an earlier block without its comments.
    """
    found: dict[str, str] = {}
    for name in names:
        found |= dict(_BLOCK.findall(files(package).joinpath(name).read_text("utf-8")))
    quoted = '"' + schema.replace('"', '""') + '"'
    blocks = {"schema": quoted}
    for name, block in found.items():
        blocks[name] = _PLACEHOLDER.sub(lambda each: _COMMENT.sub("", blocks[each[1]]), block).strip()
    return blocks
