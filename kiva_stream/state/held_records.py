"""The held records of a site (the table `held`)."""

from __future__ import annotations

from collections.abc import Collection

from kiva_stream.model.held_records import HeldKey, HeldKind, HeldRecord
from kiva_stream.state.store import Store, columns


class StoredHeldRecords:
    """Implements the port HeldRows for one site."""

    def __init__(self, store: Store, site_id: int) -> None:
        self._store = store
        self._site_id = site_id

    async def read(self) -> list[HeldRecord]:
        """Return the rows of the site."""
        return [
            HeldRecord(
                HeldKey(HeldKind(row["kind"]), row["id"]),
                contact=row["contact_id"],
                fingerprint=row["fingerprint"],
                reply=row["reply"],
                attempts=row["attempts"],
                due_in_s=row["due_in_s"],
                is_suspect=row["suspect"],
                is_discarded=row["is_discarded"],
            )
            for row in await self._store.fetch("held_records", self._site_id)
        ]

    async def record(self, held: Collection[HeldRecord]) -> None:
        """Write the rows in one statement."""
        rows = [
            (
                *(*each.key, each.contact, each.fingerprint),
                *(each.reply, each.attempts, each.is_suspect, each.due_in_s),
            )
            for each in held
        ]
        await self._store.fetch("record_held", self._site_id, *columns(rows, 8))

    async def end(self, keys: Collection[HeldKey]) -> None:
        """Delete the rows."""
        await self._store.fetch("end_held", self._site_id, *columns(list(keys), 2))
