"""Tables and words that the answers on a terminal share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rich.console import RenderableType
from rich.table import Column, Table
from rich.text import Text

HOUR_S = 3_600
MINUTE_S = 60


def grid() -> Table:
    """Return an empty table without borders and header."""
    return Table.grid(padding=(0, 2))


def pairs(texts: Mapping[str, str]) -> Table:
    """Return a row for each name with its text; a name without text has none."""
    table = grid()
    for name, text in texts.items():
        if text:
            table.add_row(Text(name, "dim"), Text(text))
    return table


def counts(title: str, found: Mapping[str, int]) -> list[RenderableType]:
    """Return a table of counts, the greatest first; nothing when all are 0."""
    rows = sorted(((-count, name) for name, count in found.items() if count))
    return figures([title, ""], [[name, f"{-count:,}"] for count, name in rows])


def figures(titles: list[str], rows: list[list[str]]) -> list[RenderableType]:
    """Return an empty line and a table, its figures to the right; nothing without rows."""
    first, *others = titles
    return _table([Column(first, min_width=32), *(Column(title, justify="right") for title in others)], rows)


def listing(rows: list[dict[str, str]]) -> list[RenderableType]:
    """Return an empty line and a table of texts, with a column for each name; nothing without rows."""
    return _table([Column(name) for name in (rows[0] if rows else ())], [row.values() for row in rows])


def _table(columns: Iterable[Column], rows: Sequence[Iterable[str]]) -> list[RenderableType]:
    table = Table(*columns, box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    for row in rows:
        table.add_row(*map(Text, row))
    return [Text(), table] if rows else []


def moment(at: datetime | None) -> str:
    """Write a moment to the second; nothing for none."""
    return at.isoformat(sep=" ", timespec="seconds") if at else ""


def duration(seconds: float) -> str:
    """Write a duration in its two largest units."""
    hours, rest = divmod(round(seconds), HOUR_S)
    minutes, left = divmod(rest, MINUTE_S)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {left:02} s" if minutes else f"{seconds:.1f} s"
