"""Carried orders: which REAL_TIME orders ActiveCampaign may have, though no acceptance is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress

import anyio
import pytest

from kiva_stream.errors import (
    AccountRefused,
    BatchTooLarge,
    DeliveryError,
    OrdersRejected,
    PermissionRefused,
    TryLater,
)
from kiva_stream.model.ids import ContactId, Email, OrderId
from kiva_stream.model.orders import DesiredOrder, Order, OrderSource, SentOrder
from kiva_stream.sync.carried_orders import CarriedOrders
from kiva_stream.sync.desired_order import desired_order, fingerprint
from kiva_stream.sync.order_changes import OrderChange
from tests.fakes.destination_orders import FakeOrderUploads
from tests.fakes.state_orders import FakeSentOrders
from tests.support.orders import NOON, order
from tests.support.virtual_time import run
from tests.unit.sync.test_order_sync import Bench

LIVE, LONG_PAID = order(1, paid_at=NOON), order(2)


class Watched(FakeOrderUploads):
    """Order uploads that note what is recorded as carried while an attempt lasts."""

    def __init__(self, sent: FakeSentOrders) -> None:
        super().__init__()
        self.state = sent
        self.carried: list[set[OrderId]] = []

    def _answer(self, orders: Sequence[DesiredOrder]) -> None:
        self.carried.append(set(self.state.carried))
        super()._answer(orders)


def watched(*orders: Order) -> tuple[Bench, Watched]:
    bench = Bench(*orders)
    bench.uploads = uploads = Watched(bench.sent)
    return bench, uploads


def test_a_real_time_order_is_recorded_before_its_request_until_it_is_accepted() -> None:
    bench, uploads = watched(LIVE, LONG_PAID)

    async def story(bench: Bench) -> None:
        await bench.upsert(1, 2)

    bench.run(story)
    assert uploads.carried == [{1}]
    assert bench.sent.carried == set()
    assert bench.sent.rows.keys() == {1, 2}


@pytest.mark.parametrize(
    "refusal",
    [
        AccountRefused("the connection does not exist"),
        PermissionRefused("403"),
        TryLater("429", after_s=30),
        TryLater("cannot connect", was_sent=False),
        OrdersRejected("refused", {1: "no"}),
        BatchTooLarge("413"),
    ],
)
def test_an_order_whose_only_request_was_refused_is_not_carried(refusal: DeliveryError) -> None:
    assert carried_after([refusal]) == set()


@pytest.mark.parametrize("last", [TryLater("500"), AccountRefused("no connection"), TryLater("429", 30)])
def test_an_order_of_a_request_without_an_answer_stays_carried_whatever_comes_later(
    last: DeliveryError,
) -> None:
    assert carried_after([TryLater("500"), last]) == {1}


def test_an_order_whose_request_was_cut_off_stays_carried() -> None:
    bench, uploads = watched(LIVE)
    uploads.takes_s = 5

    async def story(bench: Bench) -> None:
        with anyio.move_on_after(1):
            await bench.upsert(1)

    bench.run(story)
    assert bench.sent.carried == {1}


def test_an_accepted_order_that_changed_is_not_carried() -> None:
    sent = SentOrder(OrderId(1), OrderSource.REAL_TIME, b"old", accepted_at=NOON)
    assert CarriedOrders(FakeSentOrders()).around([change_of(sent)]) is nullcontext


def carried_after(errors: Sequence[DeliveryError]) -> set[OrderId]:
    """Return what is recorded as carried after attempts that ended with these errors."""
    state = FakeSentOrders()
    around = CarriedOrders(state).around([change_of(None)])

    async def story() -> None:
        for error in errors:
            with suppress(DeliveryError):
                async with around():
                    raise error

    run(story())
    return state.carried


def change_of(sent: SentOrder | None) -> OrderChange:
    desired = desired_order(
        LIVE,
        Email("customer1@example.org"),
        currency="USD",
        source=OrderSource.REAL_TIME,
        was_accepted=sent is not None,
    )
    return OrderChange(
        desired, fingerprint(desired, ContactId(1)), fault="", sent=sent, contact_id=ContactId(1)
    )
