"""Compares what arrived at the sandbox with the ground truth: what was lost, repeated, out of order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

# The last `log=` of an event's eventdata names its entry.
_LOG_MARK = "log="
_LIST_STATUS = {1: "subscribe", 2: "unsubscribe", None: None}  # by ActiveCampaign's number

_ARRIVED = """
CREATE TEMP TABLE arrived (
  seq INTEGER PRIMARY KEY, log_id INTEGER NOT NULL, email TEXT, name TEXT NOT NULL, eventdata TEXT NOT NULL
);
CREATE TEMP TABLE shown (
  email TEXT PRIMARY KEY, first_name TEXT, last_name TEXT, phone TEXT, customer_id TEXT, list_status TEXT
);
"""

_INDEX = "CREATE INDEX temp.arrived_log ON arrived (log_id)"

_EXPECTED = "SELECT * FROM entry WHERE site_id = :site AND outcome = 'delivered'"

_QUESTIONS = {
    "expected": f"SELECT count(*) FROM ({_EXPECTED})",
    "arrived": "SELECT count(*) FROM arrived",
    "lost": f"SELECT count(*) FROM ({_EXPECTED}) e WHERE e.log_id NOT IN (SELECT log_id FROM arrived)",
    "unexpected": f"SELECT count(*) FROM arrived WHERE log_id NOT IN (SELECT log_id FROM ({_EXPECTED}))",
    "repeated": "SELECT count(*) - count(DISTINCT log_id) FROM arrived",
    "changed": f"""
        SELECT count(*) FROM ({_EXPECTED}) e JOIN arrived a USING (log_id)
        WHERE (a.email, a.name, a.eventdata) IS NOT (e.email, e.ac_name, e.eventdata)""",
    # A repeat is counted as such; what is out of order is judged by the first arrivals.
    "out_of_order": f"""
        SELECT count(*) FROM (
          SELECT e.ord, max(e.ord) OVER (
            PARTITION BY a.email ORDER BY a.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
          FROM (SELECT min(seq) AS seq, log_id, email FROM arrived GROUP BY log_id) a
          JOIN ({_EXPECTED}) e USING (log_id))
        WHERE ord < before""",
    "contacts": "SELECT count(*) FROM shown",
    "contacts_wrong": """
        SELECT count(*) FROM (
          SELECT email, first_name, last_name, phone, kiva_customer_id, list_status
          FROM contact WHERE site_id = :site
          EXCEPT SELECT * FROM shown)""",
    "contacts_unexpected": """
        SELECT count(*) FROM shown WHERE email NOT IN (SELECT email FROM contact WHERE site_id = :site)""",
}


class Comparison(msgspec.Struct, frozen=True):
    """How what arrived differs from the truth. All but `expected`, `arrived` and `contacts` should be 0."""

    expected: int  # events
    arrived: int  # events
    lost: int
    unexpected: int
    repeated: int
    changed: int  # to another contact, of another name, or with other eventdata
    out_of_order: int  # for their contact, by position
    contacts: int
    contacts_wrong: int
    contacts_unexpected: int

    @property
    def is_exact(self) -> bool:
        """Whether the truth arrived, each event once and in order, and nothing else."""
        same = self.expected == self.arrived
        return same and not any(
            getattr(self, name) for name in self.__struct_fields__[2:] if name != "contacts"
        )


def compare(
    truth: Path, site_id: int, events: Iterable[dict[str, Any]], contacts: Iterable[dict[str, Any]]
) -> Comparison:
    """Compare events in the order of arrival, and contacts, as the sandbox tells them, with a truth file."""
    with closing(sqlite3.connect(truth)) as database:
        database.executescript(_ARRIVED)
        database.executemany("INSERT INTO arrived VALUES (?, ?, ?, ?, ?)", _arrivals(events))
        database.executemany("INSERT INTO shown VALUES (?, ?, ?, ?, ?, ?)", _shown(contacts))
        database.execute(_INDEX)
        site = {"site": site_id}
        figures = {name: database.execute(sql, site).fetchone()[0] for name, sql in _QUESTIONS.items()}
        return Comparison(**figures)


def _arrivals(events: Iterable[dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    for seq, event in enumerate(events):
        log_id = event["eventdata"].rpartition(_LOG_MARK)[2]
        yield seq, int(log_id), event["email"], event["name"], event["eventdata"]


def _shown(contacts: Iterable[dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    """Take what contacts show; `setup` creates one list and one field."""
    for contact in contacts:
        yield (
            contact["email"],
            contact["first_name"],
            contact["last_name"],
            contact["phone"],
            next(iter(contact["fields"].values()), None),
            _LIST_STATUS[next(iter(contact["lists"].values()), None)],
        )
