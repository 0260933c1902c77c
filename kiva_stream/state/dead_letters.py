"""Dead letters in the state schema: looked at, asked for, discarded. Implements the port Asked.

Refused orders are dead letters too; they have no position, but an order's id.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

import asyncpg
import msgspec

from kiva_stream.model.dead_letters import ReplayRequest
from kiva_stream.model.ids import CustomerId, OrderId
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import Position
from kiva_stream.state.store import Store, columns

OLDEST_FIRST, NEWEST_FIRST = 1, -1


class DeadLetterFilter(NamedTuple):
    """Which dead letters are meant. None: that does not matter."""

    reason: Reason | None = None
    customers: Collection[CustomerId] | None = None
    positions: Collection[Position] | None = None


class StoredDeadLetter(msgspec.Struct, frozen=True):
    """A dead letter of an entry."""

    position: Position
    why: Reason
    customer: CustomerId | None
    attempts: int  # 0: nothing was sent
    reply: str  # what ActiveCampaign said, without secrets and addresses
    died_at: datetime
    replay_at: datetime | None  # when its replay was asked for
    discarded_at: datetime | None


class RefusedOrder(msgspec.Struct, frozen=True):
    """A dead letter of an order."""

    id: OrderId
    reply: str  # what was said against it
    is_asked: bool  # to be sent again
    discarded_at: datetime | None


class DeadLetterCount(msgspec.Struct, frozen=True):
    """How many letters died of a reason, and what is to become of some of them."""

    why: Reason
    count: int
    asked: int
    discarded: int


class SiteDeadLetters:
    """The dead letters of one site. Every call raises CheckpointError."""

    def __init__(self, store: Store, site_id: int) -> None:
        self._store = store
        self._site_id = site_id

    async def customers_of_same_contact(self, customer: CustomerId) -> set[CustomerId]:
        """Return the customers of a customer's contact, itself among them in any case."""
        rows = await self._fetch("of_one_contact", customer)
        return {customer, *(row["customer_id"] for row in rows)}

    # --- entries ---

    async def page(
        self, choice: DeadLetterFilter, count: int | None, *, oldest_first: bool = False
    ) -> list[StoredDeadLetter]:
        """Return up to `count` of these letters, all of them where it is None."""
        direction = OLDEST_FIRST if oldest_first else NEWEST_FIRST
        rows = await self._fetch("dead_letters", *_arguments(choice), direction, count)
        return [_letter(row) for row in rows]

    async def counts(self, choice: DeadLetterFilter) -> list[DeadLetterCount]:
        """Return how many of these letters there are, by reason."""
        rows = await self._fetch("count_letters", *_arguments(choice))
        return [_counted(Reason(row["reason"]), row) for row in rows]

    async def request_replay(self, choice: DeadLetterFilter) -> int:
        """Have these letters replayed, discarded ones only where positions are named; return how many."""
        return await self._count("ask_letters", *_arguments(choice))

    async def discard(self, choice: DeadLetterFilter) -> int:
        """Mark these letters as discarded; return how many were not before."""
        return await self._count("discard_letters", *_arguments(choice))

    async def replay_requests(self) -> dict[Position, ReplayRequest]:
        """Return the entries that are to be replayed, in log order."""
        rows = await self._fetch("asked_letters")
        return {_position(row): ReplayRequest(Reason(row["reason"]), row["replay_at"]) for row in rows}

    # --- orders ---

    async def refused_orders(
        self, ids: Collection[OrderId] | None, count: int | None, *, oldest_first: bool = False
    ) -> list[RefusedOrder]:
        """Return up to `count` of the refused orders of these ids, of all where it is None; by their ids."""
        direction = OLDEST_FIRST if oldest_first else NEWEST_FIRST
        rows = await self._fetch("refused_orders", _ids(ids), direction, count)
        return [_refused(row) for row in rows]

    async def count_refused_orders(self, ids: Collection[OrderId] | None) -> DeadLetterCount:
        """Return how many refused orders there are."""
        (row,) = await self._fetch("count_refused", _ids(ids))
        return _counted(Reason.ORDER_INVALID, row)

    async def request_order_replay(self, ids: Collection[OrderId] | None, *, with_discarded: bool) -> int:
        """Have refused orders sent again when they are looked at; return how many."""
        return await self._count("ask_orders", _ids(ids), with_discarded)

    async def discard_refused_orders(self, ids: Collection[OrderId] | None) -> int:
        """Mark refused orders as discarded; return how many were not before."""
        return await self._count("discard_orders", _ids(ids))

    async def order_replay_requests(self) -> list[OrderId]:
        """Return the refused orders that are to be sent again."""
        return [row["order_id"] for row in await self._fetch("asked_orders")]

    async def _count(self, block: str, *args: object) -> int:
        rows = await self._fetch(block, *args)
        return rows[0]["count"]  # type: ignore[no-any-return]  # bigint

    async def _fetch(self, block: str, *args: object) -> list[asyncpg.Record]:
        return await self._store.fetch(block, self._site_id, *args)


def _arguments(choice: DeadLetterFilter) -> tuple[object, ...]:
    """Return a choice as the arguments of the block `chosen`, but for the site."""
    positions = choice.positions
    txids, ids = (None, None) if positions is None else columns(list(positions), 2)
    return choice.reason, None if choice.customers is None else list(choice.customers), txids, ids


def _ids(ids: Collection[OrderId] | None) -> list[OrderId] | None:
    return None if ids is None else list(ids)


def _position(row: asyncpg.Record) -> Position:
    return Position(row["txid"], row["log_id"])


def _letter(row: asyncpg.Record) -> StoredDeadLetter:
    return StoredDeadLetter(
        position=_position(row),
        why=Reason(row["reason"]),
        customer=row["customer_id"],
        attempts=row["attempts"],
        reply=row["reply"],
        died_at=row["died_at"],
        replay_at=row["replay_at"],
        discarded_at=row["discarded_at"],
    )


def _refused(row: asyncpg.Record) -> RefusedOrder:
    return RefusedOrder(row["order_id"], row["refused"], row["is_asked"], row["discarded_at"])


def _counted(why: Reason, row: asyncpg.Record) -> DeadLetterCount:
    return DeadLetterCount(why, row["count"], row["asked"], row["discarded"])
