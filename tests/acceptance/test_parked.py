"""One contact's trouble stays its own: while it waits for an answer that will come, everybody else flows."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from tests.acceptance.stages import PATIENCE_S, SITE_ID, Stage, until
from tests.support.postgres import connected

DONE = """
SELECT true FROM kiva_stream.checkpoint WHERE (watermark_txid, watermark_id) = (high_txid, high_id)
"""
DAY1 = ("backfill", "--since", "day1", "--yes")
# Whoever waits is parked only while others are answered; unpaced, these may all be done before. So they take
# 14 s, of which the one in question waits for 6.
HANGING = {
    "KIVA_STREAM__ACTIVECAMPAIGN__REQUEST_TIMEOUT_S": "1",
    "KIVA_STREAM__ACTIVECAMPAIGN__EVENTS_PER_SECOND": "100",
}


def somebody(stage: Stage) -> tuple[str, int]:
    """Return a contact with a few events by the truth, and how many it has."""
    with closing(sqlite3.connect(stage.truth)) as truth:
        row = truth.execute(
            "SELECT email, count(*) FROM entry WHERE site_id = ? AND outcome = 'delivered' "
            "GROUP BY email HAVING count(*) >= 5 ORDER BY 2, 1 LIMIT 1",
            (SITE_ID,),
        ).fetchone()
    return str(row[0]), int(row[1])


def hanging(email: str) -> dict[str, Any]:
    """Return the fault that an event of this contact is never answered."""
    return {"path": "/event", "kind": "hang", "containing": f'"{email}"'}


async def test_while_one_contact_hangs_the_rest_is_done_and_a_restart_goes_on_where_it_was(
    ready: Stage,
) -> None:
    email, count = somebody(ready)
    await ready.activecampaign.fail(hanging(email))

    process = ready.start(*DAY1, **HANGING)
    async with connected(ready.dsn) as look:

        async def are_others_done() -> bool:
            return bool(await look.fetchval(DONE))

        await until(are_others_done)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    status = ready.status()
    others = ready.generated.outcomes["delivered"] - count
    assert status["equation"]["delivered"] == others
    assert status["equation"]["parked"] >= count
    assert status["equation"]["entries_read"] == ready.generated.entries
    assert status["watermark"] == status["high_water_mark"]
    await ready.activecampaign.fail()
    ready.run_after_a_kill("backfill")
    comparison = await ready.compare()
    assert comparison.is_exact, comparison
    ready.assert_equation()
    assert ready.status()["equation"]["parked"] == 0
