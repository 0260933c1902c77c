"""The size of order batches: it doubles while they are accepted, and halves when one is refused for its size.

ActiveCampaign documents no limit. A comment in its WooCommerce plugin reads "200 is the API limit", and does
not say of which API.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from kiva_stream.model.orders import BatchLimit
from kiva_stream.observability.logs import log
from kiva_stream.ports.state import SentOrders

MOST_ORDERS = 200
CEILING_LASTS = timedelta(days=1)


def grown(limit: BatchLimit, count: int, now: datetime) -> BatchLimit:
    """Return the limit after a batch of `count` orders was accepted; only one of full size lets it grow."""
    is_over = limit.refused_at is None or now - limit.refused_at >= CEILING_LASTS
    ceiling, refused_at = (MOST_ORDERS, None) if is_over else (limit.ceiling, limit.refused_at)
    size = min(2 * limit.size, ceiling)
    return limit if count < limit.size or size <= limit.size else BatchLimit(size, ceiling, refused_at)


def shrunk(limit: BatchLimit, count: int, now: datetime) -> BatchLimit:
    """Return the limit after a batch of `count` orders was refused for its size: its half is the ceiling."""
    half = max(1, min(count // 2, limit.size))
    return BatchLimit(half, half, now)


class BatchSize:
    """The size of the order batches of one account, kept in the state. Its coroutines raise CheckpointError.

    `first` is the size until ActiveCampaign accepted or refused a batch. Call `load` before anything else.
    """

    def __init__(self, sent: SentOrders, *, first: int, now: Callable[[], datetime]) -> None:
        self._sent = sent
        self._now = now
        self._limit = BatchLimit(first, MOST_ORDERS)
        self._is_loaded = False

    @property
    def size(self) -> int:
        """How many orders a batch may have."""
        return self._limit.size

    async def load(self) -> None:
        """Read the size that an earlier process recorded; no-op after the first time."""
        if not self._is_loaded:
            self._limit = await self._sent.batch_limit() or self._limit
            self._is_loaded = True

    async def accepted(self, count: int) -> None:
        """Note that a batch of so many orders was accepted."""
        await self._change(grown(self._limit, count, self._now()))

    async def too_large(self, count: int) -> None:
        """Note that a batch of so many orders was refused for its size."""
        await self._change(shrunk(self._limit, count, self._now()))
        log.info("orders go in smaller batches for a day", orders_per_batch=self.size)

    async def _change(self, limit: BatchLimit) -> None:
        if limit != self._limit:
            self._limit = limit
            await self._sent.record_batch_limit(limit)
