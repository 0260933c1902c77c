"""Poison in a generated history: a record without an answer does not stop the others, and arrives later.

`test_poison_matrix.py` has all other kinds of requests, and all ways to get no answer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import anyio
import msgspec

from kiva_stream.model.positions import DAY1
from tests.acceptance.stages import PATIENCE_S, Stage
from tests.acceptance.test_parked import somebody
from tests.support.postgres import connected

QUICK = {
    "KIVA_STREAM__ACTIVECAMPAIGN__BACKOFF_MAX_S": "0.2",
    "KIVA_STREAM__ACTIVECAMPAIGN__RETRY_HELD_S": "0.5",
    "KIVA_STREAM__ACTIVECAMPAIGN__REQUEST_TIMEOUT_S": "1",
    "KIVA_STREAM__ACTIVECAMPAIGN__ORDER_SETTLE_S": "0.2",
}


async def order_of_several(dsn: str) -> int:
    """Return an order of a customer who has at least two that are paid."""
    return (await orders_of_several(dsn, 1))[0]


async def orders_of_several(dsn: str, count: int) -> list[int]:
    """Return an order each of so many customers who have at least two that are paid."""
    async with connected(dsn) as connection:
        rows = await connection.fetch(
            "SELECT max(id) FROM kiva.orders WHERE site_id = 1 AND payment_status = 'completed' "
            f"GROUP BY customer_id HAVING count(*) >= 2 ORDER BY 1 LIMIT {count}"
        )
    return [int(row[0]) for row in rows]


async def backfilled_around(stage: Stage, faults: Collection[Mapping[str, Any]]) -> list[str]:
    """Check that a backfill ends around what gets no answer, and that a second one delivers the rest.

    Return what was held until then.
    """
    stage.environ.update(QUICK)
    await stage.activecampaign.fail(*faults)
    with anyio.fail_after(PATIENCE_S):
        summary = await stage.backfill(DAY1)

    status = stage.status()
    assert (summary.stopped_by, status["phase"]) == (None, "done")
    assert len(status["held"]) > 0
    assert all(each["reply"] and each["customers"] and each["attempts"] for each in status["held"])
    assert summary.left is not None
    assert summary.left.startswith(f"{status['equation']['parked']:,} ")
    assert status["held"][0]["reply"] in summary.left
    assert status["equation"]["pending"] == 0
    dead = {name for name in stage.generated.outcomes if name.startswith("dead ")}
    assert {f"dead {why}" for why in status["equation"]["dead"]} == dead
    assert 0 < status["equation"]["parked"] < stage.generated.outcomes["delivered"] / 4
    assert status["watermark"] == status["high_water_mark"]

    await stage.activecampaign.fail()
    await stage.backfill()
    comparison = await stage.compare()
    assert comparison.is_exact, comparison
    stage.assert_equation()
    assert stage.status()["equation"]["parked"] == 0
    assert stage.status()["held"] == []
    return [each["what"] for each in status["held"]]


async def test_a_backfill_ends_though_an_order_gets_no_answer_and_the_next_one_delivers_the_rest(
    ready: Stage,
) -> None:
    bad = await order_of_several(ready.dsn)
    held = await backfilled_around(
        ready, [{"path": "/ecom/graphql", "matching": rf'"storeOrderId": ?"{bad}"', "kind": "500-before"}]
    )
    assert held == [f"order:{bad}"]


async def test_a_backfill_ends_though_a_contact_gets_no_answer_and_the_next_one_delivers_the_rest(
    ready: Stage,
) -> None:
    email, _ = somebody(ready)
    paths = ("/import/bulk_import", "/contact/sync")
    held = await backfilled_around(
        ready, [{"path": path, "matching": f'"{email}"', "kind": "500-before"} for path in paths]
    )
    assert held == ["contact"]


async def held_orders(stage: Stage, count: int = 1) -> list[str]:
    """Backfill while so many orders get no answer; return their places."""
    stage.environ.update(QUICK, KIVA_STREAM__ACTIVECAMPAIGN__RETRY_HELD_S="600")
    bad = await orders_of_several(stage.dsn, count)
    pattern = rf'"storeOrderId": ?"({"|".join(map(str, bad))})"'
    await stage.activecampaign.fail({"path": "/ecom/graphql", "matching": pattern, "kind": "500-before"})
    await stage.backfill(DAY1)
    return [f"order:{each}" for each in bad]


async def test_a_replay_tries_a_held_order_now_and_delivers_what_is_parked_behind_it(ready: Stage) -> None:
    places = await held_orders(ready, 2)
    parked = msgspec.json.decode(ready.run("dead-letters", "list", "--parked", "--json"))
    assert parked["total"] == ready.status()["equation"]["parked"] > 0
    assert {(row["waits_for"], row["attempts"] > 0) for row in parked["rows"]} == {
        (each, True) for each in places
    }

    await ready.activecampaign.fail()
    for place in places:
        replayed = msgspec.json.decode(ready.run("dead-letters", "replay", place, "--json"))
        assert replayed["held"] == 1
        left = [each["what"] for each in ready.status()["held"]]
        assert left == [each for each in places[1:] if each != place]  # which was not tried
    comparison = await ready.compare()
    assert comparison.is_exact, comparison
    assert ready.status()["held"] == []
    assert ready.status()["equation"]["parked"] == 0


async def test_a_held_order_that_is_discarded_is_dead_and_what_is_parked_behind_it_is_delivered(
    ready: Stage,
) -> None:
    (place,) = await held_orders(ready)
    parked = msgspec.json.decode(ready.run("dead-letters", "list", "--parked", "--json"))["rows"]
    discarded = msgspec.json.decode(ready.run("dead-letters", "discard", "--all", "--json"))
    assert discarded["held"] == 1
    await ready.backfill()

    status = ready.status()
    assert (status["held"], status["equation"]["parked"]) == ([], 0)
    assert status["equation"]["delivered"] == ready.generated.outcomes["delivered"]
    letters = msgspec.json.decode(ready.run("dead-letters", "list", "--reason", "order_invalid", "--json"))
    (letter,) = [each for each in letters["letters"] if each["place"] == place]
    assert letter["reply"] == parked[0]["reply"]
