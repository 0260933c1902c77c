"""Orders that were sent, on a real PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kiva_stream.errors import CheckpointError
from kiva_stream.model.ids import OrderId
from kiva_stream.model.orders import BatchLimit, OrderSource, SentOrder
from kiva_stream.state.orders import OrderStates
from kiva_stream.state.store import Store
from tests.support.state_schema import CONTACT_URL, held_ledger

MOMENT = datetime(2018, 3, 4, 1, 2, 3, 456789, UTC)


@pytest.fixture
async def store(store: Store) -> Store:
    """A state schema of this version, with the sites 1 and 2."""
    for site_id in (1, 2):
        async with held_ledger(store, site_id) as ledger:
            await ledger.bind(f"{site_id}.example 1", CONTACT_URL)
    return store


def sent_order(number: int, fingerprint: bytes = b"print", refused: str = "") -> SentOrder:
    return SentOrder(OrderId(number), OrderSource.HISTORICAL, fingerprint, MOMENT, refused)


async def test_an_order_is_recorded_as_it_was_sent_last(store: Store) -> None:
    states = OrderStates(store, 1)
    first, second = sent_order(1), sent_order(2, refused="no such product")
    await states.record([second, first])
    assert await OrderStates(store, 1).sent([OrderId(1), OrderId(2), OrderId(3)]) == {1: first, 2: second}
    later = datetime(2019, 1, 1, tzinfo=UTC)
    again = SentOrder(OrderId(2), OrderSource.REAL_TIME, b"other", later)
    await states.record([again])
    assert await states.sent([OrderId(1), OrderId(2)]) == {1: first, 2: again}


async def test_no_orders_are_none(store: Store) -> None:
    states = OrderStates(store, 1)
    await states.record([])
    assert await states.sent([]) == {}
    assert await states.ids_between(OrderId(0), OrderId(9)) == []


async def test_orders_are_recorded_all_or_none(store: Store) -> None:
    states = OrderStates(store, 1)
    with pytest.raises(CheckpointError):
        await states.record([sent_order(1), sent_order(2**63)])
    assert await states.sent([OrderId(1)]) == {}


async def test_orders_between_two_ids_come_in_order_with_the_second_and_without_the_first(
    store: Store,
) -> None:
    states = OrderStates(store, 1)
    await states.record([sent_order(n) for n in (7, 3, 5, 9, 4)])
    assert await states.ids_between(OrderId(3), OrderId(7)) == [4, 5, 7]


async def test_sites_do_not_share_orders(store: Store) -> None:
    one, other = OrderStates(store, 1), OrderStates(store, 2)
    await one.record([sent_order(1, b"mine")])
    await other.record([sent_order(1, b"theirs"), sent_order(2, b"theirs")])
    assert (await one.sent([OrderId(1), OrderId(2)])).keys() == {1}
    assert (await one.sent([OrderId(1)]))[OrderId(1)].fingerprint == b"mine"
    assert await one.ids_between(OrderId(0), OrderId(9)) == [1]


async def counts(store: Store, site_id: int = 1) -> dict[str, int]:
    return {
        row["name"]: row["count"] for row in await store.fetch("tallies", site_id) if row["kind"] == "order"
    }


async def test_orders_are_counted_as_they_are_recorded(store: Store) -> None:
    states = OrderStates(store, 1)
    await states.record([sent_order(1), sent_order(2), sent_order(3, refused="no such product")])
    assert await counts(store) == {"sent": 2, "refused": 1}
    await states.record([sent_order(1), sent_order(2, refused="negative"), sent_order(3), sent_order(4)])
    assert await counts(store) == {"sent": 3, "refused": 1}
    await states.record([sent_order(2)])
    assert await counts(store) == {"sent": 4, "refused": 0}
    assert await counts(store, 2) == {}


async def test_the_size_of_batches_is_kept_by_site(store: Store) -> None:
    one, other = OrderStates(store, 1), OrderStates(store, 2)
    assert await one.batch_limit() is None
    for limit in (BatchLimit(100, 200), BatchLimit(15, 15, MOMENT)):
        await one.record_batch_limit(limit)
        assert await OrderStates(store, 1).batch_limit() == limit
    assert await other.batch_limit() is None
