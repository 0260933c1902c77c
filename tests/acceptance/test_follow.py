"""Following as systemd runs it: what a shop writes while it is open, whatever its transactions do."""

from __future__ import annotations

import random
import signal
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import aiohttp
import anyio
import asyncpg
import pytest

from kiva_stream.model.positions import DAY1
from kiva_stream.sandbox.postgres import OwnServer, own_postgres
from tests.acceptance.live_shop import (
    FOLLOW,
    LONG_PAID,
    NEXT_WEEK,
    WEEK,
    LiveShop,
    Row,
    arrived,
    by_contact,
    email,
    following,
    imports_watched,
    live_shop,
)
from tests.acceptance.stages import PATIENCE_S, Commands, Stage, until, wait_for_stderr
from tests.support.postgres import connected

WRITERS = 8
LONGEST_HOLD_S = 1.5
IN_STEP_S = 5
OPEN, CLOSED, NONE = ["open order"], ["closed order"], ["no order"]


async def assert_nothing_broken(shop: Commands) -> None:
    state = await shop.activecampaign.state()
    assert (state["breaches"], state["events_without_contact"]) == ({}, 0)
    assert (state["tag_overlaps"], state["contacts_in_two_requests"], state["resubscribed"]) == (0, 0, 0)


# Every committed row once, none early, none missed


class Adversary:
    """Writers that take ids early and commit late, out of order, or not at all."""

    def __init__(self, shop: LiveShop, seed: int) -> None:
        self._shop = shop
        self._random = random.Random(seed)
        self.rows: list[Row] = []
        self.rolled_back = 0
        self.visible_from: dict[int, datetime] = {}  # by log id: a moment before the commit

    async def write(self, transactions: int) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(WRITERS):
                group.start_soon(self._writer, transactions)

    async def _writer(self, transactions: int) -> None:
        async with connected(self._shop.dsn) as connection:
            for _ in range(transactions):
                await self._transaction(connection)

    async def _transaction(self, connection: asyncpg.Connection) -> None:
        transaction = connection.transaction()
        await transaction.start()
        customers = self._random.choices(self._shop.customers, k=self._random.randint(1, 4))
        rows = []
        for customer in customers:
            rows.append(await self._shop.write(connection, customer))
            await anyio.sleep(self._random.random() ** 4 * LONGEST_HOLD_S)
        if self._random.random() < 0.1:
            self.rolled_back += 1
            await transaction.rollback()
            return
        self.visible_from |= {row.position.id: datetime.now(UTC) for row in rows}
        await transaction.commit()
        self.rows += rows


@pytest.mark.parametrize("delay_s", [0, 2])
async def test_writers_that_overtake_each_other_are_followed_row_by_row(
    database: str, tmp_path: Path, delay_s: int
) -> None:
    async with live_shop(database, tmp_path, 40) as shop:
        adversary = Adversary(shop, delay_s)
        async with following(shop, KIVA_STREAM__SOURCE__DELAY_S=str(delay_s)):
            await adversary.write(12)
            await arrived(shop, len(adversary.rows))
        events = await shop.arrivals()
        assert adversary.rolled_back > 0
        assert await shop.received() == by_contact(adversary.rows)  # each once, in log order
        inserted = {row.position.id: row.inserted_at for row in adversary.rows}
        for event in events:
            received_at = datetime.fromtimestamp(event["received_at"], UTC)
            assert received_at >= adversary.visible_from[event["id"]]
            assert (received_at - inserted[event["id"]]).total_seconds() >= delay_s
        await assert_nothing_broken(shop)
        assert shop.status()["equation"]["delivered"] == len(adversary.rows)


async def test_a_row_written_late_by_an_old_transaction_is_not_lost_while_following(
    database: str, tmp_path: Path
) -> None:
    async with (
        live_shop(database, tmp_path, 2) as shop,
        connected(database) as old,
        connected(database) as young,
        following(shop),
    ):
        await shop.write(young, 1)
        await arrived(shop, 1)  # it follows
        transaction = old.transaction()
        await transaction.start()
        await old.execute("SELECT pg_current_xact_id()")
        overtaking = await shop.write(young, 1)
        written_late = await shop.write(old, 1)
        await polls(shop, 3)
        assert len(await shop.arrivals()) == 1  # nothing passes a transaction that may still write below
        await transaction.commit()
        await arrived(shop, 3)
        assert written_late.position < overtaking.position
        assert [event["id"] for event in await shop.arrivals()][1:] == [
            written_late.position.id,
            overtaking.position.id,
        ]


async def polls(shop: LiveShop, count: int) -> None:
    """Wait until the log was looked at so many times more, as PostgreSQL counts."""
    async with connected(shop.dsn) as connection:

        async def scans() -> int:
            await connection.execute("SELECT pg_stat_clear_snapshot()")
            return int(
                await connection.fetchval(
                    "SELECT idx_scan FROM pg_stat_all_indexes WHERE indexrelname = 'system_log_commit'"
                )
            )

        before = await scans()

        async def has_looked() -> bool:
            return await scans() >= before + count

        await until(has_looked)


# Taking over


async def test_follow_takes_over_at_a_backfills_checkpoint_without_loss_or_repeat(ready: Stage) -> None:
    third = ready.generated.outcomes["delivered"] // 3

    async def is_third_there() -> bool:
        return bool((await ready.activecampaign.state())["events"] >= third)

    async def is_all_there() -> bool:
        return bool((await ready.activecampaign.state())["events"] >= ready.generated.outcomes["delivered"])

    with ready.start("backfill", "--since", "day1", "--yes") as backfill:
        await until(is_third_there)
        backfill.send_signal(signal.SIGTERM)
        backfill.communicate(timeout=PATIENCE_S)
    async with following(ready, "follow"):
        await until(is_all_there)
    comparison = await ready.compare()
    assert comparison.is_exact, comparison
    ready.assert_equation()
    await assert_nothing_broken(ready)


async def test_a_second_process_says_that_the_site_is_held_or_waits_for_it(
    database: str, tmp_path: Path
) -> None:
    async with live_shop(database, tmp_path, 1) as shop, connected(database) as connection:
        async with following(shop):
            await shop.write(connection, 1)
            await arrived(shop, 1)
            assert "is held by" in shop.run("follow", code=6)
            waiting = shop.start("follow", "--wait")
            await anyio.to_thread.run_sync(
                wait_for_stderr, waiting, "waiting for the process that holds the site"
            )
        row = await shop.write(connection, 1)
        try:
            await arrived(shop, 2)
        finally:
            waiting.terminate()
            waiting.communicate(timeout=PATIENCE_S)
        assert waiting.returncode == 0
        assert [event["id"] for event in await shop.arrivals()][1:] == [row.position.id]


# Contacts, orders and tags


async def test_a_change_at_the_shop_without_an_entry_arrives(database: str, tmp_path: Path) -> None:
    async with live_shop(database, tmp_path, 3) as shop:
        await shop.order(71, 1, **LONG_PAID)
        async with following(shop), connected(database) as shopkeeper:
            await until(lambda: is_order(shop, 71, "COMPLETED"))
            await shopkeeper.execute(
                "UPDATE kiva.orders SET payment_status = 'refunded', updated_at = now() WHERE id = 71"
            )
            await until(lambda: is_order(shop, 71, "REFUNDED"))
            change = shopkeeper.transaction()
            await change.start()  # `updated_at` is older than the commit by several looks
            await shopkeeper.execute(
                "UPDATE kiva.customers SET status = 'paused', next_delivery = '2030-01-07', "
                "updated_at = clock_timestamp() WHERE id = 2"
            )
            await polls(shop, 3)
            await change.commit()
            await until(lambda: is_field(shop, 2, "Kiva Status", "paused"))
            await until(lambda: is_field(shop, 2, "Kiva Next Delivery", "2030-01-07"))
        assert await shop.arrivals() == []
        await assert_nothing_broken(shop)


async def is_order(shop: LiveShop, number: int, status: str) -> bool:
    return (await shop.order_there(number)).get("normalizedStatus") == status


async def is_field(shop: LiveShop, customer: int, title: str, value: str) -> bool:
    contact = (await shop.contacts()).get(email(customer), {"fields": {}})
    return bool(contact["fields"].get(title) == value)


async def test_when_a_week_opens_every_contact_gets_its_tag_also_without_an_entry(
    database: str, tmp_path: Path
) -> None:
    async with live_shop(database, tmp_path, 30) as shop:
        for customer in range(1, 11):
            await shop.order(customer, customer, WEEK, **LONG_PAID)
            await shop.order(100 + customer, customer, NEXT_WEEK)
        before = {email(each): CLOSED if each <= 10 else NONE for each in shop.customers}
        after = {email(each): OPEN if each <= 10 else NONE for each in shop.customers}

        async def is_before() -> bool:
            return await shop.tags() == before

        async def is_after() -> bool:
            return await shop.tags() == after

        async def is_settled() -> bool:
            return bool((await anyio.to_thread.run_sync(shop.status))["tags_due"] == 0)

        async with following(shop):
            await until(is_before)
            await shop.open_week(NEXT_WEEK)
            await until(is_after)
            await until(is_settled)  # which is noted after the last tag is there
        requests = (await shop.activecampaign.state())["requests"]
        swaps = requests["removeContactTag"], requests["addContactTag"]
        assert swaps == (10, 10)  # only those whose tag differs
        await assert_nothing_broken(shop)


@pytest.mark.parametrize("start", ["backfill", "follow"])
async def test_an_order_that_was_cancelled_while_nothing_ran_and_left_no_trace_counts_for_no_tag(
    database: str, tmp_path: Path, start: str
) -> None:
    async with live_shop(database, tmp_path, 2) as shop, connected(database) as shopkeeper:
        await shop.order(71, 1)
        await shop.order(72, 2)
        await shop.backfill(DAY1)
        assert await shop.tags() == {email(1): OPEN, email(2): OPEN}
        await shopkeeper.execute("UPDATE kiva.orders SET status = 'cancelled' WHERE id = 71")  # of long ago
        after = {email(1): NONE, email(2): OPEN}

        async def is_after() -> bool:
            return await shop.tags() == after

        if start == "backfill":
            await shop.backfill()
        else:
            async with following(shop, "follow"):
                await until(is_after)
        assert await shop.tags() == after
        await assert_nothing_broken(shop)


async def test_only_customers_who_signed_up_while_nothing_ran_start_automations_when_following_begins(
    database: str, tmp_path: Path
) -> None:
    async with live_shop(database, tmp_path, 1) as shop, imports_watched(shop) as imports:
        backfill = ("backfill", "--since", "day1", "--yes")
        await anyio.to_thread.run_sync(lambda: shop.run(*backfill, code=0, **imports.environ))
        imports.bodies.clear()
        await shop.rows.customer(2, email(2))  # of long ago; had no contact yet
        await shop.rows.customer(3, email(3), created_at="now")

        async def are_there() -> bool:
            return {email(2), email(3)} <= (await shop.contacts()).keys()

        async with following(shop, "follow", **imports.environ):
            await until(are_there)
        assert {
            row["email"]: not body["exclude_automations"]
            for body in imports.bodies
            for row in body["contacts"]
        } == {email(2): False, email(3): True}


async def test_a_customer_who_opts_in_again_is_resubscribed_by_follow_only(
    database: str, tmp_path: Path
) -> None:
    async with live_shop(database, tmp_path, 2) as shop, connected(database) as shopkeeper:
        await shopkeeper.execute("UPDATE kiva.customers SET email_opt_in = false")
        await shop.backfill(DAY1)
        assert await lists(shop) == {email(1): 2, email(2): 2}
        await shopkeeper.execute("UPDATE kiva.customers SET email_opt_in = true")
        await shop.write(shopkeeper, 1, "email.resubscribe")
        await shop.backfill()  # an entry of history resubscribes no contact
        assert await lists(shop) == {email(1): 2, email(2): 2}
        async with following(shop, "follow"):
            await shop.write(shopkeeper, 1, "email.resubscribe")
            await arrived(shop, 2)
        assert await lists(shop) == {email(1): 1, email(2): 2}  # the other did not ask


async def test_an_entry_that_a_rewind_sends_again_resubscribes_nobody_who_left_since(
    database: str, tmp_path: Path
) -> None:
    async with live_shop(database, tmp_path, 1) as shop, connected(database) as shopkeeper:
        await shop.backfill(DAY1)
        async with following(shop, "follow"):
            await shop.write(shopkeeper, 1, "email.resubscribe")
            await arrived(shop, 1)
        assert await lists(shop) == {email(1): 1}
        await unsubscribe_there(shop)
        shop.run("rewind", "--to", "day1", "--resend", "--yes")
        async with following(shop, "follow"):
            await arrived(shop, 2)
        assert await lists(shop) == {email(1): 2}
        assert shop.status()["notes"]["resubscribe_late"] == 1


async def unsubscribe_there(shop: LiveShop) -> None:
    """Take the first contact off the list, as the link in an e-mail does."""
    body = {"contactList": {"list": 1, "contact": 1, "status": 2}}
    headers = {"Api-Token": shop.environ["KIVA_STREAM__ACTIVECAMPAIGN__API_TOKEN"]}
    url = shop.environ["KIVA_STREAM__ACTIVECAMPAIGN__API_URL"]
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/api/3/contactLists", json=body, headers=headers) as answer,
    ):
        assert answer.status in {200, 201}, await answer.text()


async def lists(shop: LiveShop) -> dict[str, int]:
    return {each: contact["lists"]["all customers"] for each, contact in (await shop.contacts()).items()}


# The service


async def test_status_says_that_following_is_in_step(database: str, tmp_path: Path) -> None:
    async with live_shop(database, tmp_path, 1) as shop, connected(database) as shopkeeper:
        await shop.backfill(DAY1)
        assert shop.status()["lag_s"] is None  # nobody follows

        async def is_in_step() -> bool:
            status = await anyio.to_thread.run_sync(shop.status)
            return status["lag_s"] is not None and 0 <= status["lag_s"] < IN_STEP_S

        async with following(shop, "follow"):
            await shop.write(shopkeeper, 1)
            await arrived(shop, 1)
            await until(is_in_step)


async def test_follow_notifies_systemd_of_ready_status_watchdog_and_stopping(
    database: str, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        place = str(tmp_path / "notify")
        manager.bind(place)
        manager.settimeout(PATIENCE_S)
        notices: list[str] = []

        def hears(word: str) -> None:
            while not notices or not notices[-1].startswith(word):
                notices.append(manager.recv(4096).decode())

        async with live_shop(database, tmp_path, 1) as shop:
            async with following(shop, NOTIFY_SOCKET=place, WATCHDOG_USEC="200000"):
                for word in ("READY=1", "STATUS=at ", "WATCHDOG=1"):
                    await anyio.to_thread.run_sync(hears, word)
            await anyio.to_thread.run_sync(hears, "STOPPING=1")
        assert notices[0] == "READY=1"


# The shop's database is down at the start


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    with own_postgres() as started:
        yield started


async def test_follow_waits_for_a_source_that_is_down_at_the_start(server: OwnServer, tmp_path: Path) -> None:
    async with live_shop(await server.create_database("waited_for"), tmp_path, 1) as shop:
        async with connected(shop.dsn) as writer:
            await shop.write(writer, 1)
        server.stop()
        with shop.start(*FOLLOW) as process:
            try:
                await anyio.to_thread.run_sync(wait_for_stderr, process, "cannot be read (source.dsn)")
                assert process.poll() is None
                server.start()
                await arrived(shop, 1)
            finally:
                process.terminate()
            await anyio.to_thread.run_sync(partial(process.wait, PATIENCE_S))
            assert process.returncode == 0


async def test_a_sigterm_ends_the_wait_for_a_source_that_is_down_at_the_start(
    server: OwnServer, tmp_path: Path
) -> None:
    async with live_shop(await server.create_database("given_up"), tmp_path, 1) as shop:
        server.stop()
        with shop.start(*FOLLOW) as process:
            try:
                await anyio.to_thread.run_sync(wait_for_stderr, process, "cannot be read (source.dsn)")
            finally:
                process.terminate()
            _, said = await anyio.to_thread.run_sync(lambda: process.communicate(timeout=PATIENCE_S))
        assert (process.returncode, "Traceback" in said) == (0, False), said
        server.start()
