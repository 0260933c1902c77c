"""The held records that the state keeps, in memory: see HeldRows of `ports/state.py`."""

from __future__ import annotations

from collections.abc import Collection

import anyio.lowlevel
from msgspec.structs import replace

from kiva_stream.errors import StateBusyError
from kiva_stream.model.held_records import HeldKey, HeldKind, HeldRecord, Silent
from kiva_stream.model.ids import ContactId
from kiva_stream.sync.held_records import HeldRecords

RETRY_S = 300.0


class FakeHeldRows:
    """Implements HeldRows; is kept from run to run, between which no time passes."""

    def __init__(self) -> None:
        self.rows: dict[HeldKey, HeldRecord] = {}
        self.is_busy = False

    async def read(self, *, is_due: bool = False) -> list[HeldRecord]:
        await anyio.lowlevel.checkpoint()
        if self.is_busy:
            raise StateBusyError("the state is busy")
        return [each for each in self.rows.values() if not is_due or each.due_in_s <= 0]

    async def record(self, held: Collection[HeldRecord]) -> None:
        await anyio.lowlevel.checkpoint()
        self.rows |= {each.key: each for each in held}

    async def move(self, key: HeldKey, contact: ContactId) -> None:
        await anyio.lowlevel.checkpoint()
        self.rows[key] = replace(self.rows[key], contact=contact)

    async def end(self, keys: Collection[HeldKey]) -> None:
        await anyio.lowlevel.checkpoint()
        for key in keys:
            del self.rows[key]

    def ask(self, kind: HeldKind, record: int, *, discard: bool = False) -> None:
        """Do what another process does: make a record due, or discard it."""
        key = HeldKey(kind, record)
        self.rows[key] = replace(self.rows[key], is_discarded=discard, due_in_s=0)

    def ask_all(self) -> None:
        """Do what `dead-letters replay --all` does in another process."""
        for key in self.rows:
            self.ask(key.kind, key.id)


def held_records(rows: FakeHeldRows | None = None, retry_s: float = RETRY_S) -> HeldRecords:
    """Return the held records of a new process, by default none."""
    rows = rows or FakeHeldRows()
    return HeldRecords(rows, rows.rows.values(), retry_s, chance=lambda: 0.0)


def silent(contact: int, fingerprint: bytes = b"as it was", reply: str = "500") -> Silent:
    """Return what is told of a record that got no answer."""
    return Silent(ContactId(contact), fingerprint, reply)
