"""ActiveCampaign refuses orders for the account's sake, or one alone without naming it."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from kiva_stream.errors import KindRefused, RecordsHeld
from kiva_stream.model.held_records import HeldKind
from kiva_stream.sync.conviction import ROW
from kiva_stream.sync.pending_upserts import BATCHES_AT_ONCE
from tests.support.orders import order
from tests.support.waiting import raises_one
from tests.unit.sync.test_order_sync import UNPAID, Bench, orders

OFF = "Ecommerce is not enabled"
PROBE_EVERY_S = 300


def test_when_all_orders_are_refused_no_more_requests_go_out_and_none_is_recorded_as_refused() -> None:
    bench = Bench(*orders(60))
    bench.uploads.error = KindRefused(OFF)
    bench.run(Bench.snapshot)
    assert len(bench.uploads.asked) <= BATCHES_AT_ONCE
    assert bench.refused == {}
    (incident,) = bench.incidents.all()
    assert incident.kind == "orders"
    assert OFF in incident.why


def test_orders_are_probed_one_at_a_time_until_one_is_accepted_and_then_all_are_due() -> None:
    bench = Bench(*orders(8))

    async def story(bench: Bench) -> None:
        bench.uploads.error = KindRefused(OFF)
        await bench.snapshot()
        asked = len(bench.uploads.asked)
        await anyio.sleep(PROBE_EVERY_S)
        (probe,) = bench.kind.take_due()
        with raises_one(RecordsHeld):
            await bench.upsert(*range(1, 9))
        assert bench.uploads.asked[asked:] == [[probe]]
        assert bench.kind.take_due() == set()

        await anyio.sleep(PROBE_EVERY_S)
        bench.uploads.error = None
        (probe,) = bench.kind.take_due()
        await bench.upsert(probe)
        assert bench.incidents.all() == []
        assert bench.kind.take_due() == set(range(1, 9)) - {probe}
        await bench.upsert(*range(1, 9))

    bench.run(story)
    assert sorted(bench.uploads.has) == list(range(1, 9))


def test_an_order_that_is_refused_alone_is_held_and_refused_between_two_acceptances() -> None:
    bench = Bench(*orders(3))
    bench.uploads.bad = {2: "no"}

    async def story(bench: Bench) -> None:
        await bench.upsert(1)
        with raises_one(RecordsHeld):
            await bench.upsert(2)
        assert bench.refused == {}
        await bench.upsert(3)
        assert bench.kind.take_due() == {2}

    bench.run(story)
    assert bench.refused == {2: "no"}


def test_orders_refused_alone_one_after_another_with_the_same_text_pause_all_orders() -> None:
    bench = Bench(*orders(12))
    bench.uploads.bad = dict.fromkeys(range(1, 13), "no")

    async def story(bench: Bench) -> None:
        for number in range(1, 13):
            with raises_one(RecordsHeld):
                await bench.upsert(number)

    bench.run(story)
    assert bench.uploads.asked == [[number] for number in range(1, ROW + 1)]
    assert bench.refused == {}


def test_an_order_that_is_named_is_refused_at_once_and_pauses_nothing() -> None:
    bench = Bench(*(order(number) for number in range(1, 10)))
    bench.uploads.bad = dict.fromkeys(range(1, 10), "no")
    bench.uploads.named = set(range(1, 10))
    bench.run(Bench.snapshot)
    assert len(bench.refused) == 9
    assert bench.incidents.all() == []


@pytest.mark.parametrize(
    "change",
    [
        lambda bench: bench.orders.rows.pop(2),
        lambda bench: bench.orders.put(order(2, **UNPAID)),
        lambda bench: bench.held.ask(HeldKind.ORDER, 2, discard=True),
        lambda bench: bench.orders.put(order(2, total_cents=-1)),
    ],
    ids=["is gone", "is not paid any more", "is discarded", "cannot be sent"],
)
def test_a_held_order_that_is_not_to_be_sent_any_more_is_not_recorded_later(
    change: Callable[[Bench], object],
) -> None:
    bench = Bench(*orders(4))
    bench.uploads.bad = {2: "no"}

    async def story(bench: Bench) -> None:
        await bench.upsert(1)
        with raises_one(RecordsHeld):
            await bench.upsert(2)
        change(bench)
        await bench.held_records.refresh()
        await bench.upsert(2)
        before = dict(bench.sent.rows)
        await bench.upsert(3)
        assert {key: row for key, row in bench.sent.rows.items() if key != 3} == before
        assert bench.kind.take_due() == set()

    bench.run(story)
