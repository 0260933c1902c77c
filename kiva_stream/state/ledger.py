"""The checkpoint of a site, and what is committed with it: ledger, dead letters, parked entries, tallies."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection
from datetime import datetime

import anyio
import asyncpg
import msgspec

from kiva_stream.errors import CheckpointError, HeldError, SettingsError, StateBusyError
from kiva_stream.model.checkpoint import Commit, Leftovers, ParkedBehind, SavedCheckpoint
from kiva_stream.model.held_records import HeldKey, HeldKind
from kiva_stream.model.ids import ContactId, CustomerId
from kiva_stream.model.outcomes import CONTACT_REASONS, Outcome, Reason, Tally
from kiva_stream.model.positions import DAY1, HighWaterMark, Position
from kiva_stream.observability.logs import ThrottledWarning
from kiva_stream.state.leases import Lease
from kiva_stream.state.store import Store, columns, literals

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0  # between two tries to commit
PRUNE_SLICE = 10_000  # rows a statement, so that none runs long


class SiteLedger:
    """Implements the ports Ledger and ContactDeadLetters for the site that `lease` holds.

    Every call raises CheckpointError.
    """

    def __init__(self, store: Store, lease: Lease, site_id: int) -> None:
        self._store = store
        self._lease = lease
        self._site_id = site_id
        self._longest_s = lease.lease_s / 2  # of a commit, so that the lease lasts for a repetition
        self._commits = 0  # the number of the last commit of this site
        self._warn = ThrottledWarning()

    async def bind(self, account: str, contact_url: str) -> None:
        """Record which account the site's state is about, and the URL of a contact's page there.

        Raises SettingsError, HeldError as `saved`.
        """
        await self._fetch("bind_site", account)
        await _require_bound(self._store, self._site_id, account)
        await self._fetch("set_contact_url", contact_url)

    async def saved(self, account: str) -> SavedCheckpoint | None:
        """Return the site's checkpoint. Raises as `saved_checkpoint`."""
        return await saved_checkpoint(self._store, self._site_id, account)

    async def begin(self, start: SavedCheckpoint) -> None:
        """Create the checkpoint of a site that is bound: nothing at or below its watermark will be read."""
        await self._fetch(
            "begin_checkpoint", start.since, start.events_since, *start.watermark, start.horizon
        )

    async def begin_backfill(self, mark: HighWaterMark, entries: int) -> None:
        """Record up to where a backfill reads, and how many entries it has before it."""
        await self._fetch("begin_backfill", *mark.position, entries)

    async def set_phase(self, phase: str) -> None:
        """Record the phase: contacts, orders, events, tags, done, sweep or follow."""
        await self._fetch("set_phase", phase)

    async def count_contacts(self) -> None:
        """Save the number of contacts by status, which `status` shows."""
        await self._fetch("tally_contacts")

    async def begin_sweep(self) -> None:
        """Record the phase `sweep`: all contacts and orders are compared before the log is followed."""
        await self._fetch("begin_sweep")

    async def set_caught_up(self, moment: datetime) -> None:
        """Record that every entry that was readable at a moment has its outcome."""
        await self._fetch("set_caught_up", moment)

    async def commit(self, commit: Commit) -> None:
        """Run the commit's statement, and again after an error that may pass, for as long as the lease lasts.

        A time during which the process stood still (a stopped process, a suspended machine) is not counted
        beyond a statement's deadline: the database was not asked in it, and no other process may have taken
        the site.

        A statement whose answer was lost may have saved the commit. Commits are numbered, and the statement
        refuses a number that is not the next one. Before each repetition there are three cases:
        - the saved number is this commit's: it is saved, and nothing is left to do;
        - the saved number is the one before: the statement is sent again;
        - the number cannot be read now: the statement is sent again, and refused if the commit is saved.
        """
        number, left_s, wait_s = self._commits + 1, self._lease.lease_s, FIRST_WAIT_S
        may_be_saved = False
        while not (may_be_saved and await self._is_saved(number)):
            asked_at = time.monotonic()
            try:
                await self._commit(commit, number)
                break
            except CheckpointError as error:
                # A repetition may be refused since the commit is saved: the next round finds out.
                may_pass = isinstance(error, StateBusyError) or may_be_saved
                left_s -= min(time.monotonic() - asked_at, self._longest_s) + wait_s
                if not may_pass or left_s < 0:
                    raise
                self._warn("the state database refuses a commit: trying again", why=str(error))
            await anyio.sleep(wait_s)
            may_be_saved, wait_s = True, min(2 * wait_s, LONGEST_WAIT_S)
        self._commits = number

    async def _commit(self, commit: Commit, number: int) -> None:
        asked_at = time.monotonic()
        await self._fetch(
            "commit",
            *commit.watermark,
            commit.pending,
            *literals(
                [(*row.position, row.contact, row.event_line, row.attempts) for row in commit.delivered], 5
            ),
            *columns(_dead_rows(commit), 7),
            *columns(_resolved(commit), 2),
            _counts(_counted(commit)),
            list(commit.tags_due),
            _counts(commit.ahead),
            *literals(commit.intents, 2),
            *columns([(*position, contact) for position, contact in commit.parked], 3),
            *columns(commit.unparked, 2),
            number,
            self._lease.token,
            self._lease.lease_s,
            timeout_s=self._longest_s,
        )
        self._lease.renewed(asked_at)

    async def _is_saved(self, number: int) -> bool:
        """Return whether the commit of a number is saved; False also if that cannot be read."""
        try:
            return await self._number() == number
        except StateBusyError:
            return False

    async def _number(self) -> int:
        """Return the number of the last commit, 0 before the first."""
        return next((row["commits"] for row in await self._fetch("last_commit")), 0)

    async def leftovers(self) -> Leftovers:
        """Return what earlier runs left for the next one."""
        self._commits = await self._number()
        resolved_to = next((_position(row) for row in await self._fetch("last_resolved")), DAY1)
        customers = await self.customers_with_dead_letters()
        (parked,) = await self._fetch("count_parked", None)
        in_doubt = map(_position, await self._fetch("unresolved_intents"))
        counted = next((Position(*row) for row in await self._fetch("counted_from")), DAY1)
        discarded = map(_position, await self._fetch("discarded_above"))
        return Leftovers(
            earlier_outcomes_to=resolved_to,
            dead_letter_customers=frozenset(customers),
            parked=parked["count"],
            in_doubt=frozenset(in_doubt),
            counted_from=counted,
            discarded=frozenset(discarded),
        )

    async def parked_page(self, after: Position, until: Position, count: int) -> list[Position]:
        """See Ledger.parked_page."""
        return [_position(row) for row in await self._fetch("parked_page", *after, *until, count)]

    async def largest_parked(self, count: int) -> list[ParkedBehind]:
        """See Ledger.largest_parked."""
        return [
            ParkedBehind(
                row["count"],
                row["customers"],
                HeldKey(HeldKind(row["kind"]), row["id"]) if row["kind"] else None,
            )
            for row in await self._fetch("largest_parked", count)
        ]

    async def parked_of(self, contacts: Collection[ContactId]) -> list[Position]:
        """See Ledger.parked_of."""
        return [_position(row) for row in await self._fetch("parked_of", list(contacts))]

    async def earlier_outcomes(self, after: Position, until: Position) -> dict[Position, Outcome]:
        """Return outcomes from the ledger, the dead letters and the parked entries."""
        rows = await self._fetch("earlier_outcomes", *after, *until)
        return {_position(row): Outcome(row["kind"], row["why"]) for row in rows}

    async def reopenable(
        self, positions: Collection[Position], dead_letters: Collection[Position]
    ) -> set[Position]:
        """Look for the positions among the parked entries, or among the dead letters not delivered."""
        asked = [(*position, position in dead_letters) for position in positions]
        return {_position(row) for row in await self._fetch("reopenable", *columns(asked, 3))}

    async def delivered(self, positions: Collection[Position]) -> set[Position]:
        """Return those of these entries that are delivered."""
        return {_position(row) for row in await self._fetch("delivered", *columns(list(positions), 2))}

    async def without_contact(self, customers: Collection[CustomerId]) -> dict[Position, Reason]:
        """Return dead letters by position."""
        rows = await self._fetch("dead_letters_without_contact", list(CONTACT_REASONS), list(customers))
        return {_position(row): Reason(row["reason"]) for row in rows}

    async def customers_with_dead_letters(self) -> set[CustomerId]:
        """Return the customers with dead letters that `without_contact` would return."""
        rows = await self._fetch("customers_with_dead_letters", list(CONTACT_REASONS))
        return {row["customer_id"] for row in rows}

    async def prune(self, keep_days: int, watermark: Position) -> None:
        """Delete ledger rows at or below the watermark that are older than `keep_days`, a slice at a time."""
        while await self._fetch("prune_ledger", keep_days, *watermark, PRUNE_SLICE):
            pass

    async def _fetch(self, block: str, *args: object, timeout_s: float | None = None) -> list[asyncpg.Record]:
        return await self._store.fetch(block, self._site_id, *args, timeout_s=timeout_s)


async def saved_checkpoint(store: Store, site_id: int, account: str) -> SavedCheckpoint | None:
    """Return the checkpoint of a site, None when it has none.

    Raises SettingsError when it belongs to another account, HeldError when the account serves another
    site: all hashes would match, and nothing would be sent. Raises CheckpointError.
    """
    await _require_bound(store, site_id, account)
    for row in await store.fetch("checkpoint", site_id):
        return SavedCheckpoint(
            since=row["since"],
            events_since=row["events_since"],
            watermark=Position(row["watermark_txid"], row["watermark_id"]),
            horizon=row["horizon"],
            moved_ago=row["moved_ago"],
            rewound_at=row["rewound_at"],
        )
    return None


async def _require_bound(store: Store, site_id: int, account: str) -> None:
    """Raise SettingsError or HeldError when the site and this account do not belong together."""
    for row in await store.fetch("site", site_id):
        if row["account"] != account:
            raise SettingsError(
                f"The state of site {site_id} belongs to the ActiveCampaign account "
                f"{row['account']}, and activecampaign.api_url and event_actid name {account}: "
                "set them back, or use another state.schema for the other account."
            )
        return
    for row in await store.fetch("site_of_account", account):
        raise HeldError(
            f"The ActiveCampaign account {account} serves site {row['site_id']}: "
            "an account serves one site, use another one."
        )


def _position(row: asyncpg.Record) -> Position:
    return Position(row["txid"], row["log_id"])


def _dead_rows(commit: Commit) -> list[tuple[object, ...]]:
    """Return dead letters as rows, each with whether it replaces an earlier one of the same entry."""
    reopened = {position for position, _ in commit.superseded}
    return [
        (*row.position, row.why, row.customer, row.attempts, row.reply, row.position in reopened)
        for row in commit.dead
    ]


def _resolved(commit: Commit) -> list[Position]:
    """Return the positions of reopened dead letters that are not dead again."""
    dead = {row.position for row in commit.dead}
    return [position for position, _ in commit.superseded if position not in dead]


def _counted(commit: Commit) -> Tally:
    """Return what a commit adds to the tallies: a reopened dead letter no longer counts as dead."""
    counts = Counter(commit.passed)
    counts.subtract(("outcome", str(Outcome("dead", why))) for _, why in commit.superseded)
    return counts


def _counts(tally: Tally) -> str:
    """Return a tally as the JSON rows that the statement reads."""
    return msgspec.json.encode([[*key, count] for key, count in tally.items()]).decode()
