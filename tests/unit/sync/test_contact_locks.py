"""Contact locks: a contact is in one request at a time, whichever part sends it."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiva_stream.model.ids import ContactId
from kiva_stream.sync.contact_locks import ContactLocks
from tests.support.virtual_time import now, run


class Bench:
    """Contact locks, and what happened in which order."""

    def __init__(self) -> None:
        self.locks = ContactLocks()
        self.began: list[str] = []
        self.busy: set[int] = set()

    async def work(self, name: str, *contacts: int, takes_s: float = 1) -> None:
        """Hold contacts for a while, in which no other work may hold them."""
        async with self.locks.hold([ContactId(each) for each in contacts]):
            assert not self.busy & set(contacts), f"{name} got what another has"
            self.busy |= set(contacts)
            self.began.append(name)
            try:
                await anyio.sleep(takes_s)
            finally:
                self.busy -= set(contacts)


def story(tell: Callable[[Bench, anyio.abc.TaskGroup], None]) -> tuple[Bench, float]:
    """Start what a test tells, in its order; return when all ended, and how long that took."""
    bench = Bench()

    async def play() -> float:
        began = now()
        async with anyio.create_task_group() as group:
            tell(bench, group)
        return now() - began

    return bench, run(play())


async def work(bench: Bench, name: str, *contacts: int) -> None:
    await bench.work(name, *contacts)


def test_requests_for_one_contact_hold_it_one_after_another_in_the_order_they_were_made() -> None:
    def tell(bench: Bench, group: anyio.abc.TaskGroup) -> None:
        for name in "abc":
            group.start_soon(work, bench, name, 1)

    bench, took_s = story(tell)
    assert bench.began == ["a", "b", "c"]
    assert took_s == pytest.approx(3, abs=0.01)


def test_requests_for_other_contacts_do_not_wait() -> None:
    def tell(bench: Bench, group: anyio.abc.TaskGroup) -> None:
        group.start_soon(work, bench, "a", 1, 2)
        group.start_soon(work, bench, "b", 3, 4)

    _bench, took_s = story(tell)
    assert took_s == pytest.approx(1, abs=0.01)


def test_requests_for_overlapping_contacts_never_wait_in_a_circle() -> None:
    def tell(bench: Bench, group: anyio.abc.TaskGroup) -> None:
        group.start_soon(work, bench, "a", 1, 2)
        group.start_soon(work, bench, "b", 2, 1)
        group.start_soon(work, bench, "c", 2, 3)
        group.start_soon(work, bench, "d", 3, 1)

    bench, _took_s = story(tell)
    assert bench.began == ["a", "b", "c", "d"]


def test_a_request_for_many_contacts_is_not_overtaken_by_later_requests_for_one_of_them() -> None:
    def tell(bench: Bench, group: anyio.abc.TaskGroup) -> None:
        group.start_soon(work, bench, "first", 1)
        group.start_soon(work, bench, "many", 1, 2)
        for _ in range(3):
            group.start_soon(work, bench, "one", 2)

    bench, _ = story(tell)
    assert bench.began[:2] == ["first", "many"]


def test_a_cancelled_request_and_a_failed_holder_block_no_other_request() -> None:
    bench = Bench()

    async def play() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(work, bench, "a", 1)
            await anyio.lowlevel.checkpoint()
            with anyio.move_on_after(0.5):
                await bench.work("b", 1, 2)
            await bench.work("c", 2)
            assert bench.began == ["a", "c"]
        with pytest.raises(ValueError, match="fails"):
            async with bench.locks.hold([ContactId(1)]):
                raise ValueError("fails")
        await bench.work("d", 1)

    run(play())
    assert bench.began == ["a", "c", "d"]


def test_a_contact_named_twice_is_held_once_and_no_queue_is_kept_without_requests() -> None:
    bench = Bench()
    run(bench.work("a", 1, 1))
    assert bench.locks._queues == {}


ASK = st.tuples(
    st.floats(0, 3), st.lists(st.integers(1, 4), max_size=4), st.floats(0, 1), st.none() | st.floats(0, 2)
)


@given(st.lists(ASK, max_size=12))
def test_whatever_is_requested_and_cancelled_every_request_holds_its_contacts_alone(
    asks: list[tuple[float, list[int], float, float | None]],
) -> None:
    bench = Bench()

    async def ask(
        number: int, at: float, contacts: list[int], takes_s: float, patience: float | None
    ) -> None:
        await anyio.sleep(at)
        with anyio.move_on_after(patience):
            await bench.work(str(number), *contacts, takes_s=takes_s)

    async def play() -> None:
        async with anyio.create_task_group() as group:
            for number, each in enumerate(asks):
                group.start_soon(ask, number, *each)

    run(play())
    assert {str(number) for number, each in enumerate(asks) if each[3] is None} <= set(bench.began)
    assert not bench.busy


def test_what_is_released_before_the_end_goes_on_and_the_rest_stays_held() -> None:
    async def release(bench: Bench) -> None:
        async with bench.locks.hold([ContactId(each) for each in (1, 2, 3)]) as release:
            release([ContactId(1), ContactId(2)])
            release([ContactId(2)])
            await anyio.sleep(5)
            bench.began.append("released")

    def tell(bench: Bench, group: anyio.abc.TaskGroup) -> None:
        group.start_soon(release, bench)
        group.start_soon(work, bench, "a", 1, 2)
        group.start_soon(work, bench, "b", 2, 3)

    bench, took_s = story(tell)
    assert bench.began == ["a", "released", "b"]
    assert took_s == pytest.approx(6, abs=0.01)
