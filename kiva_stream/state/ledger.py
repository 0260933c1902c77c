"""The checkpoint and the ledger of one site: implements the port Ledger."""

from __future__ import annotations

from datetime import datetime

import asyncpg
import msgspec

from kiva_stream.errors import HeldError, SettingsError
from kiva_stream.model import (
    DELIVERED,
    Commit,
    HighWaterMark,
    Outcome,
    Position,
    SavedCheckpoint,
)
from kiva_stream.state.store import Store, columns, translated

FORGET_SLICE = 10_000  # rows a statement, so that none runs long


class SiteLedger:
    """The checkpoint and the ledger of one site, written through the connection that holds the site.

    Every call raises CheckpointError.
    """

    def __init__(self, store: Store, connection: asyncpg.Connection, site_id: int) -> None:
        self._store = store
        self._connection = connection
        self._site_id = site_id

    async def saved(self, account: str) -> SavedCheckpoint | None:
        """Return the site's checkpoint, None when it has none.

        Raises SettingsError when it belongs to another account, HeldError when the account serves another
        site: all hashes would match, and nothing would be sent.
        """
        for row in await self._fetch("site"):
            if row["account"] != account:
                raise SettingsError(
                    f"The state of site {self._site_id} belongs to the ActiveCampaign account "
                    f"{row['account']}, and activecampaign.api_url and event_actid name {account}: "
                    "set them back, or use another state.schema for the other account."
                )
            return SavedCheckpoint(
                account=account,
                since=row["since"],
                events_since=row["events_since"],
                counted_from=Position(row["counted_txid"], row["counted_id"]),
                watermark=Position(row["watermark_txid"], row["watermark_id"]),
            )
        for row in await self._store.fetch("site_of_account", account):
            raise HeldError(
                f"The ActiveCampaign account {account} serves site {row['site_id']}: "
                "an account serves one site, use another one."
            )
        return None

    async def begin(self, account: str, since: str, events_since: datetime | None, after: Position) -> None:
        """Create the site's checkpoint: nothing at or below `after` will be read."""
        await self._fetch("begin_site", account, since, events_since, *after)

    async def begin_backfill(self, mark: HighWaterMark, entries: int) -> None:
        """Note how far a backfill goes, and how many entries lay before it when it began."""
        await self._fetch("begin_backfill", *mark.position, entries)

    async def set_phase(self, phase: str) -> None:
        """Note what is being done: contacts, events or done."""
        await self._fetch("set_phase", phase)

    async def count_contacts(self) -> None:
        """Save how many contacts there are by status, so that nobody has to count them."""
        await self._fetch("count_contacts")

    async def commit(self, commit: Commit) -> None:
        """Save outcomes and watermark together."""
        delivered = [(*row.position, row.contact, row.line, row.attempts) for row in commit.delivered]
        dead = [(*row.position, row.why, row.customer, row.attempts, row.reply) for row in commit.dead]
        passed = [(*key, count) for key, count in commit.passed.items()]
        ahead = [[*key, count] for key, count in commit.ahead.items()]
        await self._fetch(
            "commit",
            *commit.watermark,
            commit.pending,
            *columns(delivered, 5),
            *columns(dead, 6),
            *columns(passed, 3),
            msgspec.json.encode(ahead).decode(),
        )

    async def settled_above(self, watermark: Position) -> dict[Position, Outcome]:
        """Return the outcomes kept of entries above the watermark: they are not to be worked again."""
        delivered = await self._fetch("delivered_above", *watermark)
        dead = await self._fetch("dead_above", *watermark)
        return {Position(row["txid"], row["log_id"]): DELIVERED for row in delivered} | {
            Position(row["txid"], row["log_id"]): Outcome("dead", row["reason"]) for row in dead
        }

    async def forget_old_deliveries(self, keep_days: int, watermark: Position) -> None:
        """Remove ledger rows older than `keep_days`, a slice at a time; none above the watermark."""
        while True:
            with translated():
                done = await self._connection.execute(
                    self._store.sql["forget_old_deliveries"],
                    self._site_id,
                    keep_days,
                    *watermark,
                    FORGET_SLICE,
                )
            if done != f"DELETE {FORGET_SLICE}":
                return

    async def _fetch(self, block: str, *args: object) -> list[asyncpg.Record]:
        with translated():
            return await self._connection.fetch(  # type: ignore[no-any-return]
                self._store.sql[block], self._site_id, *args
            )
