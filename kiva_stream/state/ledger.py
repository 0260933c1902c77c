"""The checkpoint and the ledger of one site: implements the ports Ledger and Letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import datetime

import anyio
import asyncpg
import msgspec

from kiva_stream.errors import HeldError, SettingsError
from kiva_stream.model import (
    DELIVERED,
    Commit,
    CustomerId,
    HighWaterMark,
    Outcome,
    Position,
    Reason,
    SavedCheckpoint,
    Tally,
)
from kiva_stream.state.store import Connection, Store, columns, translated

FORGET_SLICE = 10_000  # rows a statement, so that none runs long
FOR_WANT_OF_A_CONTACT = [Reason.NO_EMAIL, Reason.AC_REJECTED, Reason.NO_CONTACT]


class SiteLedger:
    """The checkpoint and the ledger of one site, written through the connection that holds the site.

    Every call raises CheckpointError.
    """

    def __init__(self, store: Store, connection: Connection, site_id: int) -> None:
        self._store = store
        self._connection = connection
        self._turn = anyio.Lock()  # a connection does one thing at a time
        self._site_id = site_id

    async def bind(self, account: str, contact_url: str) -> None:
        """Note which account the site's state speaks of, and where people look at a contact there.

        Raises SettingsError, HeldError as `saved`.
        """
        await self._fetch("bind_site", account)
        await self._require(account)
        await self._fetch("set_contact_url", contact_url)

    async def saved(self, account: str) -> SavedCheckpoint | None:
        """Return the site's checkpoint, None when it has none.

        Raises SettingsError when it belongs to another account, HeldError when the account serves another
        site: all hashes would match, and nothing would be sent.
        """
        await self._require(account)
        for row in await self._fetch("checkpoint"):
            return SavedCheckpoint(
                account=account,
                since=row["since"],
                events_since=row["events_since"],
                counted_from=Position(row["counted_txid"], row["counted_id"]),
                watermark=Position(row["watermark_txid"], row["watermark_id"]),
            )
        return None

    async def begin(self, since: str, events_since: datetime | None, after: Position) -> None:
        """Create the checkpoint of a site that is bound: nothing at or below `after` will be read."""
        await self._fetch("begin_checkpoint", since, events_since, *after)

    async def begin_backfill(self, mark: HighWaterMark, entries: int) -> None:
        """Note how far a backfill goes, and how many entries lay before it when it began."""
        await self._fetch("begin_backfill", *mark.position, entries)

    async def set_phase(self, phase: str) -> None:
        """Note what is being done: contacts, orders, events, tags, done, sweep or follow."""
        await self._fetch("set_phase", phase)

    async def count_contacts(self) -> None:
        """Save how many contacts there are by status, so that nobody has to count them."""
        await self._fetch("count_contacts")

    async def begin_sweep(self) -> None:
        """Note that all contacts and orders are compared, before the log is followed from the watermark."""
        await self._fetch("begin_sweep")

    async def set_caught_up(self, moment: datetime) -> None:
        """Note that all that was readable at a moment has its outcome."""
        await self._fetch("set_caught_up", moment)

    async def commit(self, commit: Commit) -> None:
        """Save outcomes and watermark together."""
        delivered = [(*row.position, row.contact, row.line, row.attempts) for row in commit.delivered]
        ahead = [[*key, count] for key, count in commit.ahead.items()]
        await self._fetch(
            "commit",
            *commit.watermark,
            commit.pending,
            *columns(delivered, 5),
            *columns(_dead_rows(commit), 7),
            *columns(_gone(commit), 2),
            *columns([(*key, count) for key, count in _counted(commit).items()], 3),
            list(commit.touched),
            msgspec.json.encode(ahead).decode(),
        )

    async def of(self, customers: Collection[CustomerId]) -> dict[Position, Reason]:
        """Return the entries of these customers that died for want of a contact."""
        rows = await self._fetch("letters", FOR_WANT_OF_A_CONTACT, list(customers))
        return {Position(row["txid"], row["log_id"]): Reason(row["reason"]) for row in rows}

    async def customers_with_letters(self) -> set[CustomerId]:
        """Return the customers whose entries died for want of a contact."""
        rows = await self._fetch("customers_with_letters", FOR_WANT_OF_A_CONTACT)
        return {row["customer_id"] for row in rows}

    async def settled_above(self, watermark: Position) -> dict[Position, Outcome]:
        """Return the outcomes kept of entries above the watermark: they are not to be worked again."""
        delivered = await self._fetch("delivered_above", *watermark)
        dead = await self._fetch("dead_above", *watermark)
        return {Position(row["txid"], row["log_id"]): DELIVERED for row in delivered} | {
            Position(row["txid"], row["log_id"]): Outcome("dead", row["reason"]) for row in dead
        }

    async def forget_old_deliveries(self, keep_days: int, watermark: Position) -> None:
        """Remove ledger rows older than `keep_days`, a slice at a time; none above the watermark."""
        done = f"DELETE {FORGET_SLICE}"
        while done == f"DELETE {FORGET_SLICE}":
            async with self._turn:
                with translated():
                    done = await self._connection.execute(
                        self._store.sql["forget_old_deliveries"],
                        self._site_id,
                        keep_days,
                        *watermark,
                        FORGET_SLICE,
                    )

    async def _require(self, account: str) -> None:
        """Raise SettingsError or HeldError when the site and this account do not belong together."""
        for row in await self._fetch("site"):
            if row["account"] != account:
                raise SettingsError(
                    f"The state of site {self._site_id} belongs to the ActiveCampaign account "
                    f"{row['account']}, and activecampaign.api_url and event_actid name {account}: "
                    "set them back, or use another state.schema for the other account."
                )
            return
        for row in await self._store.fetch("site_of_account", account):
            raise HeldError(
                f"The ActiveCampaign account {account} serves site {row['site_id']}: "
                "an account serves one site, use another one."
            )

    async def _fetch(self, block: str, *args: object) -> list[asyncpg.Record]:
        async with self._turn:
            with translated():
                return await self._connection.fetch(  # type: ignore[no-any-return]
                    self._store.sql[block], self._site_id, *args
                )


def _dead_rows(commit: Commit) -> list[tuple[object, ...]]:
    """Return the dead letters as rows, each with whether it is one that died before."""
    revived = {position for position, _ in commit.revived}
    return [
        (*row.position, row.why, row.customer, row.attempts, row.reply, row.position in revived)
        for row in commit.dead
    ]


def _gone(commit: Commit) -> list[Position]:
    """Return the dead letters that are none any more: whoever died again stays one."""
    dead = {row.position for row in commit.dead}
    return [position for position, _ in commit.revived if position not in dead]


def _counted(commit: Commit) -> Tally:
    """Return what a commit adds to the counts: who was revived is not counted as dead any more."""
    counts = Counter(commit.passed)
    counts.subtract(("outcome", str(Outcome("dead", why))) for _, why in commit.revived)
    return counts
