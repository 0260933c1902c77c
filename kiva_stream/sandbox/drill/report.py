"""What a drill found: a row a scenario, and the table."""

from __future__ import annotations

import msgspec
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """How one history arrived, whatever was pulled meanwhile."""

    fault: str
    seed: int
    entries: int
    times: int  # how often the fault struck
    starts: int  # of the command: one, and one more whenever it ended early
    lost: int
    repeated: int
    repeats_allowed: int
    out_of_order: int  # for their contact, by position
    dead_letters: int  # beside those of rows that are bad in themselves
    recovered_after_s: float | None  # from the fault's end to the next event, at worst; None: it had no end
    sent_again: int  # events of unknown outcome that went out again, as the state counted them
    wrong: dict[str, int]  # what else differs from the truth
    trouble: str = ""  # why it did not come to its end

    @property
    def ok(self) -> bool:
        """Whether nothing is lost, repeated beyond what is allowed, out of order, dead or wrong."""
        bad = self.lost + self.out_of_order + self.dead_letters + sum(self.wrong.values())
        return not bad and not self.trouble and self.repeated <= self.repeats_allowed and self.times > 0

    def complaint(self) -> str:
        """Say what the table does not show; empty when that is nothing."""
        parts = [f"{count:,} {name.replace('_', ' ')}" for name, count in self.wrong.items()]
        if not self.times:
            parts.append("the fault never struck")
        if self.trouble:
            parts.append(self.trouble)
        return "; ".join(parts)


class DrillReport(msgspec.Struct, frozen=True):
    """The answer of `drill`."""

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
            f"{row.fault}, seed {row.seed}: {said}" for row in self.rows if (said := row.complaint())
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
