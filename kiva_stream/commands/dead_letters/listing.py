"""`dead-letters list`: the dead letters that are meant, and how many there are by reason."""

from __future__ import annotations

from datetime import datetime

import msgspec

from kiva_stream.commands.dead_letters.selection import DeadLetterRequest, select
from kiva_stream.commands.held import name_of
from kiva_stream.model.bounds import place_text
from kiva_stream.model.ids import CustomerId
from kiva_stream.model.outcomes import Reason
from kiva_stream.settings.sections import Settings
from kiva_stream.state.dead_letters import RefusedOrder, SiteDeadLetters, StoredDeadLetter
from kiva_stream.state.held_records import StoredHeldRecords
from kiva_stream.state.store import Store

REPLAY_ASKED, DISCARDED = "replay asked", "discarded"


class DeadLetterRow(msgspec.Struct, frozen=True):
    """A dead letter, as a list shows it."""

    place: str  # TXID:ID, or order:ID
    reason: str
    customer: str | None
    attempts: int | None  # to send it; None: of an order, they are not counted
    dead_since: datetime | None = msgspec.field(name="died_at")  # None: of an order, it is not kept
    reply: str  # what ActiveCampaign said, without secrets and addresses
    mark: str = ""  # replay asked | discarded


class ReasonCount(msgspec.Struct, frozen=True):
    """How many dead letters have a reason; of them those whose replay is asked for, and the discarded."""

    reason: str
    count: int
    replay_asked: int
    discarded: int


class DeadLetterList(msgspec.Struct, frozen=True):
    """The answer of `dead-letters list`."""

    total: int
    reasons: list[ReasonCount]
    rows: list[DeadLetterRow] = msgspec.field(name="letters")  # at most as many as were asked for


async def list_dead_letters(
    settings: Settings, request: DeadLetterRequest, limit: int, *, oldest_first: bool
) -> DeadLetterList:
    """Return the dead letters that are meant, at most `limit` of them, and how many there are.

    Raises SettingsError when there is none at a named place, CheckpointError, and SourceError when
    the dead letters of a customer include refused orders.
    """
    async with Store.open_migrated(settings.state) as store:
        selected = await select(settings, store, request)
        found, counts = selected.dead_letters, await selected.count_by_reason()
        entries = await found.page(selected.of_entries, limit, oldest_first=oldest_first)
        orders = await found.refused_orders(
            selected.of_orders, limit - len(entries), oldest_first=oldest_first
        )
    return DeadLetterList(
        sum(each.count for each in counts),
        [
            ReasonCount(reason=each.why, count=each.count, replay_asked=each.asked, discarded=each.discarded)
            for each in counts
        ],
        [*map(row_of_entry, entries), *map(row_of_order, orders)],
    )


class ParkedRow(msgspec.Struct, frozen=True):
    """A parked entry, with what is held longest of its contact, if anything is."""

    place: str  # TXID:ID
    customers: list[str]  # of its contact
    parked_since: datetime
    waits_for: str  # contact | list | event | order:ID; "": an answer that is still waited for
    attempts: int | None
    next_try: datetime | None
    reply: str


class ParkedList(msgspec.Struct, frozen=True):
    """The answer of `dead-letters list --parked`."""

    total: int
    rows: list[ParkedRow]  # at most as many as were asked for


async def list_parked(
    settings: Settings, customer: CustomerId | None, limit: int, *, oldest_first: bool
) -> ParkedList:
    """Return the parked entries of a customer's contact, or all, at most `limit`. Raises CheckpointError."""
    async with Store.open_migrated(settings.state) as store:
        site_id = settings.source.site_id
        customers = (
            None
            if customer is None
            else await SiteDeadLetters(store, site_id).customers_of_same_contact(customer)
        )
        total, parked = await StoredHeldRecords(store, site_id).parked(
            customers, limit, oldest_first=oldest_first
        )
    return ParkedList(
        total,
        [
            ParkedRow(
                place=str(each.position),
                customers=list(map(str, each.customers)),
                parked_since=each.parked_at,
                waits_for=name_of(each.key) if each.key else "",
                attempts=each.attempts,
                next_try=each.next_try,
                reply=each.reply,
            )
            for each in parked
        ],
    )


def row_of_entry(letter: StoredDeadLetter) -> DeadLetterRow:
    """Return the row of an entry's dead letter."""
    return DeadLetterRow(
        place=str(letter.position),
        reason=letter.why,
        customer=None if letter.customer is None else str(letter.customer),
        attempts=letter.attempts,
        dead_since=letter.died_at,
        reply=letter.reply,
        mark=_mark(is_asked=letter.replay_at is not None, is_discarded=letter.discarded_at is not None),
    )


def row_of_order(order: RefusedOrder) -> DeadLetterRow:
    """Return the row of a refused order."""
    return DeadLetterRow(
        place=place_text(order.id),
        reason=Reason.ORDER_INVALID,
        customer=None,
        attempts=None,
        dead_since=None,
        reply=order.reply,
        mark=_mark(is_asked=order.is_asked, is_discarded=order.discarded_at is not None),
    )


def _mark(*, is_asked: bool, is_discarded: bool) -> str:
    return DISCARDED if is_discarded else REPLAY_ASKED if is_asked else ""
