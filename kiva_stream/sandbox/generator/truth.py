"""The ground truth: what must become of every entry and every contact, told by who made them.

It shares no code with the pipeline. Outcomes follow from what the generator did, not from what it wrote.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from kiva_stream.errors import SettingsError
from kiva_stream.sandbox.generator.clock import SECOND, instant
from kiva_stream.sandbox.generator.commits import Entry
from kiva_stream.sandbox.generator.contacts import ExpectedContact
from kiva_stream.sandbox.generator.order_truth import ExpectedItem, ExpectedOrder
from kiva_stream.sandbox.generator.rows import Row, is_wild

MAX_BYTES = 255
DUPLICATE_WINDOW_MS = 2 * SECOND
REMEMBERED = 20_000  # entries
LOGINS = range(3, 8)  # lines that staff's log-ins as a customer must not trigger

_SCHEMA = """
CREATE TABLE entry_row (
  ord INTEGER PRIMARY KEY,      -- log order: transaction, then id
  site_id INTEGER NOT NULL, log_id INTEGER NOT NULL,
  kind TEXT NOT NULL,           -- event | sync_only | noise
  outcome TEXT NOT NULL,        -- delivered | synced | skipped | dead
  why TEXT,                     -- of skipped and dead
  ac_name TEXT, eventdata TEXT, -- of events, whatever their outcome
  customer_id INTEGER           -- whose contact it is
);
CREATE TABLE order_row (
  site_id INTEGER NOT NULL, order_id INTEGER NOT NULL, customer_id INTEGER NOT NULL,
  normalized_status TEXT NOT NULL, currency TEXT NOT NULL,
  total_cents INTEGER NOT NULL, discounts_cents INTEGER NOT NULL,
  created_at TEXT NOT NULL,
  paid_ms INTEGER               -- since 1970; the source follows from it and the moment of sending
);
CREATE TABLE order_line (
  site_id INTEGER NOT NULL, order_id INTEGER NOT NULL, line_id INTEGER NOT NULL, product_id INTEGER NOT NULL,
  name TEXT NOT NULL, category TEXT NOT NULL, quantity INTEGER NOT NULL, price_cents INTEGER NOT NULL
);
CREATE TABLE account (customer_id INTEGER PRIMARY KEY, email TEXT);
CREATE TABLE contact (
  site_id INTEGER NOT NULL, email TEXT NOT NULL,
  first_name TEXT NOT NULL, last_name TEXT NOT NULL, phone TEXT NOT NULL,
  kiva_customer_id TEXT NOT NULL, list_status TEXT NOT NULL, customer_ids TEXT NOT NULL,
  status TEXT NOT NULL, box_type TEXT, next_delivery TEXT, cancel_date TEXT, birthday TEXT, tag TEXT NOT NULL,
  PRIMARY KEY (site_id, email)
);
-- An address may change long after an entry; events go to the last one.
CREATE VIEW entry AS
  SELECT e.site_id, e.log_id, e.ord, e.kind, e.outcome, e.why, e.ac_name, e.eventdata, a.email
  FROM entry_row e LEFT JOIN account a ON a.customer_id = e.customer_id;
CREATE VIEW customer_order AS
  SELECT o.*, a.email FROM order_row o JOIN account a ON a.customer_id = o.customer_id;
"""


class ExpectedEntry(NamedTuple):
    """What must become of one entry."""

    kind: str
    outcome: str
    why: str | None = None
    ac_name: str | None = None
    eventdata: str | None = None


Said = tuple[int, str | None, str, str | None]  # account, action, message, data


class Moment(NamedTuple):
    """When something was said: by position among all entries, and by the database's clock."""

    position: int
    inserted_ms: int


class ExpectedOutcomes:
    """Says what must become of entries, given in log order."""

    def __init__(self) -> None:
        self._position = 0
        self._seen: dict[Said, list[Moment]] = {}
        self._seen_before: dict[Said, list[Moment]] = {}  # those of the window before

    def judge(self, log_id: int, row: Row) -> ExpectedEntry:
        """Return the verdict of one entry. The order of the questions is that of domain.md."""
        self._position += 1
        if self._position % REMEMBERED == 0:
            self._seen_before, self._seen = self._seen, {}
        if row.sort == "noise":
            return ExpectedEntry("noise", "skipped", "noise")
        line, ac_name, data = row.kind.line, None, None
        if row.sort == "event" and line:
            ac_name, data = line.ac_name, eventdata(row, log_id)
        outcome, why = self._outcome(row)
        return ExpectedEntry(row.sort, outcome, why, ac_name, data)

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
        return ("skipped", "duplicate") if self._repeats(row) else ("delivered", None)

    def _repeats(self, row: Row) -> bool:
        """Whether one of the positions before says the same within two seconds (domain.md 0.13)."""
        said = (row.customer.id, row.action, row.message, row.data)
        moments = self._seen_before.get(said, []) + self._seen.get(said, [])
        self._seen.setdefault(said, []).append(Moment(self._position, row.inserted_ms))
        return any(
            self._position - before.position <= REMEMBERED
            and abs(row.inserted_ms - before.inserted_ms) <= DUPLICATE_WINDOW_MS
            for before in moments
        )


def eventdata(row: Row, log_id: int) -> str:
    """Return the whole string that must arrive, as product.md fixes it."""
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
    """Leave out the pairs that do not fit, one by one."""
    kept = ""
    for pair in pairs.split("; ")[:-1]:
        if len(f"{kept}{pair}; {tail}".encode()) <= MAX_BYTES:
            kept += f"{pair}; "
    return kept + tail


class TruthFile:
    """The ground truth as an SQLite file: `entry`, `contact`, `customer_order`, `order_line`."""

    def __init__(self, path: Path) -> None:
        """Begin the file, in place of an earlier one. Raises SettingsError when it cannot be written."""
        try:
            path.unlink(missing_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise SettingsError(f"Cannot write the ground truth to {path}: {error}") from error
        self._db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _SCHEMA + "BEGIN;")
        self._ord = 0

    def add(self, judged: Iterable[tuple[int, Row, ExpectedEntry]]) -> None:
        """Write the verdicts of entries, in log order."""
        self._db.executemany("INSERT INTO entry_row VALUES (?,?,?,?,?,?,?,?,?)", self._numbered(judged))

    def add_orders(self, orders: Iterable[ExpectedOrder], lines: Iterable[ExpectedItem]) -> None:
        """Write orders that must arrive, and their lines."""
        self._db.executemany("INSERT INTO order_row VALUES (?,?,?,?,?,?,?,?,?)", orders)
        self._db.executemany("INSERT INTO order_line VALUES (?,?,?,?,?,?,?,?)", lines)

    def finish(
        self, addresses: Iterable[tuple[int, str | None]], contacts: Iterable[ExpectedContact]
    ) -> None:
        """Write accounts and contacts, and keep it all."""
        self._db.executemany("INSERT INTO account VALUES (?,?)", addresses)
        marks = ",".join("?" * len(ExpectedContact._fields))
        self._db.executemany(f"INSERT INTO contact VALUES ({marks})", contacts)
        self._db.execute("CREATE UNIQUE INDEX entry_row_log ON entry_row (site_id, log_id)")
        self._db.execute("CREATE UNIQUE INDEX order_row_order ON order_row (site_id, order_id)")
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _numbered(self, judged: Iterable[tuple[int, Row, ExpectedEntry]]) -> Iterator[tuple[object, ...]]:
        for log_id, row, verdict in judged:
            self._ord += 1
            kind, outcome, why, ac_name, data = verdict
            yield (self._ord, row.site_id, log_id, kind, outcome, why, ac_name, data, row.customer.id)


class Tally:
    """Counts verdicts, for the summary."""

    def __init__(self) -> None:
        self.classes: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()

    def add(self, verdict: ExpectedEntry) -> None:
        """Count one more."""
        self.classes[verdict.kind] += 1
        self.outcomes[f"{verdict.outcome} {verdict.why}" if verdict.why else verdict.outcome] += 1
        if verdict.ac_name:
            self.events[verdict.ac_name] += 1


def judged(judge: ExpectedOutcomes, entries: Iterable[Entry]) -> Iterator[tuple[int, Row, ExpectedEntry]]:
    """Yield entries with their verdicts."""
    for log_id, row in entries:
        yield log_id, row, judge.judge(log_id, row)
