"""The poison matrix: each kind of request, each way to get no answer, one, two, three, all and the only one.

The suite has a sample of it that covers each of these; `make drill-long` has the whole. A refusal without a
reason is beside it: what becomes of the record is another matter, but the others arrive.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import product
from pathlib import Path

import anyio
import msgspec
import pytest

from tests.acceptance.poison import (
    KINDS,
    REFUSALS,
    WAYS,
    Poisoned,
    assert_all_arrived,
    backfilled,
    poisoned,
)

BAD = {"one": (3,), "two": (3, 17), "three": (3, 4, 17)}
MOST = 3  # held while nothing of a kind is answered
OUTAGE_S = 3.0
SAMPLE = {
    ("import", "500", "one"),
    ("contact/sync", "reset, applied", "two"),
    ("GraphQL", "200, foreign", "three"),
    ("event", "504, applied", "one"),
    ("event", "hang", "two"),
    ("tag", "200, empty", "one"),
    ("list", "reset", "one"),
    ("GraphQL", "500", "alone"),
    ("event", "500", "all"),
    ("event", "413", "two"),
    ("event", "403 HTML", "one"),
    ("import", "interrupted", "two"),
}


def cells(*counts: str, ways: Collection[str] = WAYS) -> list[object]:
    """Return the cells with these numbers of bad records; those outside the sample are marked `matrix`."""
    return [
        pytest.param(*cell, id=", ".join(cell), marks=() if cell in SAMPLE else pytest.mark.matrix)
        for cell in product(KINDS, ways, counts)
        if is_answered_so(*cell[:2], is_answer=ways is REFUSALS)
    ]


def is_answered_so(kind: str, way: str, *, is_answer: bool) -> bool:
    """Return whether requests of a kind fail in a way; an event that a proxy refuses got no answer."""
    if way == "interrupted":
        return kind == "import"
    return way != "403 HTML" or is_answer is (kind != "event")


def named(poison: Poisoned) -> set[int]:
    """Return the customers of what `status` names as held."""
    return {int(customer) for held in poison.shop.status()["held"] for customer in held["customers"]}


def is_applied(way: str) -> bool:
    return way.endswith("applied")


@pytest.mark.parametrize(("kind", "way", "count"), cells(*BAD))
async def test_records_without_an_answer_are_named_and_all_others_arrive(
    database: str, tmp_path: Path, kind: str, way: str, count: str
) -> None:
    async with poisoned(database, tmp_path, kind, way=WAYS[way], bad=BAD[count]) as poison:
        held = await backfilled(poison.shop)

        others = set(poison.shop.customers) - set(poison.bad)
        if kind == "event" and is_applied(way):
            assert held == set()  # it is found by a look-up
            others |= set(poison.bad)
        else:
            assert held == await poison.contacts()
            assert named(poison) == set(poison.bad)
        assert await poison.kind.arrived(poison.shop) >= others
        await assert_all_arrived(poison)


async def test_a_held_week_tag_is_named_by_status_and_replayed(database: str, tmp_path: Path) -> None:
    async with poisoned(database, tmp_path, "tag", way=WAYS["500"], bad=[2], customers=3) as poison:
        shop = poison.shop
        await backfilled(shop)
        (held,) = shop.status()["held"]
        assert (held["what"], held["customers"], held["parked"]) == ("tag", ["2"], 0)
        assert (held["attempts"] >= 1, "500" in held["reply"]) == (True, True)

        await shop.activecampaign.fail()
        replayed = msgspec.json.decode(shop.run("dead-letters", "replay", "--customer", "2", "--json"))
        assert replayed["held"] == 1
        assert await poison.kind.arrived(shop) == {1, 2, 3}
        assert shop.status()["held"] == []
        assert shop.status()["tags_due"] == 0


@pytest.mark.parametrize(("kind", "way", "count"), cells("alone"))
async def test_the_only_record_is_held_while_reads_are_answered(
    database: str, tmp_path: Path, kind: str, way: str, count: str
) -> None:
    del count
    async with poisoned(database, tmp_path, kind, way=WAYS[way], bad=[1], customers=1) as poison:
        held = await backfilled(poison.shop)

        assert held == (set() if kind == "event" and is_applied(way) else await poison.contacts())
        await assert_all_arrived(poison)


@pytest.mark.parametrize(("kind", "way", "count"), cells("all"))
async def test_in_an_outage_of_a_kind_at_most_three_are_held_and_all_arrive_after_it(
    database: str, tmp_path: Path, kind: str, way: str, count: str
) -> None:
    del count
    everybody = range(1, 21)
    async with poisoned(database, tmp_path, kind, way=WAYS[way], bad=everybody) as poison:
        held: set[int] = set()

        async def run() -> None:
            held.update(await backfilled(poison.shop))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await anyio.sleep(OUTAGE_S)  # an outage lasts as long as it lasts
            await poison.lift()
        assert len(held) <= MOST
        await assert_all_arrived(poison)


@pytest.mark.parametrize(("kind", "way", "count"), cells(*BAD, ways=REFUSALS))
async def test_records_that_are_refused_without_a_reason_stop_no_others(
    database: str, tmp_path: Path, kind: str, way: str, count: str
) -> None:
    async with poisoned(database, tmp_path, kind, way=REFUSALS[way], bad=BAD[count]) as poison:
        await backfilled(poison.shop)

        others = set(poison.shop.customers) - set(poison.bad)
        assert await poison.kind.arrived(poison.shop) >= others
