"""The main job as a user runs it: the whole log becomes the customers' history, whatever is pulled."""

from __future__ import annotations

import signal
import socket
import sqlite3
import subprocess
from collections import Counter
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from tests.acceptance.conftest import PATIENCE_S, SHORT_LEASE, SITE_ID, Stage, heard, until
from tests.acceptance.live_shop import by_contact, live_shop
from tests.dsn import connected

DAY1 = ("backfill", "--since", "day1", "--yes")
MAX_IN_FLIGHT = 200


async def stopped_half_way(stage: Stage, number: signal.Signals, **environ: str) -> subprocess.Popen[str]:
    """Start a backfill, and send it a signal when a third of its events arrived; return it ended."""
    third = stage.generated.outcomes["delivered"] // 3

    async def is_third_there() -> bool:
        events: int = (await stage.activecampaign.state())["events"]
        return events >= third

    process = stage.start(*DAY1, KIVA_STREAM__ACTIVECAMPAIGN__EVENTS_PER_SECOND="400", **environ)
    await until(is_third_there)
    process.send_signal(number)
    process.communicate(timeout=PATIENCE_S)
    return process


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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_signal_drains_and_nothing_is_sent_twice(
    ready: Stage, number: signal.Signals, code: int
) -> None:
    process = await stopped_half_way(ready, number)
    assert process.returncode == code
    status = ready.status()
    arrived = (await ready.activecampaign.state())["events"]
    assert (status["phase"], status["equation"]["delivered"]) == ("events", arrived)
    ready.run("backfill")
    comparison = await ready.compare()
    assert comparison.is_exact, comparison
    ready.assert_equation()


@pytest.mark.parametrize(
    ("numbers", "drain_timeout_s", "code", "word"),
    [
        ([signal.SIGTERM, signal.SIGINT], "60", 143, ""),
        ([signal.SIGTERM], "0.5", 1, "did not finish within 0.5 s"),
    ],
    ids=["a second signal", "the time-out"],
)
async def test_a_drain_that_cannot_end_is_cut_short_and_loses_nothing(
    ready: Stage, numbers: list[signal.Signals], drain_timeout_s: str, code: int, word: str
) -> None:
    await ready.activecampaign.fail("/event:hang:1")

    async def is_hanging() -> bool:
        return "trackEvent" in (await ready.activecampaign.state())["requests"]

    process = ready.start(*DAY1, KIVA_STREAM__PIPELINE__DRAIN_TIMEOUT_S=drain_timeout_s)
    await until(is_hanging)
    process.send_signal(numbers[0])
    await anyio.to_thread.run_sync(
        heard, process, "draining"
    )  # of two that wait to be taken, the lower comes first
    for number in numbers[1:]:
        process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == code
    assert word in said
    await ready.activecampaign.fail()
    ready.run("backfill")
    comparison = await ready.compare()
    assert (comparison.lost, comparison.out_of_order) == (0, 0)


async def test_a_stop_during_an_outage_needs_no_patience_and_loses_nothing(ready: Stage) -> None:
    await ready.activecampaign.fail("/event:500-before:1")

    async def is_failing() -> bool:
        return bool((await ready.activecampaign.state())["requests"].get("trackEvent", 0) >= 5)

    process = ready.start(*DAY1)
    await until(is_failing)
    process.terminate()
    _, said = process.communicate(timeout=20)
    assert process.returncode == 143
    assert "may or may not have arrived" in said
    await ready.activecampaign.fail()
    ready.run("backfill")
    assert (await ready.compare()).is_exact


async def test_a_stop_before_the_first_contact_is_a_stop(ready: Stage) -> None:
    await ready.activecampaign.fail("/api/3/lists:hang:1")

    before = (await ready.activecampaign.state())["requests"]["listLists"]

    async def is_asked_again() -> bool:
        return bool((await ready.activecampaign.state())["requests"]["listLists"] > before)

    process = ready.start(*DAY1)
    await until(is_asked_again)
    process.terminate()
    _, said = process.communicate(timeout=20)
    assert (process.returncode, "Unexpected" in said) == (143, False)


async def test_a_backfill_killed_while_contacts_are_imported_goes_on_with_the_same_import(
    stage: Stage,
) -> None:
    stage.run("setup")
    await stage.activecampaign.change(import_duration_s=2)

    async def is_accepted() -> bool:
        return "bulkImportInfo" in (await stage.activecampaign.state())["requests"]

    process = stage.start(*DAY1, **SHORT_LEASE)
    await until(is_accepted)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    stage.run_after_a_kill("backfill")
    requests = (await stage.activecampaign.state())["requests"]
    assert requests["bulkImport"] == 1
    assert (await stage.compare()).is_exact


async def test_two_backfills_of_a_site_at_once_are_refused(ready: Stage) -> None:
    async def is_held() -> bool:
        return bool((await ready.activecampaign.state())["events"])

    with ready.start(*DAY1, KIVA_STREAM__ACTIVECAMPAIGN__EVENTS_PER_SECOND="10") as first:
        await until(is_held)
        said = ready.run("backfill", code=6)
        first.terminate()
        first.communicate(timeout=PATIENCE_S)
    assert f"Site {SITE_ID} is held by {socket.gethostname()} pid {first.pid}, for at most" in said
    assert first.returncode == 143


async def test_events_since_narrows_the_events_and_leaves_the_contacts_complete(ready: Stage) -> None:
    ready.run(*DAY1, "--events-since", "2026-06-01")
    comparison = await ready.compare()
    skipped = ready.status()["equation"]["skipped"]
    duplicates = ready.generated.outcomes["skipped duplicate"]
    assert skipped["before_events_since"] > 0
    assert skipped["before_events_since"] + skipped.get("duplicate", 0) == comparison.lost + duplicates
    assert (comparison.unexpected, comparison.repeated, comparison.out_of_order) == (0, 0, 0)
    assert comparison.contacts == ready.generated.contacts


async def test_until_and_since_divide_the_log_without_gap_or_repeat(ready: Stage) -> None:
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
    ready: Stage, option: tuple[str, str]
) -> None:
    ready.run(*DAY1)
    assert "rewind" in ready.run("backfill", *option, "--yes", code=2)


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


async def test_who_got_an_address_while_nothing_ran_has_the_dead_entries_delivered_before_newer_ones(
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
