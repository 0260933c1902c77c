"""What the commands ask for and answer, as plain structs, and how an answer reads on a terminal.

With `--json` the same struct is one JSON object on stdout. Positions are texts here, `TXID:ID`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kiva_stream.model import DAY1, Outcome, Position

Bound = Position | date  # a place in the log, or midnight of the site

HOUR_S = 3600


def parse_bound(text: str) -> Bound:
    """Read `day1`, YYYY-MM-DD or TXID:ID. Raises ValueError when it is none of them."""
    if text == "day1":
        return DAY1
    try:
        return Position.parse(text) if ":" in text else date.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is neither day1, nor a date (YYYY-MM-DD), nor a position (TXID:ID)"
        ) from None


def bound_text(bound: Bound) -> str:
    """Write a bound as `parse_bound` reads it."""
    return "day1" if bound == DAY1 else str(bound)


class BackfillRequest(msgspec.Struct, frozen=True):
    """What a backfill is asked to carry. None: as the checkpoint says, or without that bound."""

    since: Bound | None = None
    until: Bound | None = None
    events_since: date | None = None


class CheckLine(msgspec.Struct, frozen=True):
    """One line of `check`: a thing looked at, and, when it is not well, what to do about it."""

    subject: str
    ok: bool
    text: str


class CheckReport(msgspec.Struct, frozen=True):
    """The answer of `check`."""

    ok: bool
    lines: list[CheckLine]

    @classmethod
    def of(cls, lines: Iterable[CheckLine]) -> CheckReport:
        """Sum up lines."""
        kept = list(lines)
        return cls(all(line.ok for line in kept), kept)

    def __rich__(self) -> RenderableType:
        grid = _grid()
        for line in self.lines:
            mark = Text("ok", "green") if line.ok else Text("no", "bold red")
            grid.add_row(mark, Text(line.subject), Text(line.text))
        return grid


class Equation(msgspec.Struct, frozen=True):
    """Entries read = the outcomes + pending + parked."""

    entries_read: int
    delivered: int
    synced: int
    skipped: dict[str, int]  # by why
    dead: dict[str, int]  # by why
    pending: int
    parked: int = 0

    @classmethod
    def of(cls, counts: Mapping[Outcome, int], pending: int, parked: int = 0) -> Equation:
        """Add up counts by outcome."""
        by_why: dict[str, dict[str, int]] = {"skipped": {}, "dead": {}}
        for outcome, count in counts.items():
            if outcome.kind in by_why:
                by_why[outcome.kind][outcome.why] = count
        return cls(
            entries_read=sum(counts.values()) + pending + parked,
            delivered=counts.get(Outcome("delivered"), 0),
            synced=counts.get(Outcome("synced"), 0),
            skipped=by_why["skipped"],
            dead=by_why["dead"],
            pending=pending,
            parked=parked,
        )

    def __str__(self) -> str:
        parts = {
            "delivered": self.delivered,
            "synced": self.synced,
            "skipped": sum(self.skipped.values()),
            "dead": sum(self.dead.values()),
            "pending": self.pending,
            "parked": self.parked,
        }
        words = " + ".join(f"{count:,} {name}" for name, count in parts.items())
        return f"{self.entries_read:,} entries read = {words}"


class BackfillPlan(msgspec.Struct, frozen=True):
    """What a backfill would do, before it does it."""

    after: str  # position above which it reads
    until: str  # position up to which it reads
    entries: int
    events_about: int
    contacts: int
    hours: float  # at the limits in the settings
    resumes: bool = False
    events_since: datetime | None = None

    def __rich__(self) -> RenderableType:
        return _pairs(
            {
                "reads": f"{'on from' if self.resumes else 'from'} {self.after} to {self.until}",
                "entries": f"{self.entries:,}",
                "events": f"about {self.events_about:,}"
                + (f", of entries since {_moment(self.events_since)}" if self.events_since else ""),
                "contacts": f"{self.contacts:,}",
                "hours": f"about {self.hours:.2f} at the limits in the settings",
            }
        )


class Summary(msgspec.Struct, frozen=True):
    """What a backfill has done."""

    equation: Equation  # since the counts began
    entries: int  # of this run that got their outcome
    seconds: float  # of this run
    events: dict[str, int]  # since the counts began, by name
    contacts: dict[str, int]  # by status
    requests: dict[str, int]  # of this run, by endpoint
    notes: dict[str, int] = {}  # what was odd about entries, since the counts began
    breaches: dict[str, int] | None = None  # of ActiveCampaign's limits and contract; only the sandbox tells
    stopped_by: int | None = None  # the signal that ended it before its end
    obstacle: str | None = None  # what keeps the log from being read on

    @property
    def entries_per_hour(self) -> float:
        """Entries of this run an hour."""
        return self.entries / self.seconds * HOUR_S if self.seconds else 0.0

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = [
            *_counts("Events", self.events),
            *_counts("Contacts", self.contacts),
            *_counts("Skipped", self.equation.skipped),
            *_counts("Dead letters", self.equation.dead),
            *_counts("Oddities", self.notes),
            *_requests(self.requests, self.entries),
            Text(f"\n{self.equation}", "bold"),
            Text(
                f"{self.entries:,} entries in {_duration(self.seconds)}: {self.entries_per_hour:,.0f} an hour"
            ),
        ]
        if self.breaches is not None:
            parts.append(_breaches(self.breaches))
        if self.stopped_by is not None:
            parts.append(Text("Stopped before the end: run the same command again, and it goes on.", "bold"))
        if self.obstacle is not None:
            parts.append(Text(self.obstacle, "bold yellow"))
        return Group(*parts)


class StatusReport(msgspec.Struct, frozen=True):
    """Where a site stands, read from the state schema alone."""

    site: str
    account: str
    phase: str  # contacts | events | done
    since: str  # as given
    events_since: datetime | None
    counted_from: str  # position after which the counts begin
    watermark: str
    high_water_mark: str | None  # of the newest backfill
    entries_total: int | None  # up to it, when that backfill began
    equation: Equation
    events: dict[str, int]  # by name
    contacts: dict[str, int]  # by status
    notes: dict[str, int]  # what was odd about entries
    committed_at: datetime | None  # the last commit
    updated_at: datetime  # when this was read

    def __rich__(self) -> RenderableType:
        pairs = {
            "site": self.site,
            "account": self.account,
            "phase": self.phase,
            "since": self.since,
            "events since": _moment(self.events_since) if self.events_since else "",
            "watermark": self.watermark,
            "high-water mark": self.high_water_mark or "",
            "entries in all": "" if self.entries_total is None else f"{self.entries_total:,}",
            "last commit": _moment(self.committed_at) if self.committed_at else "none yet",
            "now": _moment(self.updated_at),
        }
        return Group(
            _pairs({name: text for name, text in pairs.items() if text}),
            *_counts("Events", self.events),
            *_counts("Contacts", self.contacts),
            *_counts("Skipped", self.equation.skipped),
            *_counts("Dead letters", self.equation.dead),
            *_counts("Oddities", self.notes),
            Text(f"\n{self.equation}", "bold"),
            Text(f"counted from {self.counted_from}"),
        )


def _grid() -> Table:
    return Table.grid(padding=(0, 2))


def _pairs(pairs: Mapping[str, str]) -> Table:
    grid = _grid()
    for name, text in pairs.items():
        grid.add_row(Text(name, "dim"), Text(text))
    return grid


def _counts(title: str, counts: Mapping[str, int]) -> list[RenderableType]:
    """Return a table of counts, the greatest first; nothing when there are none."""
    rows = sorted(((-count, name) for name, count in counts.items() if count))
    return _table([title, ""], [[name, f"{-count:,}"] for count, name in rows])


def _requests(requests: Mapping[str, int], entries: int) -> list[RenderableType]:
    rows = [
        [name, f"{count:,}", f"{count / entries:.4f}" if entries else ""]
        for name, count in sorted(requests.items())
    ]
    return _table(["Requests", "", "an entry"], rows)


def _table(titles: list[str], rows: list[list[str]]) -> list[RenderableType]:
    """Return an empty line and a table, its figures to the right; nothing without rows."""
    if not rows:
        return []
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    for place, title in enumerate(titles):
        table.add_column(title, justify="right" if place else "left", min_width=0 if place else 32)
    for row in rows:
        table.add_row(*map(Text, row))
    return [Text(), table]


def _breaches(breaches: Mapping[str, int]) -> Text:
    total = sum(breaches.values())
    which = "".join(f", {name} {count}" for name, count in sorted(breaches.items()) if count)
    return Text(
        f"{total} breaches of ActiveCampaign's limits and contract{which}", "bold red" if total else "green"
    )


def _moment(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="seconds")


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), HOUR_S)
    minutes, left = divmod(rest, 60)
    return (
        f"{hours} h {minutes:02} min"
        if hours
        else f"{minutes} min {left:02} s"
        if minutes
        else f"{seconds:.1f} s"
    )
