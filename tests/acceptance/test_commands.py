"""The commands around a backfill, as a user runs them: plan, sync --customer, follow, status, check."""

from __future__ import annotations

import signal
from typing import Any

import anyio
import msgspec
import pytest

from tests.acceptance.stages import SITE_ID, Stage
from tests.support.postgres import connected

DAY1 = ("--since", "day1")
PATIENCE_S = 60
QUICK = {"KIVA_STREAM__SOURCE__POLL_INTERVAL_S": "0.2", "KIVA_STREAM__SOURCE__DELAY_S": "0"}
WEEK_TAGS = {"open order", "closed order", "no order"}


def json_of(stage: Stage, *arguments: str) -> dict[str, Any]:
    return msgspec.json.decode(stage.run(*arguments, "--json"))  # type: ignore[no-any-return]


async def contacts(stage: Stage) -> list[dict[str, Any]]:
    return [row async for row in stage.activecampaign.rows("contacts")]


async def orders(stage: Stage) -> list[dict[str, Any]]:
    return [row async for row in stage.activecampaign.rows("orders")]


async def paid_orders(stage: Stage, customer: int) -> int:
    async with connected(stage.dsn) as connection:
        query = "SELECT count(*) FROM kiva.orders WHERE customer_id = $1 AND paid_at IS NOT NULL"
        return await connection.fetchval(query, customer)  # type: ignore[no-any-return]


async def buyer(stage: Stage) -> int:
    """Return a customer with paid orders and an address that nobody shares."""
    async with connected(stage.dsn) as connection:
        return await connection.fetchval(  # type: ignore[no-any-return]
            """SELECT c.id FROM kiva.customers c
               WHERE c.site_id = $1 AND c.deleted_at IS NULL AND NOT c.is_test AND c.email_opt_in
                 AND NOT c.email_blacklisted AND c.email ~ '^[a-z0-9.]+@[a-z0-9.]+[a-z]$'
                 AND (SELECT count(*) FROM kiva.customers o WHERE lower(o.email) = lower(c.email)) = 1
                 AND EXISTS (SELECT FROM kiva.orders o WHERE o.customer_id = c.id AND o.paid_at IS NOT NULL)
               ORDER BY c.id LIMIT 1""",
            SITE_ID,
        )


async def test_a_plan_says_about_what_a_backfill_then_does_and_sends_nothing(ready: Stage) -> None:
    before = (await ready.activecampaign.state())["requests"]
    plan = json_of(ready, "plan", *DAY1)
    assert (await ready.activecampaign.state())["requests"] == before
    ready.run("backfill", *DAY1, "--yes")
    status = json_of(ready, "status")
    equation = status["equation"]
    assert plan["entries"] == equation["entries_read"] == ready.generated.entries
    assert plan["sampled"] > 1000
    assert sum(plan["events"].values()) == pytest.approx(equation["delivered"], rel=0.15)
    assert plan["classes"]["event"] == pytest.approx(sum(plan["events"].values()), abs=20)
    assert plan["dead"]["no_email"] == pytest.approx(equation["dead"]["no_email"], rel=0.5)
    assert plan["orders"] >= status["orders"]["sent"] > 0
    assert plan["requests"]["POST /import/bulk_import"] == 1
    assert plan["hours"] == pytest.approx(sum(plan["phases"].values()))
    again = json_of(ready, "plan")
    assert (again["resumes"], again["entries"]) == (True, 0)
    assert again["phases"]["orders"] < plan["phases"]["orders"]


async def test_a_plan_is_possible_before_setup_and_leaves_no_trace(stage: Stage) -> None:
    assert json_of(stage, "plan", *DAY1)["entries"] == stage.generated.entries
    assert (await stage.activecampaign.state())["requests"] == {}
    assert "--since" in stage.run("plan", code=2)


async def test_sync_customer_upserts_that_customer_alone_with_orders_and_tag(ready: Stage) -> None:
    customer = await buyer(ready)
    report = json_of(ready, "sync", "--customer", str(customer))
    (contact,) = await contacts(ready)
    sent = await orders(ready)
    assert (report["contact"], report["sent"], report["list_status"]) == ("linked", True, "subscribed")
    assert report["ac_contact_id"] == contact["id"]
    assert report["url"].endswith(f"/app/contacts/{contact['id']}")
    assert contact["fields"] == report["fields"]
    assert contact["fields"]["Kiva Customer ID"] == str(customer)
    assert WEEK_TAGS & set(contact["tags"]) == {report["tag"]}
    unsent = await paid_orders(ready, customer) - len(sent)
    kept = {"not sent": unsent} if unsent else {}
    assert report["orders"] == {"sent": len(sent), **kept}
    assert (contact["events"], (await ready.activecampaign.state())["breaches"]) == (0, {})
    ready.run("status", code=5)  # no checkpoint
    again = json_of(ready, "sync", "--customer", str(customer))
    assert (again["sent"], again["orders"]) == (False, {"unchanged": len(sent), **kept})
    assert await contacts(ready) == [contact]


async def test_sync_customer_adds_no_second_tag_to_a_contact_that_the_state_does_not_know(
    ready: Stage,
) -> None:
    customer = await buyer(ready)
    ready.run("sync", "--customer", str(customer))
    async with connected(ready.dsn) as connection:
        await connection.execute("DROP SCHEMA kiva_stream CASCADE")
        await connection.execute(
            "UPDATE kiva.orders SET status = 'open', week_start = (SELECT max(week_start) FROM "
            "kiva.delivery_weeks WHERE site_id = $2) WHERE customer_id = $1 AND paid_at IS NOT NULL",
            customer,
            SITE_ID,
        )
    ready.run("setup")
    report = json_of(ready, "sync", "--customer", str(customer))
    (contact,) = await contacts(ready)
    assert WEEK_TAGS & set(contact["tags"]) == {report["tag"]} == {"open order"}


async def test_sync_customer_takes_customers_of_the_same_address_into_account(ready: Stage) -> None:
    customer = await buyer(ready)
    async with connected(ready.dsn) as connection:
        await connection.execute(
            "INSERT INTO kiva.customers (id, site_id, email, email_opt_in, status, created_at, updated_at) "
            "SELECT 999999, site_id, email, false, 'cancelled', created_at, updated_at "
            "FROM kiva.customers WHERE id = $1",
            customer,
        )
    report = json_of(ready, "sync", "--customer", str(customer))
    (contact,) = await contacts(ready)
    assert report["list_status"] == "unsubscribed"
    assert contact["lists"] == {"all customers": 2}
    assert contact["fields"]["Kiva Customer ID"] == str(customer)


async def test_a_backfill_after_sync_customer_completes_the_account(ready: Stage) -> None:
    ready.run("sync", "--customer", str(await buyer(ready)))
    ready.run("backfill", *DAY1, "--yes")
    comparison = await ready.compare()
    assert comparison.is_exact, comparison
    ready.assert_equation()


async def test_sync_customer_says_why_a_customer_is_kept_out_of_activecampaign(ready: Stage) -> None:
    async with connected(ready.dsn) as connection:
        where = {
            "is erased": "site_id = 1 AND deleted_at IS NOT NULL",
            "test account": "site_id = 1 AND is_test AND deleted_at IS NULL",
            "no usable e-mail": "site_id = 1 AND email IS NULL AND NOT is_test AND deleted_at IS NULL",
        }
        await connection.execute(
            "UPDATE kiva.customers SET is_test = true WHERE id = (SELECT min(id) FROM kiva.customers "
            "WHERE site_id = 1 AND deleted_at IS NULL)"
        )
        await connection.execute(
            "UPDATE kiva.customers SET email = NULL, is_test = false, deleted_at = NULL "
            "WHERE id = (SELECT max(id) FROM kiva.customers WHERE site_id = 1)"
        )
        await connection.execute(
            "UPDATE kiva.customers SET deleted_at = now() WHERE id = (SELECT max(id) - 1 FROM kiva.customers "
            "WHERE site_id = 1)"
        )
        for said, condition in where.items():
            customer = await connection.fetchval(f"SELECT min(id) FROM kiva.customers WHERE {condition}")
            assert said in ready.run("sync", "--customer", str(customer), code=2)
    assert "no customer 999999999" in ready.run("sync", "--customer", "999999999", code=2)
    assert await contacts(ready) == []


async def test_sync_customer_before_setup_names_setup(stage: Stage) -> None:
    assert "kiva-stream setup" in stage.run("sync", "--customer", "1", code=5)


async def test_sync_customer_is_exit_6_while_another_process_holds_the_site(ready: Stage) -> None:
    async with connected(ready.dsn) as connection:
        await connection.execute(
            "INSERT INTO kiva_stream.lease "
            "VALUES ('site 1', $1, 1, 'shop pid 7', now(), now() + interval '1 h')",
            SITE_ID,
        )
        said = ready.run("sync", "--customer", str(await buyer(ready)), code=6)
        assert f"Site {SITE_ID} is held by shop pid 7, for at most" in said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_follow_carries_what_is_left_and_a_signal_drains_it(
    ready: Stage, number: signal.Signals, code: int
) -> None:
    process = ready.start("follow", *DAY1, **QUICK)
    with anyio.fail_after(PATIENCE_S):
        while (await ready.activecampaign.state())["events"] < ready.generated.outcomes["delivered"]:
            assert process.poll() is None, process.communicate()
            await anyio.sleep(0.05)
    process.send_signal(number)
    _, err = await anyio.to_thread.run_sync(lambda: process.communicate(timeout=PATIENCE_S))
    assert process.returncode == code, err
    comparison = await ready.compare()
    assert comparison.is_exact, comparison
    assert (ready.status()["phase"], ready.status()["equation"]["pending"]) == ("follow", 0)


async def test_follow_without_a_checkpoint_asks_where_to_begin(ready: Stage) -> None:
    assert "--since" in ready.run("follow", code=2)


async def test_status_shows_orders_and_the_time_that_week_tags_take(ready: Stage) -> None:
    ready.run("backfill", *DAY1, "--yes")
    async with connected(ready.dsn) as connection:
        await connection.execute(
            "INSERT INTO kiva_stream.tag_due (site_id, contact_id) "
            "SELECT site_id, id FROM kiva_stream.contact ORDER BY id LIMIT 10 ON CONFLICT DO NOTHING"
        )
    status = ready.status()
    assert status["orders"] == {"sent": len(await orders(ready)), "refused": status["orders"]["refused"]}
    assert status["tags_due"] == 10
    assert status["tags_left_s"] == pytest.approx(10 * 3 * 1.1 / 1000)
    assert json_of(ready, "plan")["tags_due"] == 10


async def test_check_prints_a_row_for_each_check_and_names_what_is_missing(stage: Stage) -> None:
    stage.run("check", code=7)
    stage.run("setup")
    lines = json_of(stage, "check")["lines"]
    assert all(line["ok"] for line in lines)
    assert [line["subject"] for line in lines] == [
        *(
            "source",
            "encoding",
            "timezone",
            "currency",
            "website",
            "clock",
            "horizon",
            "orders",
            "weeks",
            "changes",
            "state",
            "account",
            "activecampaign",
        ),
        *("event tracking", "event names", "fields", "tags", "connection", "list", "limits"),
    ]
