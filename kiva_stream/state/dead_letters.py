"""The dead letters of a site: listed, marked for a replay, discarded.

An entry's dead letter is a row of `dead_letter`, by its position. A refused order is a dead letter too: a row
of `sent_order` with a reply, by the order's id.
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
    """Selects dead letters of entries by each of its fields that is not None."""

    reason: Reason | None = None
    customers: Collection[CustomerId] | None = None
    positions: Collection[Position] | None = None


class StoredDeadLetter(msgspec.Struct, frozen=True):
    """The dead letter of an entry."""

    position: Position
    why: Reason
    customer: CustomerId | None
    attempts: int  # 0: nothing was sent
    reply: str  # of ActiveCampaign, without secrets and addresses
    died_at: datetime
    replay_at: datetime | None  # when its replay was requested
    discarded_at: datetime | None


class RefusedOrder(msgspec.Struct, frozen=True):
    """The dead letter of an order."""

    id: OrderId
    reply: str  # of ActiveCampaign
    is_asked: bool  # its replay is requested
    discarded_at: datetime | None


class DeadLetterCount(msgspec.Struct, frozen=True):
    """The number of dead letters of a reason, and how many of them are marked."""

    why: Reason
    count: int
    asked: int  # a replay is requested
    discarded: int


class SiteDeadLetters:
    """Implements the port ReplayRequests for one site. Every call raises CheckpointError."""

    def __init__(self, store: Store, site_id: int) -> None:
        self._store = store
        self._site_id = site_id

    async def customers_of_same_contact(self, customer: CustomerId) -> set[CustomerId]:
        """Return this customer and all others that are linked to the same contact."""
        rows = await self._fetch("customers_of_same_contact", customer)
        return {customer, *(row["customer_id"] for row in rows)}

    # --- entries ---

    async def page(
        self, selected: DeadLetterFilter, count: int | None, *, oldest_first: bool = False
    ) -> list[StoredDeadLetter]:
        """Return up to `count` of the selected dead letters, by when they died; all of them if it is None."""
        direction = OLDEST_FIRST if oldest_first else NEWEST_FIRST
        rows = await self._fetch("dead_letters", *_arguments(selected), direction, count)
        return [_dead_letter(row) for row in rows]

    async def counts(self, selected: DeadLetterFilter) -> list[DeadLetterCount]:
        """Return the number of the selected dead letters, by reason."""
        rows = await self._fetch("count_dead_letters", *_arguments(selected))
        return [_count_of(Reason(row["reason"]), row) for row in rows]

    async def request_replay(self, selected: DeadLetterFilter) -> int:
        """Mark the selected dead letters for a replay; return how many are.

        Discarded ones are marked only if the filter names positions.
        """
        return await self._count("request_replay", *_arguments(selected))

    async def discard(self, selected: DeadLetterFilter) -> int:
        """Mark the selected dead letters as discarded; return how many were not discarded before."""
        return await self._count("discard_dead_letters", *_arguments(selected))

    async def replay_requests(self) -> dict[Position, ReplayRequest]:
        """Return requests by position, each with the reason and the moment of the request."""
        rows = await self._fetch("replay_requests")
        return {_position(row): ReplayRequest(Reason(row["reason"]), row["replay_at"]) for row in rows}

    # --- orders ---

    async def refused_orders(
        self, ids: Collection[OrderId] | None, count: int | None, *, oldest_first: bool = False
    ) -> list[RefusedOrder]:
        """Return up to `count` of the refused orders of these ids, by id. None means all, for both."""
        direction = OLDEST_FIRST if oldest_first else NEWEST_FIRST
        rows = await self._fetch("refused_orders", _ids(ids), direction, count)
        return [_refused(row) for row in rows]

    async def count_refused_orders(self, ids: Collection[OrderId] | None) -> DeadLetterCount:
        """Return the number of the refused orders of these ids, of all if it is None."""
        (row,) = await self._fetch("count_refused_orders", _ids(ids))
        return _count_of(Reason.ORDER_INVALID, row)

    async def request_order_replay(self, ids: Collection[OrderId] | None, *, with_discarded: bool) -> int:
        """Clear the fingerprints of refused orders, so that they are sent again; return how many."""
        return await self._count("request_order_replay", _ids(ids), with_discarded)

    async def discard_refused_orders(self, ids: Collection[OrderId] | None) -> int:
        """Mark refused orders as discarded; return how many were not discarded before."""
        return await self._count("discard_refused_orders", _ids(ids))

    async def order_replay_requests(self) -> list[OrderId]:
        """Return the refused orders without a fingerprint that are not discarded."""
        return [row["order_id"] for row in await self._fetch("order_replay_requests")]

    async def _count(self, block: str, *args: object) -> int:
        rows = await self._fetch(block, *args)
        return rows[0]["count"]  # type: ignore[no-any-return]  # bigint

    async def _fetch(self, block: str, *args: object) -> list[asyncpg.Record]:
        return await self._store.fetch(block, self._site_id, *args)


def _arguments(selected: DeadLetterFilter) -> tuple[object, ...]:
    """Return a filter as the arguments of the block `is_selected`, but for the site."""
    positions = selected.positions
    txids, ids = (None, None) if positions is None else columns(list(positions), 2)
    return selected.reason, None if selected.customers is None else list(selected.customers), txids, ids


def _ids(ids: Collection[OrderId] | None) -> list[OrderId] | None:
    return None if ids is None else list(ids)


def _position(row: asyncpg.Record) -> Position:
    return Position(row["txid"], row["log_id"])


def _dead_letter(row: asyncpg.Record) -> StoredDeadLetter:
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
    return RefusedOrder(
        id=row["order_id"], reply=row["refused"], is_asked=row["is_asked"], discarded_at=row["discarded_at"]
    )


def _count_of(why: Reason, row: asyncpg.Record) -> DeadLetterCount:
    return DeadLetterCount(why=why, count=row["count"], asked=row["asked"], discarded=row["discarded"])
