"""The file of the ground truth: what must become of every entry, contact and order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from kiva_stream.errors import SettingsError
from kiva_stream.sandbox.generator.expected_contacts import ExpectedContact
from kiva_stream.sandbox.generator.expected_entries import ExpectedEntry
from kiva_stream.sandbox.generator.expected_orders import ExpectedItem, ExpectedOrder
from kiva_stream.sandbox.generator.rows import Row

EntryTruth = tuple[int, Row, ExpectedEntry]  # an entry's id, its row, and what must become of it

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


class TruthFile:
    """The ground truth as an SQLite file: `entry`, `contact`, `customer_order`, `order_line`."""

    def __init__(self, path: Path) -> None:
        """Create the file, or replace an earlier one. Raises SettingsError when it cannot be written."""
        try:
            path.unlink(missing_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise SettingsError(f"Cannot write the ground truth to {path}: {error}") from error
        self._db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _SCHEMA + "BEGIN;")
        self._ord = 0

    def add(self, entries: Iterable[EntryTruth]) -> None:
        """Write what must become of entries, which are given in log order."""
        self._db.executemany("INSERT INTO entry_row VALUES (?,?,?,?,?,?,?,?,?)", self._numbered(entries))

    def add_orders(self, orders: Iterable[ExpectedOrder], items: Iterable[ExpectedItem]) -> None:
        """Write orders that must arrive, and their items."""
        self._db.executemany("INSERT INTO order_row VALUES (?,?,?,?,?,?,?,?,?)", orders)
        self._db.executemany("INSERT INTO order_line VALUES (?,?,?,?,?,?,?,?)", items)

    def finish(
        self, addresses: Iterable[tuple[int, str | None]], contacts: Iterable[ExpectedContact]
    ) -> None:
        """Write the customers' addresses and the contacts, and commit the file."""
        self._db.executemany("INSERT INTO account VALUES (?,?)", addresses)
        marks = ",".join("?" * len(ExpectedContact._fields))
        self._db.executemany(f"INSERT INTO contact VALUES ({marks})", contacts)
        self._db.execute("CREATE UNIQUE INDEX entry_row_log ON entry_row (site_id, log_id)")
        self._db.execute("CREATE UNIQUE INDEX order_row_order ON order_row (site_id, order_id)")
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _numbered(self, entries: Iterable[EntryTruth]) -> Iterator[tuple[object, ...]]:
        for log_id, row, expected in entries:
            self._ord += 1
            kind, outcome, why, ac_name, data = expected
            yield (self._ord, row.site_id, log_id, kind, outcome, why, ac_name, data, row.customer.id)
