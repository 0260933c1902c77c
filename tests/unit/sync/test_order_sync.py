"""Order sync: which orders are sent when, how often, and what becomes of those that are refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, cast

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kiva_stream.errors import AccountRefused, CheckpointError, RecordsHeld
from kiva_stream.model.contacts import ContactStatus
from kiva_stream.model.ids import OrderId
from kiva_stream.model.orders import NEVER, Order, OrderSource
from kiva_stream.observability.incidents import Incidents
from kiva_stream.ports.state import Links
from kiva_stream.sync.conviction import ROW
from kiva_stream.sync.order_kind import order_kind
from kiva_stream.sync.order_sync import PAGE_ROWS, OrderSync
from kiva_stream.sync.order_writes import TOO_LARGE
from tests.fakes.destination_orders import FakeOrderUploads
from tests.fakes.source import FakeOrders
from tests.fakes.state_held import FakeHeldRows, held_records
from tests.fakes.state_orders import FakeOrderLinks, FakeSentOrders
from tests.support.orders import ITEM, NEW, NOON, REJECTED, order, wall_clock
from tests.support.settings import activecampaign_settings
from tests.support.virtual_time import now, run
from tests.support.waiting import raises_one, until

SETTLE_S = 10
UNPAID: Mapping[str, Any] = {"payment_status": "failed", "paid_at": None}


class Bench:
    """Order sync with what stands around it. State, shop and ActiveCampaign outlive a `restart`."""

    def __init__(
        self,
        *orders: Order,
        status: Mapping[int, ContactStatus | None] | None = None,
        **changes: Any,  # noqa: ANN401  settings are of any type
    ) -> None:
        self.orders = FakeOrders(orders)
        self.sent = FakeSentOrders()
        self.links = FakeOrderLinks(status)
        self.uploads = FakeOrderUploads()
        self.incidents = Incidents()
        self.kind = order_kind(self.incidents, 300)
        self.done: list[int] = []
        self.wall_clock = wall_clock
        self.settings = activecampaign_settings(
            **{"orders_per_batch": 4, "order_settle_s": SETTLE_S, **changes}
        )
        self.held = FakeHeldRows()

    async def begin(self, crashed_at: datetime = NEVER) -> None:
        """Begin a new process, after one that stopped or, then, crashed."""
        self.held_records = held_records(self.held, self.settings.retry_held_s)
        self.sync = OrderSync(
            "USD",
            orders=self.orders,
            sent=self.sent,
            links=cast("Links", self.links),  # as much of it as order sync needs
            uploads=self.uploads,
            kind=self.kind,
            held=self.held_records,
            settings=self.settings,
            crashed_at=crashed_at,
            now=self.wall_clock,
        )

    def run(self, story: Callable[[Bench], Awaitable[None]]) -> Bench:
        """Play a story in virtual time."""

        async def play() -> None:
            await self.begin()
            await story(self)

        run(play())
        assert not self.sync._pending._queued
        assert not self.sync._pending._under_way
        return self

    async def upsert(self, *numbers: int) -> None:
        await self.sync.upsert([OrderId(each) for each in numbers])

    async def snapshot(self) -> None:
        await self.sync.snapshot(self.done.append)

    async def at_once(self, *calls: tuple[int, ...]) -> None:
        """Ask for orders in several calls at the same time."""
        async with anyio.create_task_group() as group:
            for call in calls:
                group.start_soon(self.upsert, *call)

    @property
    def refused(self) -> dict[int, str]:
        return {int(each): row.refused for each, row in self.sent.rows.items() if row.refused}


def orders(count: int) -> list[Order]:
    return [order(number) for number in range(1, count + 1)]


# --- what is sent ---


def test_a_paid_order_of_a_linked_contact_is_sent_as_it_stands_and_only_once() -> None:
    bench = Bench(order(1))

    async def story(bench: Bench) -> None:
        await bench.upsert(1)
        await anyio.sleep(SETTLE_S)
        await bench.upsert(1)

    assert bench.run(story).uploads.sent == [[1]]
    assert bench.uploads.has[1].total_cents == 100
    assert bench.uploads.has[1].email == "customer1@example.org"
    assert bench.uploads.has[1].currency == "USD"


@pytest.mark.parametrize("status", [None, NEW, REJECTED])
def test_an_order_of_a_contact_that_is_not_linked_is_left(status: ContactStatus | None) -> None:
    bench = Bench(order(1), status={1: status}).run(lambda bench: bench.upsert(1))
    assert bench.uploads.sent == []
    assert bench.sent.rows == {}


def test_an_order_that_was_never_paid_is_left() -> None:
    bench = Bench(order(1, **UNPAID)).run(lambda bench: bench.upsert(1))
    assert bench.uploads.asked == []


def test_an_order_that_was_sent_is_sent_again_when_it_is_paid_no_more() -> None:
    bench = Bench(order(1))

    async def story(bench: Bench) -> None:
        await bench.upsert(1)
        bench.orders.put(order(1, **UNPAID))
        await bench.upsert(1)

    assert bench.run(story).uploads.has[1].normalized_status == "FAILED"


def test_a_missing_order_and_one_without_items_are_counted_and_not_sent() -> None:
    bench = Bench(order(1), order(2, items=())).run(lambda bench: bench.upsert(1, 2, 3))
    assert bench.uploads.sent == [[1]]
    assert bench.links.notes == {"order_missing": 2}


def test_an_order_that_was_sent_is_sent_again_when_it_has_no_items_any_more() -> None:
    bench = Bench(order(1))

    async def story(bench: Bench) -> None:
        await bench.upsert(1)
        bench.orders.put(order(1, items=()))
        await bench.upsert(1)

    assert bench.run(story).uploads.sent == [[1], [1]]
    assert bench.links.notes == {}


def test_an_orders_notes_are_counted_when_it_is_sent() -> None:
    odd = replace(ITEM, category="gift")
    bench = Bench(order(1, items=(odd, odd)), order(2, items=(odd,)), order(3, items=(odd,)))
    bench.uploads.bad, bench.uploads.named = {3: "no"}, {3}
    bench.run(lambda bench: bench.upsert(1, 2, 3))
    assert bench.links.notes == {"other_category": 3}


def test_an_order_is_real_time_when_it_was_paid_a_short_time_ago_and_stays_what_it_was() -> None:
    fresh = order(1, paid_at=NOON)
    bench = Bench(fresh, order(2), realtime_max_age_s=3_600)

    async def story(bench: Bench) -> None:
        await bench.upsert(1, 2)
        bench.orders.put(order(1, total_cents=7, paid_at=NOON - timedelta(days=2)))
        bench.orders.put(order(2, total_cents=7, paid_at=NOON))
        await anyio.sleep(20_000)
        await bench.begin()
        await bench.upsert(1, 2)

    bench.run(story)
    assert bench.uploads.has[1].total_cents == 7
    assert {each: has.source for each, has in bench.uploads.has.items()} == {
        1: OrderSource.REAL_TIME,
        2: OrderSource.HISTORICAL,
    }


# --- the snapshot ---


def test_a_snapshot_upserts_all_paid_orders_in_batches_and_a_second_one_sends_nothing() -> None:
    bench = Bench(*orders(10), order(11, **UNPAID), order(12, items=()))

    async def story(bench: Bench) -> None:
        await bench.snapshot()
        await anyio.sleep(SETTLE_S)
        await bench.begin()
        await bench.snapshot()

    bench.run(story)
    assert sorted(bench.uploads.has) == list(range(1, 11))
    assert sorted(map(len, bench.uploads.sent)) == [2, 4, 4]
    assert sum(bench.done) == 10
    assert bench.links.notes == {}


def test_a_snapshot_has_several_batches_on_their_way() -> None:
    bench = Bench(*orders(40)).run(Bench.snapshot)
    assert bench.uploads.most_in_flight == 4


def test_a_snapshot_goes_over_all_pages_and_over_what_was_sent_and_is_paid_no_more() -> None:
    count = PAGE_ROWS + 500
    bench = Bench(*orders(count), orders_per_batch=50)

    async def story(bench: Bench) -> None:
        await bench.snapshot()
        bench.orders.put(*(order(each, **UNPAID) for each in (3, PAGE_ROWS + 3, count)))
        await bench.snapshot()

    bench.run(story)
    assert len(bench.uploads.has) == count
    failed = {each for each, has in bench.uploads.has.items() if has.normalized_status == "FAILED"}
    assert failed == {3, PAGE_ROWS + 3, count}


def test_a_sent_order_whose_row_is_gone_stays_as_it_is() -> None:
    bench = Bench(*orders(2))

    async def story(bench: Bench) -> None:
        await bench.snapshot()
        del bench.orders.rows[OrderId(2)]
        await bench.snapshot()

    assert bench.run(story).uploads.sent == [[1, 2]]


def test_a_snapshot_ends_when_the_account_is_refused() -> None:
    async def story(bench: Bench) -> None:
        bench.uploads.error = AccountRefused("no")
        with raises_one(AccountRefused):
            await bench.snapshot()

    Bench(*orders(40)).run(story)


# --- who waits for what ---


def test_calls_made_while_batches_are_on_their_way_go_together() -> None:
    bench = Bench(*orders(30), orders_per_batch=50)

    async def story(bench: Bench) -> None:
        await bench.at_once(*[(each,) for each in range(1, 31)])

    assert sorted(map(len, bench.run(story).uploads.sent)) == [1, 1, 1, 1, 26]


def test_a_call_for_more_orders_than_a_batch_returns_when_all_are_upserted() -> None:
    bench = Bench(*orders(10)).run(lambda bench: bench.upsert(*range(1, 11), 1))
    assert sorted(bench.uploads.has) == list(range(1, 11))


def test_an_upsert_of_no_orders_returns_at_once() -> None:
    bench = Bench().run(Bench.upsert)
    assert bench.orders.reads == []


def test_an_order_that_changed_after_it_was_read_is_sent_again_after_the_settle_time() -> None:
    bench = Bench(order(1))

    async def story(bench: Bench) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(bench.upsert, 1)
            await until(lambda: bench.uploads.in_flight)
            bench.orders.put(order(1, total_cents=7))
            await bench.upsert(1)

    first, second = bench.run(story).uploads.batches
    assert bench.uploads.has[1].total_cents == 7
    assert second[0] - first[0] >= SETTLE_S


def test_a_call_for_an_unchanged_order_that_is_under_way_waits_and_sends_nothing() -> None:
    bench = Bench(order(1))

    async def story(bench: Bench) -> None:
        await bench.at_once((1,), (1,), (1,))
        assert 1 in bench.uploads.has

    assert bench.run(story).uploads.sent == [[1]]


def test_the_settle_time_of_an_order_outlasts_a_restart_and_delays_no_other() -> None:
    bench = Bench(*orders(2))
    arrived: dict[int, float] = {}

    async def brought(number: int) -> None:
        await bench.upsert(number)
        arrived[number] = now()

    async def story(bench: Bench) -> None:
        await bench.upsert(1)
        accepted = now()
        bench.orders.put(order(1, total_cents=7))
        await bench.begin()
        async with anyio.create_task_group() as group:
            group.start_soon(brought, 1)
            await anyio.sleep(1)
            group.start_soon(brought, 2)
            group.start_soon(bench.upsert, 2, 1)
        assert arrived[2] - accepted < 2
        assert SETTLE_S <= arrived[1] - accepted < SETTLE_S + 1

    assert bench.run(story).uploads.sent == [[1], [2], [1]]


def test_after_a_crash_no_order_is_sent_before_the_settle_time_since_one_may_have_been_accepted() -> None:
    bench = Bench(*orders(2))

    async def story(bench: Bench) -> None:
        await bench.upsert(1)
        del bench.sent.rows[OrderId(1)]  # the process was killed before it recorded that
        bench.orders.put(order(1, total_cents=7))
        await bench.begin(crashed_at=wall_clock())
        crashed = now()
        await bench.upsert(1, 2)
        assert SETTLE_S <= now() - crashed < SETTLE_S + 1
        await bench.upsert(1)

    assert bench.run(story).uploads.sent == [[1], [1, 2]]


class Clock:
    """Goes on by a second whenever the loop's time is asked for: no two looks at it are at the same time."""

    looks = 0

    def time(self) -> float:
        self.looks += 1
        return now() + self.looks

    def wall(self) -> datetime:
        return wall_clock() + timedelta(seconds=self.looks)


@pytest.mark.parametrize("ready_in_s", [each / 2 for each in range(1, 10)])
def test_an_order_is_sent_when_it_becomes_ready_even_as_its_call_begins_to_wait(
    monkeypatch: pytest.MonkeyPatch, ready_in_s: float
) -> None:
    clock = Clock()
    bench = Bench(order(1))
    bench.wall_clock = clock.wall

    async def story(bench: Bench) -> None:
        await bench.upsert(1)
        monkeypatch.setattr(anyio, "current_time", clock.time)
        accepted_at = clock.wall() - timedelta(seconds=SETTLE_S - ready_in_s)
        bench.sent.rows[OrderId(1)] = replace(bench.sent.rows[OrderId(1)], accepted_at=accepted_at)
        bench.orders.put(order(1, total_cents=7))
        await bench.upsert(1)

    assert bench.run(story).uploads.has[1].total_cents == 7


def test_orders_that_wait_for_the_settle_time_share_a_batch() -> None:
    bench = Bench(*orders(4))

    async def story(bench: Bench) -> None:
        await bench.upsert(1, 2, 3, 4)
        bench.orders.put(*(order(each, total_cents=7) for each in range(1, 5)))
        await bench.at_once((1,), (2,), (3,), (4,))

    assert bench.run(story).uploads.sent == [[1, 2, 3, 4], [1, 2, 3, 4]]


def test_a_clock_that_was_set_back_delays_no_order() -> None:
    bench = Bench(order(1))

    async def story(bench: Bench) -> None:
        await bench.upsert(1)
        row = bench.sent.rows[OrderId(1)]
        bench.sent.rows[OrderId(1)] = replace(row, accepted_at=row.accepted_at + timedelta(hours=1))
        bench.orders.put(order(1, total_cents=7))
        began = now()
        await bench.upsert(1)
        assert now() - began < 1

    bench.run(story)


def test_every_call_that_waits_for_a_failed_batch_raises_and_can_be_repeated() -> None:
    bench = Bench(*orders(2))
    failed: list[int] = []

    async def upsert(number: int) -> None:
        try:
            await bench.upsert(number, 2)
        except CheckpointError:
            failed.append(number)

    async def story(bench: Bench) -> None:
        bench.sent.fails = True
        async with anyio.create_task_group() as group:
            group.start_soon(upsert, 1)
            group.start_soon(upsert, 2)
        bench.sent.fails = False
        await bench.upsert(1, 2)

    bench.run(story)
    assert sorted(failed) == [1, 2]
    assert sorted(bench.uploads.has) == [1, 2]


def test_a_cancelled_call_takes_no_batch_of_other_calls_with_it() -> None:
    bench = Bench(*orders(6), orders_per_batch=50)

    async def story(bench: Bench) -> None:
        async with anyio.create_task_group() as group:
            with anyio.move_on_after(0.05):
                for each in range(1, 5):
                    group.start_soon(bench.upsert, each)
                await anyio.lowlevel.checkpoint()
                group.start_soon(bench.upsert, 5, 6)
                await bench.upsert(5, 6)

    assert sorted(bench.run(story).uploads.has) == [1, 2, 3, 4, 5, 6]


def test_a_call_cancelled_while_it_sends_orders_of_others_leaves_them_to_these() -> None:
    bench = Bench(*orders(6))

    async def story(bench: Bench) -> None:
        scope = anyio.CancelScope()

        async def cancelled() -> None:
            with scope:
                await bench.upsert(1)

        async with anyio.create_task_group() as group:
            for each in range(3, 7):
                group.start_soon(bench.upsert, each)
            await until(lambda: len(bench.uploads.in_flight) == 4)
            bench.orders.after_read = scope.cancel
            group.start_soon(cancelled)
            group.start_soon(bench.upsert, 2)

    bench.run(story)
    assert bench.orders.reads[-2:] == [{1, 2}, {2}]
    assert sorted(bench.uploads.has) == [2, 3, 4, 5, 6]


# --- what is refused ---


def test_named_orders_are_recorded_as_refused_and_the_rest_is_sent_again() -> None:
    bench = Bench(*orders(4))
    bench.uploads.bad, bench.uploads.named = {2: "no e-mail", 3: "no total"}, {2, 3}

    async def story(bench: Bench) -> None:
        await bench.upsert(1, 2, 3, 4)
        await bench.upsert(1, 2, 3, 4)

    assert bench.run(story).uploads.asked == [[1, 2, 3, 4], [1, 4]]
    assert bench.refused == {2: "no e-mail", 3: "no total"}
    assert bench.sent.rows[OrderId(2)].accepted_at == NEVER


def test_a_refused_order_is_sent_at_once_when_it_changed() -> None:
    bench = Bench(order(1))
    bench.uploads.bad, bench.uploads.named = {1: "no"}, {1}

    async def story(bench: Bench) -> None:
        await bench.upsert(1)
        bench.uploads.bad = {}
        bench.orders.put(order(1, total_cents=7))
        began = now()
        await bench.upsert(1)
        assert now() - began < 1

    assert bench.run(story).refused == {}
    assert bench.uploads.has[1].total_cents == 7


def test_a_refused_order_that_was_never_accepted_is_left_when_it_is_not_paid() -> None:
    bench = Bench(order(1))
    bench.uploads.bad, bench.uploads.named = {1: "no"}, {1}

    async def story(bench: Bench) -> None:
        await bench.upsert(1)
        bench.uploads.bad = {}
        bench.orders.put(order(1, **UNPAID))
        await bench.upsert(1)

    assert bench.run(story).uploads.asked == [[1]]


def test_an_order_stays_one_that_was_sent_when_a_change_of_it_is_refused() -> None:
    bench = Bench(order(1))

    async def story(bench: Bench) -> None:
        await bench.upsert(1)
        accepted_at = bench.sent.rows[OrderId(1)].accepted_at
        bench.orders.put(order(1, total_cents=-1))
        await anyio.sleep(SETTLE_S)
        await bench.upsert(1)
        assert bench.sent.rows[OrderId(1)].accepted_at == accepted_at
        bench.orders.put(order(1, **UNPAID))
        await bench.upsert(1)

    assert bench.run(story).uploads.has[1].normalized_status == "FAILED"


@given(st.sets(st.integers(1, 16)), st.sets(st.integers(1, 16), max_size=ROW - 1))
@settings(max_examples=50)
def test_whichever_orders_are_bad_these_are_refused_or_held_and_all_others_arrive(
    named: set[int], unnamed: set[int]
) -> None:
    bad = named | unnamed
    bench = Bench(*orders(16), orders_per_batch=8)
    bench.uploads.bad, bench.uploads.named = dict.fromkeys(bad, "no"), named - unnamed
    bench.run(Bench.snapshot)
    assert named - unnamed <= set(bench.refused) <= bad
    assert set(bench.uploads.has) == set(range(1, 17)) - bad
    assert sum(map(len, bench.uploads.sent)) == 16 - len(bad)


def test_reasons_for_orders_that_were_not_sent_are_no_reasons() -> None:
    bench = Bench(*orders(4))
    bench.uploads.bad, bench.uploads.named = {1: "no"}, set()

    async def story(bench: Bench) -> None:
        with raises_one(RecordsHeld):
            await bench.upsert(1, 2, 3, 4)

    bench.run(story)
    assert bench.refused == {}
    assert bench.uploads.asked == [[1, 2, 3, 4], [1, 2], [1], [2], [3, 4]]


def test_a_batch_that_is_too_large_goes_in_halves_and_the_next_stay_that_small() -> None:
    bench = Bench(*orders(16), orders_per_batch=8)
    bench.uploads.largest = 3

    async def story(bench: Bench) -> None:
        await bench.upsert(*range(1, 9))
        await bench.upsert(*range(9, 17))

    assert [len(each) for each in bench.run(story).uploads.asked] == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]


def test_an_order_that_is_too_large_by_itself_is_refused() -> None:
    bench = Bench(*orders(4))
    bench.uploads.huge = {3}
    bench.run(lambda bench: bench.upsert(1, 2, 3, 4))
    assert bench.refused == {3: TOO_LARGE}
    assert sorted(bench.uploads.has) == [1, 2, 4]


def test_an_order_that_cannot_be_sent_is_refused_without_sending_it() -> None:
    bench = Bench(order(1, total_cents=-1), order(2)).run(lambda bench: bench.upsert(1, 2))
    assert bench.uploads.asked == [[2]]
    assert bench.refused == {1: "its total is negative"}


# --- orders that get no answer ---


async def held_by(bench: Bench, *numbers: int) -> set[int]:
    """Upsert orders; return those that are held."""
    try:
        await bench.upsert(*numbers)
    except RecordsHeld as error:
        return set(error.why)
    return set()


@pytest.mark.parametrize("silent", [{1}, {7}, {2, 3}, {1, 8}])
def test_orders_that_get_no_answer_are_held_and_all_others_arrive_once(silent: set[int]) -> None:
    bench = Bench(*orders(8), orders_per_batch=8)
    bench.uploads.silent = silent

    async def story(bench: Bench) -> None:
        assert await held_by(bench, *range(1, 9)) == silent

    bench.run(story)
    assert sorted(each for batch in bench.uploads.sent for each in batch) == sorted({*range(1, 9)} - silent)
    assert bench.refused == {}


def test_a_held_order_is_held_again_without_a_witness_until_it_is_answered() -> None:
    bench = Bench(*orders(4))
    bench.uploads.silent = {3}
    bench.uploads.reads_are_answered = False

    async def story(bench: Bench) -> None:
        assert await held_by(bench, 1, 2, 3, 4) == {3}
        await anyio.sleep(300)
        assert await held_by(bench, 3) == {3}
        bench.uploads.silent = set()
        before = len(bench.uploads.asked)
        assert await held_by(bench, 3) == {3}  # before its next try nothing is sent
        assert len(bench.uploads.asked) == before
        await anyio.sleep(600)
        assert await held_by(bench, 3) == set()

    assert 3 in bench.run(story).uploads.has


def test_an_order_alone_is_held_when_reads_are_answered_for_long_enough() -> None:
    bench = Bench(order(1), retry_held_s=60)
    bench.uploads.silent = {1}

    async def story(bench: Bench) -> None:
        assert await held_by(bench, 1) == {1}
        assert now() >= 60

    bench.run(story)


def test_an_order_that_is_held_in_what_may_be_an_outage_is_due_when_another_one_is_answered() -> None:
    bench = Bench(*orders(2), retry_held_s=60)
    bench.uploads.silent = {1}

    async def story(bench: Bench) -> None:
        assert await held_by(bench, 1) == {1}
        bench.uploads.silent = set()
        assert await held_by(bench, 1) == {1}  # not yet
        assert await held_by(bench, 2) == set()
        assert await held_by(bench, 1) == set()

    bench.run(story)


def test_in_an_outage_no_order_is_held_and_all_arrive_after_it() -> None:
    bench = Bench(*orders(8), orders_per_batch=8)
    bench.uploads.is_silent, bench.uploads.reads_are_answered = True, False

    async def story(bench: Bench) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(bench.upsert, *range(1, 9))
            await anyio.sleep(600)
            bench.uploads.is_silent = False

    assert sorted(bench.run(story).uploads.has) == [*range(1, 9)]


def test_a_batch_whose_halves_are_answered_was_too_large() -> None:
    bench = Bench(*orders(8), orders_per_batch=8)
    bench.uploads.silent_above = 4

    async def story(bench: Bench) -> None:
        assert await held_by(bench, *range(1, 9)) == set()

    assert sorted(map(len, bench.run(story).uploads.sent)) == [4, 4]
    assert bench.sent.limit is not None
    assert bench.sent.limit.ceiling == 4


def test_a_snapshot_ends_and_returns_the_orders_that_are_held() -> None:
    bench = Bench(*orders(8))
    bench.uploads.silent = {5}

    async def story(bench: Bench) -> None:
        assert await bench.sync.snapshot(bench.done.append) == {5}

    assert sorted(bench.run(story).uploads.has) == [1, 2, 3, 4, 6, 7, 8]


# --- all at once ---

STEP = st.one_of(
    st.tuples(st.just("upsert"), st.sets(st.integers(1, 5), min_size=1)),
    st.tuples(st.just("change"), st.sets(st.integers(1, 5), min_size=1)),
    st.tuples(st.just("wait"), st.sampled_from([0.05, 0.15, 3, 11])),
    st.tuples(st.just("crash"), st.none()),
)


class Lives:
    """Processes, one after the other: orders change, are asked for, and a process may be struck."""

    def __init__(self) -> None:
        self.bench = Bench(*orders(5), orders_per_batch=2)
        self.cents = iter(range(1_000, 10_000))

    async def play(self, steps: list[tuple[str, Any]]) -> None:
        crashed_at = NEVER
        while steps:
            await self.bench.begin(crashed_at)
            steps = await self._live(steps)
            crashed_at = wall_clock()
        await self.bench.begin(crashed_at)
        await self.bench.snapshot()

    async def _live(self, steps: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """Live until a crash, or the end; return the steps of the lives after it."""
        async with anyio.create_task_group() as group:
            for number, (kind, value) in enumerate(steps):
                if kind == "crash":
                    group.cancel_scope.cancel()
                    return steps[number + 1 :]
                await self._step(group, kind, value)
        return []

    async def _step(self, group: anyio.abc.TaskGroup, kind: str, value: Any) -> None:  # noqa: ANN401
        if kind == "upsert":
            group.start_soon(self._bring, value)
        elif kind == "change":
            self.bench.orders.put(*(order(each, total_cents=next(self.cents)) for each in sorted(value)))
        else:
            await anyio.sleep(value)

    async def _bring(self, numbers: set[int]) -> None:
        """Bring orders, each at least as new as it is now: the totals only grow."""
        least = {each: self.bench.orders.rows[OrderId(each)].total_cents for each in numbers}
        await self.bench.upsert(*numbers)
        assert all(self.bench.uploads.has[each].total_cents >= least[each] for each in numbers)


@given(st.lists(STEP, max_size=25))
@settings(max_examples=100)
def test_whatever_changes_and_crashes_orders_arrive_as_they_stand_a_settle_time_apart(
    steps: list[tuple[str, Any]],
) -> None:
    lives = Lives()
    run(lives.play(steps))
    uploads, rows = lives.bench.uploads, lives.bench.orders.rows
    assert {each: has.total_cents for each, has in uploads.has.items()} == {
        int(each): row.total_cents for each, row in rows.items()
    }
    for number in rows:
        times = [at for at, batch in uploads.batches if number in batch]
        assert all(later - earlier >= SETTLE_S for earlier, later in pairwise(times))
