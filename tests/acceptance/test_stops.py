"""A backfill that is stopped, killed or started twice: nothing is lost, and what is started again goes on."""

from __future__ import annotations

import signal
import socket
import subprocess

import anyio
import pytest

from tests.acceptance.stages import PATIENCE_S, SITE_ID, Stage, until, wait_for_stderr
from tests.support.postgres import connected

DAY1 = ("backfill", "--since", "day1", "--yes")


async def stopped_half_way(stage: Stage, number: signal.Signals) -> subprocess.Popen[str]:
    """Start a backfill, and send it a signal when a third of its events arrived; return it ended."""
    third = stage.generated.outcomes["delivered"] // 3

    async def is_third_there() -> bool:
        events: int = (await stage.activecampaign.state())["events"]
        return events >= third

    process = stage.start(*DAY1, KIVA_STREAM__ACTIVECAMPAIGN__EVENTS_PER_SECOND="400")
    await until(is_third_there)
    process.send_signal(number)
    process.communicate(timeout=PATIENCE_S)
    return process


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
        wait_for_stderr, process, "draining"
    )  # or the lower of two signals would come first
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


async def test_a_stop_before_the_first_contact_is_exit_143(ready: Stage) -> None:
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

    process = stage.start(*DAY1)
    await until(is_accepted)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    stage.run_after_a_kill("backfill")
    requests = (await stage.activecampaign.state())["requests"]
    assert requests["bulkImport"] == 1
    assert (await stage.compare()).is_exact


async def test_after_a_kill_no_order_overtakes_one_whose_acceptance_was_not_recorded(stage: Stage) -> None:
    async def is_accepted() -> bool:
        return bool((await stage.activecampaign.state())["requests"].get("ecomGraphql", 0) > before)

    async def are_written() -> bool:
        return bool((await stage.activecampaign.state())["orders"] == stage.generated.orders_expected)

    stage.run("setup")
    await stage.activecampaign.change(order_delay_s=8)  # less than order_settle_s
    before = (await stage.activecampaign.state())["requests"].get("ecomGraphql", 0)
    await stage.activecampaign.fail("/api/3/ecom/graphql:hang-after:1")
    process = stage.start(*DAY1)
    await until(is_accepted)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    await stage.activecampaign.fail()
    stage.run_after_a_kill("backfill")
    assert (await stage.activecampaign.state())["orders_overtaken"] == 0
    await until(are_written)
    assert (await stage.compare()).is_exact


async def test_a_second_backfill_of_a_site_at_once_is_refused(ready: Stage) -> None:
    async def is_held() -> bool:
        return bool((await ready.activecampaign.state())["events"])

    with ready.start(*DAY1, KIVA_STREAM__ACTIVECAMPAIGN__EVENTS_PER_SECOND="10") as first:
        await until(is_held)
        said = ready.run("backfill", code=6)
        first.terminate()
        first.communicate(timeout=PATIENCE_S)
    assert f"Site {SITE_ID} is held by {socket.gethostname()} pid {first.pid}, for at most" in said
    assert first.returncode == 143


WAITING = "waiting for the process that holds the site"


async def test_a_backfill_told_to_wait_for_the_site_goes_on_when_the_other_ends(ready: Stage) -> None:
    async def is_held() -> bool:
        return bool((await ready.activecampaign.state())["events"])

    with ready.start(*DAY1, KIVA_STREAM__ACTIVECAMPAIGN__EVENTS_PER_SECOND="10") as first:
        await until(is_held)
        with ready.start("backfill", "--wait") as second:
            await anyio.to_thread.run_sync(wait_for_stderr, second, WAITING)
            first.terminate()
            first.communicate(timeout=PATIENCE_S)
            second.communicate(timeout=PATIENCE_S)
    assert (first.returncode, second.returncode) == (143, 0)
    assert (await ready.compare()).is_exact
    ready.assert_equation()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_a_backfill_that_waits_for_the_site(
    ready: Stage, number: signal.Signals, code: int
) -> None:
    async with connected(ready.dsn) as connection:
        await connection.execute(
            "INSERT INTO kiva_stream.lease "
            "VALUES ('site 1', $1, 1, 'shop pid 7', now(), now() + interval '1 h')",
            SITE_ID,
        )
        with ready.start(*DAY1, "--wait") as waiting:
            await anyio.to_thread.run_sync(wait_for_stderr, waiting, WAITING)
            waiting.send_signal(number)
            _, said = waiting.communicate(timeout=PATIENCE_S)
    assert (waiting.returncode, "Traceback" in said) == (code, False)
    assert (await ready.activecampaign.state())["contacts"] == 0
