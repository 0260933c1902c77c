"""The main job as a user runs it: the whole log becomes the customers' history, whatever is pulled."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.live_shop import by_contact, live_shop
from tests.acceptance.stages import PATIENCE_S, SITE_ID, Stage, until
from tests.support.postgres import connected

DAY1 = ("backfill", "--since", "day1", "--yes")


async def test_a_backfill_delivers_exactly_the_events_of_the_truth_each_once_in_order(ready: Stage) -> None:
    said = ready.run(*DAY1)
    comparison = await ready.compare()
    state = await ready.activecampaign.state()
    assert comparison.is_exact, comparison
    assert comparison.contacts == ready.generated.contacts
    assert comparison.orders_arrived == ready.generated.orders_expected
    assert (state["breaches"], state["events_without_contact"]) == ({}, 0)
    assert (state["tag_overlaps"], state["contacts_in_two_requests"], state["resubscribed"]) == (0, 0, 0)
    ready.assert_equation()
    assert f"{ready.generated.entries:,} entries read = " in said


async def test_a_second_backfill_changes_nothing_at_activecampaign(ready: Stage) -> None:
    ready.run(*DAY1)
    before = await ready.activecampaign.state()
    ready.run("backfill")
    after = await ready.activecampaign.state()
    asked = Counter(after["requests"]) - Counter(before["requests"])
    numbers = {"listLists": 1, "listFields": 1, "listTags": 1, "listConnections": 1}  # that contacts refer to
    assert asked == numbers | {"findContacts": 1}  # are there contacts with ids that were never seen?
    assert after["changing_requests"] == before["changing_requests"]
    ready.assert_equation()


async def first_duplicate(stage: Stage) -> str:
    """Return the position of the first entry that the shop wrote twice."""
    with closing(sqlite3.connect(stage.truth)) as truth:
        (log_id,) = truth.execute(
            "SELECT log_id FROM entry_row WHERE site_id = ? AND why = 'duplicate' ORDER BY ord LIMIT 1",
            (SITE_ID,),
        ).fetchone()
    async with connected(stage.dsn) as connection:
        txid = await connection.fetchval("SELECT txid FROM kiva.system_log WHERE id = $1", log_id)
    return f"{txid}:{log_id}"


async def test_a_backfill_ends_before_until_and_the_next_one_knows_what_came_before(ready: Stage) -> None:
    until_there = await first_duplicate(ready)
    ready.run("backfill", "--since", until_there, "--until", "1:1", "--yes", code=2)
    ready.run("status", code=5)  # nothing was begun
    ready.run(*DAY1, "--until", until_there)
    assert ready.status()["equation"]["skipped"].get("duplicate", 0) == 0
    ready.run("backfill")
    comparison = await ready.compare()
    assert comparison.is_exact, comparison
    ready.assert_equation()
    before = ready.status()
    assert "--until" in ready.run("backfill", "--until", until_there, code=2)
    moving = {"updated_at": None, "lag_s": None}
    assert ready.status() | moving == before | moving


async def test_events_since_narrows_the_events_and_leaves_the_contacts_complete(ready: Stage) -> None:
    ready.run(*DAY1, "--events-since", "2026-06-01")
    comparison = await ready.compare()
    skipped = ready.status()["equation"]["skipped"]
    duplicates = ready.generated.outcomes["skipped duplicate"]
    assert skipped["before_events_since"] > 0
    assert skipped["before_events_since"] + skipped.get("duplicate", 0) == comparison.lost + duplicates
    assert (comparison.unexpected, comparison.repeated, comparison.out_of_order) == (0, 0, 0)
    assert comparison.contacts == ready.generated.contacts


async def test_until_and_since_divide_the_log_without_loss_or_repeat(ready: Stage) -> None:
    ready.run(*DAY1, "--until", "2026-03-01")
    first = (await ready.compare()).arrived
    ready.run("backfill")
    comparison = await ready.compare()
    assert 0 < first < comparison.arrived
    assert comparison.is_exact, comparison


async def test_a_dry_run_shows_the_plan_and_leaves_no_trace(stage: Stage) -> None:
    said = stage.run("backfill", "--since", "day1", "--dry-run")
    assert f"{stage.generated.entries:,}" in said
    assert (await stage.activecampaign.state())["requests"] == {}


@pytest.mark.parametrize("option", [("--since", "2026-01-01"), ("--events-since", "2026-01-01")])
async def test_other_bounds_than_the_first_are_refused_naming_rewind(
    carried: Stage, option: tuple[str, str]
) -> None:
    assert "rewind" in carried.run("backfill", *option, "--yes", code=2)


async def test_status_reads_beside_a_running_backfill(ready: Stage) -> None:
    async def is_running() -> bool:
        return bool((await ready.activecampaign.state())["events"])

    with ready.start(*DAY1) as process:
        await until(is_running)
        status = ready.status()
        process.communicate(timeout=PATIENCE_S)
    equation = status["equation"]
    parts = equation["delivered"] + equation["synced"] + sum(equation["skipped"].values())
    parts += sum(equation["dead"].values()) + equation["pending"] + equation["parked"]
    assert equation["entries_read"] == parts


async def test_dead_entries_of_a_customer_who_got_an_address_are_delivered_before_newer_ones(
    database: str, tmp_path: Path
) -> None:
    async with live_shop(database, tmp_path, 3) as shop, connected(database) as shopkeeper:
        await shopkeeper.execute("UPDATE kiva.customers SET email = NULL WHERE id < 3")
        rows = [await shop.write(shopkeeper, customer) for customer in (1, 2, 3, 1, 2)]
        shop.run(*DAY1)
        assert shop.status()["equation"]["dead"] == {"no_email": 4}
        await shopkeeper.execute(
            "UPDATE kiva.customers SET email = 'customer' || id || '@example.com' WHERE id < 3"
        )
        rows.append(await shop.write(shopkeeper, 1))  # the other one does nothing any more
        shop.run("backfill")
        assert await shop.received() == by_contact(rows)
        equation = shop.status()["equation"]
        assert (equation["delivered"], equation["dead"]) == (6, {})
