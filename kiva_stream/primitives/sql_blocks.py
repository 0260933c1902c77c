"""SQL lives in SQL files, one named block each; this reads them."""

from __future__ import annotations

import re
from importlib.resources import files

_BLOCK = re.compile(r"^-- name: (\w+)\n(.*?)(?=^-- name: |\Z)", re.MULTILINE | re.DOTALL)
_PLACE = re.compile(r"\{(\w+)\}")
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)


def load(package: str, file: str, schema: str, instead: str | None = None) -> dict[str, str]:
    """Return the blocks of a package's SQL file by name.

    A block starts with `-- name: NAME` and ends where the next one starts. `{schema}` stands for the quoted
    schema, `{NAME}` for an earlier block without its comments. Blocks of the file `instead` take the place of
    those of the same name.
    """
    found = _found(package, file)
    if instead is not None:
        found |= _found(package, instead)
    quoted = '"' + schema.replace('"', '""') + '"'
    blocks = {"schema": quoted}
    for name, block in found.items():
        blocks[name] = _PLACE.sub(lambda place: _COMMENT.sub("", blocks[place[1]]), block).strip()
    return blocks


def _found(package: str, file: str) -> dict[str, str]:
    return dict(_BLOCK.findall(files(package).joinpath(file).read_text("utf-8")))
