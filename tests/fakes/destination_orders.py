"""Orders of an ActiveCampaign account in memory: see `ports/destination.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import anyio
import anyio.lowlevel

from kiva_stream.errors import BatchTooLarge, OrdersRejected, TryLater, Unanswered
from kiva_stream.model.orders import DesiredOrder
from kiva_stream.ports.destination import Around
from tests.support.virtual_time import now as virtual_now


class FakeOrderUploads:
    """Implements OrderUploads as ActiveCampaign does: a batch is accepted whole or not at all.

    `bad` orders are refused, by name if they are in `named`. A batch of more than `largest` orders is too
    large, as is one with an order of `huge`. An answer takes `takes_s`. A batch with a `silent` order gets
    no answer, nor does any while `is_silent`. `batches` are those accepted, each with its time.
    """

    def __init__(self) -> None:
        self.bad: dict[int, str] = {}
        self.named: set[int] = set()
        self.silent: set[int] = set()
        self.is_silent = False
        self.silent_above = 1_000  # orders in a batch
        self.reads_are_answered = True
        self.unanswered: list[list[int]] = []
        self.largest = 1_000
        self.huge: set[int] = set()
        self.takes_s = 0.1
        self.error: Exception | None = None
        self.batches: list[tuple[float, list[int]]] = []
        self.asked: list[list[int]] = []  # refused ones too
        self.has: dict[int, DesiredOrder] = {}
        self.in_flight: list[set[int]] = []
        self.most_in_flight = 0

    @property
    def sent(self) -> list[list[int]]:
        return [batch for _at, batch in self.batches]

    async def answers(self) -> bool:
        await anyio.lowlevel.checkpoint()
        return self.reads_are_answered

    async def upsert(
        self,
        orders: Sequence[DesiredOrder],
        *,
        around: Around = nullcontext,
        tries: float = math.inf,
        is_suspect: bool = False,  # noqa: ARG002  the breaker's
    ) -> None:
        ids = {int(each.id) for each in orders}
        assert not any(ids & other for other in self.in_flight), "an order is in two batches"
        self.in_flight.append(ids)
        self.most_in_flight = max(self.most_in_flight, len(self.in_flight))
        try:
            while not await self._attempt(orders, around):
                tries -= 1
                if tries <= 0:
                    raise Unanswered("500")
            await anyio.lowlevel.checkpoint()
        finally:
            self.in_flight.remove(ids)

    async def _attempt(self, orders: Sequence[DesiredOrder], around: Around) -> bool:
        """Send a batch once; return whether it was answered. Raises what the answer means."""
        ids = {int(each.id) for each in orders}
        try:
            async with around():
                await anyio.sleep(self.takes_s)
                self._require_answer(ids)
                self._answer(orders)
        except TryLater as error:
            if not error.is_unanswered:
                raise
            return False
        return True

    def _require_answer(self, ids: set[int]) -> None:
        if self.is_silent or ids & self.silent or len(ids) > self.silent_above:
            self.unanswered.append(sorted(ids))
            raise TryLater("500")

    def _answer(self, orders: Sequence[DesiredOrder]) -> None:
        ids = [each.id for each in orders]
        self.asked.append(list(ids))
        if self.error is not None:
            raise self.error
        if len(ids) > self.largest or self.huge & set(ids):
            raise BatchTooLarge("too large")
        if bad := {each: self.bad[each] for each in ids if each in self.bad}:
            named = {int(each): said for each, said in bad.items() if each in self.named}
            raise OrdersRejected("refused", named, "" if named else next(iter(bad.values())))
        for each in orders:
            self.has[each.id] = each
        self.batches.append((virtual_now(), list(ids)))
