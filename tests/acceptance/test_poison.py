"""Poison: an order that gets no answer stops nobody else, and arrives when that is over."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest

from kiva_stream.model.positions import DAY1
from tests.acceptance.stages import Stage
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


@pytest.mark.parametrize("way", WAYS)
async def test_a_backfill_ends_though_an_order_gets_no_answer_and_the_next_one_delivers_the_rest(
    ready: Stage, way: str
) -> None:
    ready.environ.update(QUICK)
    bad = await orders_of_several(ready.dsn, 1)
    await ready.activecampaign.fail(poison(bad, WAYS[way]))
    summary = await ready.backfill(DAY1)

    status = ready.status()
    assert (summary.stopped_by, status["phase"]) == (None, "done")
    assert status["equation"]["pending"] == 0
    assert status["equation"]["dead"].get("order_invalid", 0) == 0
    assert 0 < status["equation"]["parked"] < ready.generated.outcomes["delivered"] / 4
    assert status["watermark"] == status["high_water_mark"]

    await ready.activecampaign.fail()
    await ready.backfill()
    comparison = await ready.compare()
    assert comparison.is_exact, comparison
    ready.assert_equation()
    assert ready.status()["equation"]["parked"] == 0
