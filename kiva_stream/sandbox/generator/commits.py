"""Ids and transactions: the order in which the rows of a log become visible.

A row takes its id when it is written, and its position when its transaction commits. Some rows are written in
long transactions and become visible among rows with higher ids. Ids of rolled-back transactions stay unused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush

from kiva_stream.sandbox.generator.clock import MINUTE, SECOND
from kiva_stream.sandbox.generator.draw import Draw
from kiva_stream.sandbox.generator.rows import Row

LATE_SHARE, VERY_LATE_SHARE = 0.005, 0.0001
ROLLED_BACK_SHARE = 0.003

Entry = tuple[int, Row]  # a row with its id


class Commits:
    """Groups rows, given in the order in which they are written, into transactions."""

    def __init__(self, seed: int, rows_per_transaction: int = 1000) -> None:
        self.last_id = 0
        self.late = 0
        self.id_gaps = 0
        self._draw = Draw(f"commits/{seed}")
        self._size = rows_per_transaction
        self._held: list[tuple[int, int, Row]] = []  # late rows: when each commits, its id, the row

    def transactions(self, rows: Iterable[Row]) -> Iterator[list[Entry]]:
        """Yield the entries of one transaction after another, by id within each.

        A late row is part of the first transaction that commits after its delay, never of the one in which
        it was written.
        """
        entries: list[Entry] = []
        late: list[tuple[int, int, Row]] = []
        for row in rows:
            self._assign_id(row, entries, late)
            if len(entries) >= self._size:
                yield self._commit(entries, late, row.inserted_ms)
                entries, late = [], []
        if entries:
            yield self._commit(entries, late, entries[-1][1].inserted_ms)

    def rest(self) -> Iterator[list[Entry]]:
        """Yield the late rows that are left when the log ends, as a last transaction."""
        if self._held:
            yield sorted((log_id, row) for _, log_id, row in self._held)
            self._held = []

    def _assign_id(self, row: Row, entries: list[Entry], late: list[tuple[int, int, Row]]) -> None:
        chance = self._draw.random()
        self.last_id += 1
        if chance < ROLLED_BACK_SHARE:
            self.last_id += 1
            self.id_gaps += 1
        elif chance > 1 - LATE_SHARE - VERY_LATE_SHARE:
            very = chance > 1 - VERY_LATE_SHARE
            least_ms, most_ms = (5 * MINUTE, 30 * MINUTE) if very else (5 * SECOND, MINUTE)
            held_ms = least_ms + self._draw.below(most_ms - least_ms)
            late.append((row.inserted_ms + held_ms, self.last_id, row))
            self.late += 1
            return
        entries.append((self.last_id, row))

    def _commit(self, entries: list[Entry], late: list[tuple[int, int, Row]], now_ms: int) -> list[Entry]:
        """Return a transaction with the late rows that are due by now, and keep the new late ones."""
        due = []
        while self._held and self._held[0][0] <= now_ms:
            _, log_id, row = heappop(self._held)
            due.append((log_id, row))
        for held in late:
            heappush(self._held, held)
        return sorted(due, key=_by_id) + entries


def _by_id(entry: Entry) -> int:
    return entry[0]
