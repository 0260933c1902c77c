"""The ground truth: what must become of every entry. It follows from what the generator did.

Nothing here reads the text that the generator wrote, and no code is shared with the pipeline.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from kiva_stream.sandbox.generator.clock import SECOND, instant
from kiva_stream.sandbox.generator.rows import Row, is_wild

MAX_BYTES = 250
DUPLICATE_WINDOW_MS = 2 * SECOND
REMEMBERED = 20_000  # entries
LOGINS = range(3, 8)  # the event lines that staff's log-ins as a customer must not trigger


class ExpectedEntry(NamedTuple):
    """What must become of one entry."""

    kind: str
    outcome: str
    why: str | None = None
    ac_name: str | None = None
    eventdata: str | None = None


Content = tuple[int, str | None, str, str | None]  # customer, action, message, data


class Moment(NamedTuple):
    """When a content was written: its position among all entries, and the database's time."""

    position: int
    inserted_ms: int


class ExpectedOutcomes:
    """Decides what must become of entries, which are given in log order."""

    def __init__(self) -> None:
        self._position = 0
        self._seen: dict[Content, list[Moment]] = {}
        self._seen_before: dict[Content, list[Moment]] = {}  # in the window before

    def expect(self, log_id: int, row: Row) -> ExpectedEntry:
        """Return what must become of one entry. The first rule that applies decides."""
        self._position += 1
        if self._position % REMEMBERED == 0:
            self._seen_before, self._seen = self._seen, {}
        if row.sort == "noise":
            return ExpectedEntry("noise", "skipped", "noise")
        event_line, ac_name, data = row.kind.event_line, None, None
        if row.sort == "event" and event_line:
            ac_name, data = event_line.ac_name, eventdata(row, log_id)
        outcome, why = self._outcome(row)
        return ExpectedEntry(row.sort, outcome, why, ac_name=ac_name, eventdata=data)

    def _outcome(self, row: Row) -> tuple[str, str | None]:
        if row.reason:
            return ("skipped" if row.reason == "no_account" else "dead"), row.reason
        exclusion = row.customer.exclusion
        if exclusion in {"erased", "test"}:
            return "skipped", exclusion
        if row.sort == "event" and row.staff and row.kind.key in LOGINS:
            return "skipped", "staff_login"
        if exclusion:
            return "dead", exclusion
        if row.sort == "sync_only":
            return "synced", None
        return ("skipped", "duplicate") if self._is_duplicate(row) else ("delivered", None)

    def _is_duplicate(self, row: Row) -> bool:
        """Whether an earlier position has the same content within two seconds."""
        content = (row.customer.id, row.action, row.message, row.data)
        moments = self._seen_before.get(content, []) + self._seen.get(content, [])
        self._seen.setdefault(content, []).append(Moment(self._position, row.inserted_ms))
        return any(
            self._position - before.position <= REMEMBERED
            and abs(row.inserted_ms - before.inserted_ms) <= DUPLICATE_WINDOW_MS
            for before in moments
        )


def eventdata(row: Row, log_id: int) -> str:
    """Return the whole eventdata that must arrive: the pairs, the actor, the time, the entry."""
    at = instant(row.inserted_ms if is_wild(row) else row.occurred_ms)
    tail = f"{_by(row)}at={at}; log={log_id}"
    whole = row.pairs + tail
    return whole if len(whole) <= MAX_BYTES and whole.isascii() else _fitting(row.pairs, tail)


def _by(row: Row) -> str:
    if row.staff:
        return "by=admin; "
    if row.action == "customer.cancel.auto":
        return "by=auto; "
    if row.action == "customer.cancel":
        return "by=customer; "
    return ""


def _fitting(pairs: str, tail: str) -> str:
    """Return the eventdata without the pairs that do not fit into its limit."""
    kept = ""
    for pair in pairs.split("; ")[:-1]:
        if len(f"{kept}{pair}; {tail}".encode()) <= MAX_BYTES:
            kept += f"{pair}; "
    return kept + tail


class Tally:
    """Counts expected entries, for the summary."""

    def __init__(self) -> None:
        self.classes: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()

    def add(self, entry: ExpectedEntry) -> None:
        """Count one entry."""
        self.classes[entry.kind] += 1
        self.outcomes[f"{entry.outcome} {entry.why}" if entry.why else entry.outcome] += 1
        if entry.ac_name:
            self.events[entry.ac_name] += 1
