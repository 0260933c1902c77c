"""Replays while the log is followed: each dead letter that is asked for is given out once, in its time."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import pytest

from kiva_stream.model.customers import Customer, CustomerAccount
from kiva_stream.model.dead_letters import ReplayRequest
from kiva_stream.model.entries import Changes, Entry, ReopenedEntries
from kiva_stream.model.ids import CustomerId, OrderId
from kiva_stream.model.orders import Order
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import DAY1, Position
from kiva_stream.pipeline.dead_letter_replay import DeadLetterReplay
from tests.support.ann import ANN, MOMENT, account, entry

ONE, TWO, THREE = Position(7, 1), Position(7, 2), Position(8, 3)
LATER = MOMENT + timedelta(minutes=1)
WHY = Reason.EVENT_REJECTED


class Shop:
    """What is asked for, and the shop it is of: every entry is there; Ann has order 9."""

    def __init__(self) -> None:
        self.dead_letters: dict[Position, ReplayRequest] = {}
        self.refused: list[OrderId] = []
        self.looked_up: list[Position] = []

    async def replay_requests(self) -> dict[Position, ReplayRequest]:
        return dict(self.dead_letters)

    async def order_replay_requests(self) -> list[OrderId]:
        return self.refused

    async def entries(self, positions: Collection[Position]) -> list[Entry]:
        self.looked_up += positions
        return [entry(position=position) for position in positions]

    async def accounts(self, ids: Collection[CustomerId]) -> list[CustomerAccount]:
        return [account()] if ANN.id in ids else []

    async def orders(self, ids: Collection[OrderId]) -> list[Order]:
        moment = datetime.now(UTC)
        return [Order(each, ANN.id, "open", "completed", moment, moment, 1, 0, 0) for each in ids]

    async def page(self, after: int, count: int) -> list[Customer]:
        raise AssertionError((after, count))

    async def paid_by(self, customers: Collection[CustomerId]) -> list[OrderId]:
        raise AssertionError(customers)


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def replays(shop: Shop) -> DeadLetterReplay:
    return DeadLetterReplay(shop, entries=shop, customers=shop, orders=shop)  # type: ignore[arg-type]  # pages are asked for nowhere


async def given(replays: DeadLetterReplay, until: Position = THREE) -> list[ReopenedEntries | Changes]:
    return [page async for page in replays.pages(until)]


async def test_dead_letters_are_replayed_in_log_order_with_their_reasons(
    shop: Shop, replays: DeadLetterReplay
) -> None:
    shop.dead_letters = {TWO: ReplayRequest(WHY, MOMENT), ONE: ReplayRequest(WHY, MOMENT)}
    (reopened,) = await given(replays)
    assert isinstance(reopened, ReopenedEntries)
    assert [each.position for each in reopened.entries] == [ONE, TWO]
    assert reopened.to_reopen == {ONE: WHY, TWO: WHY}


async def test_a_dead_letter_is_replayed_once_and_again_when_it_is_asked_for_again(
    shop: Shop, replays: DeadLetterReplay
) -> None:
    shop.dead_letters = {ONE: ReplayRequest(WHY, MOMENT)}
    assert len(await given(replays)) == 1
    assert await given(replays) == []
    shop.dead_letters = {ONE: ReplayRequest(WHY, LATER)}
    assert len(await given(replays)) == 1
    assert shop.looked_up == [ONE, ONE]


async def test_a_dead_letter_above_what_has_been_read_waits_for_its_replay(
    shop: Shop, replays: DeadLetterReplay
) -> None:
    shop.dead_letters = {ONE: ReplayRequest(WHY, MOMENT), THREE: ReplayRequest(WHY, MOMENT)}
    await given(replays, DAY1)
    assert shop.looked_up == []
    await given(replays, TWO)
    assert shop.looked_up == [ONE]
    await given(replays, THREE)
    assert shop.looked_up == [ONE, THREE]


async def test_refused_orders_come_as_a_change_of_their_customer_once(
    shop: Shop, replays: DeadLetterReplay
) -> None:
    shop.refused = [OrderId(9), OrderId(10)]
    (changes,) = await given(replays)
    assert isinstance(changes, Changes)
    assert [each.customer for each in changes.changes] == [ANN]
    assert changes.changes[0].orders == {OrderId(9), OrderId(10)}
    assert await given(replays) == []
    shop.refused = []
    await given(replays)
    shop.refused = [OrderId(9)]
    assert len(await given(replays)) == 1
