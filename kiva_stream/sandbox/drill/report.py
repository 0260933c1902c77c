"""The report of a drill: a row for each scenario and seed."""

from __future__ import annotations

import msgspec


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
    kept: int | None  # of others: what waited while a fault was about one record; None: it was about all
    dead_letters: int  # more than the truth expects
    recovered_after_s: float | None  # the longest time from a fault's end to the next event; None: no end
    sent_again: int  # events of unknown outcome that went out again, as the state counted them
    wrong: dict[str, int]  # other differences from the truth
    trouble: str = ""  # why the run did not complete

    @property
    def ok(self) -> bool:
        """Whether nothing is lost, repeated more than allowed, out of order, kept, dead or wrong."""
        bad = self.lost + self.out_of_order + (self.kept or 0) + self.dead_letters + sum(self.wrong.values())
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
