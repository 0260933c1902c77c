"""Poison: an order or a contact that gets no answer stops nobody else, and arrives when that is over."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import anyio
import pytest

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
INTERNAL = '{"errors": [{"message": "Internal server error"}], "data": null}'
WAYS: Mapping[str, Mapping[str, Any]] = {
    "500": {"kind": "500-before"},
    "503 HTML": {"kind": "html-503"},
    "504 after it was applied": {"kind": "answer-after", "status": 504},
    "200, empty": {"kind": "answer-before", "status": 200, "text": ""},
    "200, unnamed error": {"kind": "answer-before", "status": 200, "text": INTERNAL},
    "reset": {"kind": "reset-before"},
    "hang": {"kind": "hang"},
}


def poison(orders: Collection[int], way: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fault that a request with one of these orders meets."""
    ids = "|".join(map(str, orders))
    return {"path": "/ecom/graphql", "matching": rf'"storeOrderId": ?"({ids})"', **way}


async def orders_of_several(dsn: str, count: int) -> list[int]:
    """Return an order each of so many customers who have at least two that are paid."""
    async with connected(dsn) as connection:
        rows = await connection.fetch(
            "SELECT max(id) AS id FROM kiva.orders WHERE site_id = 1 AND payment_status = 'completed' "
            "GROUP BY customer_id HAVING count(*) >= 2 ORDER BY 1 LIMIT $1",
            count,
        )
    assert len(rows) == count
    return [row["id"] for row in rows]


async def backfilled_around(stage: Stage, faults: Collection[Mapping[str, Any]]) -> None:
    """Check that a backfill ends around what gets no answer, and that a second one delivers the rest."""
    stage.environ.update(QUICK)
    await stage.activecampaign.fail(*faults)
    with anyio.fail_after(PATIENCE_S):
        summary = await stage.backfill(DAY1)

    status = stage.status()
    assert (summary.stopped_by, status["phase"]) == (None, "done")
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


@pytest.mark.parametrize("way", WAYS)
async def test_a_backfill_ends_though_an_order_gets_no_answer_and_the_next_one_delivers_the_rest(
    ready: Stage, way: str
) -> None:
    bad = await orders_of_several(ready.dsn, 1)
    await backfilled_around(ready, [poison(bad, WAYS[way])])


async def test_a_backfill_ends_though_a_contact_gets_no_answer_and_the_next_one_delivers_the_rest(
    ready: Stage,
) -> None:
    email, _ = somebody(ready)  # one way to fail only: an import of one may be sent 20 times a minute
    paths = ("/import/bulk_import", "/contact/sync")
    await backfilled_around(
        ready, [{"path": path, "matching": f'"{email}"', **WAYS["500"]} for path in paths]
    )


async def test_a_backfill_ends_though_orders_of_two_contacts_get_no_answer(ready: Stage) -> None:
    bad = await orders_of_several(ready.dsn, 2)
    await backfilled_around(ready, [poison(bad, WAYS["500"])])
