"""The report of a drill: a row a scenario, and its table."""

from __future__ import annotations

import msgspec
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived of a history while one fault struck."""

    fault: str
    seed: int
    entries: int
    times: int  # how often the fault struck
    starts: int  # of the command: one, and one more whenever it ended early
    lost: int
    repeated: int
    repeats_allowed: int
    out_of_order: int  # for their contact, by position
    dead_letters: int  # more than the truth expects
    recovered_after_s: float | None  # the longest time from a fault's end to the next event; None: no end
    sent_again: int  # events of unknown outcome that went out again, as the state counted them
    wrong: dict[str, int]  # other differences from the truth
    trouble: str = ""  # why the run did not complete

    @property
    def ok(self) -> bool:
        """Whether nothing is lost, repeated more than allowed, out of order, dead or wrong."""
        bad = self.lost + self.out_of_order + self.dead_letters + sum(self.wrong.values())
        return not bad and not self.trouble and self.repeated <= self.repeats_allowed and self.times > 0

    def complaint(self) -> str:
        """Return the problems that the table does not show, or an empty text."""
        parts = [f"{count:,} {name.replace('_', ' ')}" for name, count in self.wrong.items()]
        if not self.times:
            parts.append("the fault never struck")
        if self.trouble:
            parts.append(self.trouble)
        return "; ".join(parts)


class DrillReport(msgspec.Struct, frozen=True):
    """The report of `drill`."""

    ok: bool
    rows: list[Row]

    def __rich__(self) -> RenderableType:
        table = Table("fault", box=box.MARKDOWN)
        for heading in ("entries", "times", "starts", "lost", "repeated", "out of order", "dead letters"):
            table.add_column(heading, justify="right")
        table.add_column("recovered after (s)", justify="right")
        several = len({row.seed for row in self.rows}) > 1
        for row in self.rows:
            name = f"{row.fault} (seed {row.seed})" if several else row.fault
            table.add_row(name, *_cells(row), style="" if row.ok else "bold red")
        complaints = [
            f"{row.fault}, seed {row.seed}: {text}" for row in self.rows if (text := row.complaint())
        ]
        verdict = "All is there, once and in order." if self.ok else "Not all is as it should be."
        return Group(
            table, *(Text(line) for line in complaints), Text(verdict, "green" if self.ok else "bold red")
        )


def _cells(row: Row) -> list[str]:
    allowed = f" (≤ {row.repeats_allowed:,})" if row.repeats_allowed else ""
    recovered = "" if row.recovered_after_s is None else f"{row.recovered_after_s:.1f}"
    counts = (row.entries, row.times, row.starts, row.lost)
    rest = (row.out_of_order, row.dead_letters)
    return [
        *(f"{count:,}" for count in counts),
        f"{row.repeated:,}{allowed}",
        *(f"{count:,}" for count in rest),
        recovered,
    ]
