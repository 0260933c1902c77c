"""A generated history in a real PostgreSQL: the shares of its mix, and agreement with its own truth."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from kiva_stream.errors import SettingsError, SourceError
from kiva_stream.sandbox.generator import Generated, generate
from kiva_stream.sandbox.postgres import Server

ENTRIES = 30_000


class Filled:
    """A filled database, its truth file, and the generator's report."""

    def __init__(self, dsn: str, truth: Path, generated: Generated) -> None:
        self.dsn = dsn
        self.truth = truth
        self.generated = generated

    async def ask(self, query: str) -> list[Any]:
        connection = await asyncpg.connect(self.dsn)
        try:
            return list(await connection.fetch(query))
        finally:
            await connection.close()

    async def value(self, query: str) -> int:
        return int((await self.ask(query))[0][0])

    def truth_rows(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(self.truth)) as db:
            return db.execute(query).fetchall()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Filled]:
    name = f"kiva_test_{uuid4().hex}"
    dsn, truth = await postgres.create_database(name), tmp_path_factory.mktemp("truth") / "truth.db"
    yield Filled(dsn, truth, await generate(dsn, ENTRIES, 7, truth=truth))
    await postgres.drop_database(name)


async def test_the_log_has_the_entries_asked_for_and_those_of_another_site(filled: Filled) -> None:
    counts = await filled.ask("SELECT site_id, count(*) FROM kiva.system_log GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in counts] == [(1, ENTRIES), (2, ENTRIES * 3 // 100)]
    assert filled.generated.entries == ENTRIES
    assert filled.generated.site_ids == (1,)


async def test_the_truth_has_a_row_for_every_entry_in_log_order(filled: Filled) -> None:
    log = await filled.ask("SELECT id FROM kiva.system_log WHERE site_id = 1 ORDER BY txid, id")
    told = filled.truth_rows("SELECT log_id FROM entry ORDER BY ord")
    assert [row[0] for row in log] == [row[0] for row in told]


async def test_every_transaction_has_its_own_txid_and_about_a_thousand_rows(filled: Filled) -> None:
    sizes = [row[0] for row in await filled.ask("SELECT count(*) FROM kiva.system_log GROUP BY txid")]
    assert len(sizes) > ENTRIES / 1_000
    assert max(sizes) < 1_100


async def test_late_rows_make_the_order_of_ids_differ_from_log_order(filled: Filled) -> None:
    late = await filled.value(
        "SELECT count(*) FROM (SELECT id, max(id) OVER (ORDER BY txid, id) AS highest FROM kiva.system_log) l"
        " WHERE id < highest"
    )
    assert late / ENTRIES == pytest.approx(0.005, abs=0.002)
    gaps = await filled.value("SELECT max(id) - count(*) FROM kiva.system_log")
    assert gaps / ENTRIES == pytest.approx(0.003, abs=0.001)


async def test_classes_and_events_have_their_shares(filled: Filled) -> None:
    classes = {kind: count / ENTRIES for kind, count in filled.generated.classes.items()}
    structured = 0.611  # the share after the legacy texts, whose sync-only entries are noise
    assert classes["event"] == pytest.approx(0.502, abs=0.002)
    assert classes["sync_only"] == pytest.approx(0.198 * structured, abs=0.005)
    assert len(filled.generated.events) == 41
    assert filled.generated.events["Order Completed"] / ENTRIES == pytest.approx(0.072, abs=0.001)
    assert filled.generated.classes == dict(filled.truth_rows("SELECT kind, count(*) FROM entry GROUP BY 1"))


async def test_outcomes_are_all_of_the_closed_lists_and_each_occurs(filled: Filled) -> None:
    found = {(outcome, why) for outcome, why in filled.truth_rows("SELECT DISTINCT outcome, why FROM entry")}
    skipped = ("noise", "duplicate", "test", "erased", "no_account", "staff_login")
    dead = ("no_email", "no_customer", "wrong_site")
    assert found == {
        ("delivered", None),
        ("synced", None),
        *(("skipped", why) for why in skipped),
        *(("dead", why) for why in dead),
    }


async def test_expected_eventdata_is_complete_and_ends_with_the_entrys_id(filled: Filled) -> None:
    delivered = filled.truth_rows(
        "SELECT log_id, ac_name, eventdata, email FROM entry WHERE outcome = 'delivered'"
    )
    assert all(name and email and data.endswith(f"log={log_id}") for log_id, name, data, email in delivered)
    assert all(len(data.encode()) <= 250 for _, _, data, _ in delivered)


async def test_the_contact_of_a_delivered_entry_is_among_the_expected_ones(filled: Filled) -> None:
    strangers = filled.truth_rows(
        "SELECT email FROM entry WHERE outcome IN ('delivered', 'synced')"
        " AND email NOT IN (SELECT email FROM contact WHERE site_id = 1)"
    )
    assert strangers == []
    assert filled.truth_rows("SELECT count(*) FROM contact") == [(filled.generated.contacts,)]


async def test_the_entries_of_a_customer_whose_row_is_gone_are_skipped(filled: Filled) -> None:
    gone = await filled.ask(
        "SELECT id FROM kiva.system_log l WHERE site_id = 1 AND customer_id > 0 AND action = 'login.cookie'"
        " AND NOT EXISTS (SELECT FROM kiva.customers c WHERE c.id = l.customer_id AND c.deleted_at IS NULL)"
    )
    ids = ",".join(str(row[0]) for row in gone)
    assert gone
    outcomes = filled.truth_rows(f"SELECT DISTINCT outcome, why FROM entry WHERE log_id IN ({ids})")
    assert outcomes == [("skipped", "erased")]


async def test_list_statuses_agree_with_the_customers_rows(filled: Filled) -> None:
    customers = await filled.ask(
        "SELECT id, email_opt_in AND NOT email_blacklisted FROM kiva.customers WHERE site_id = 1"
    )
    willing = {str(row[0]): row[1] for row in customers}
    contacts = filled.truth_rows("SELECT customer_ids, list_status FROM contact")
    for ids, status in contacts:
        subscribes = all(willing[customer_id] for customer_id in ids.split(","))
        assert status == ("subscribe" if subscribes else "unsubscribe")
    assert {status for _, status in contacts} == {"subscribe", "unsubscribe"}


async def test_orders_and_items_have_their_proportions(filled: Filled) -> None:
    completed = await filled.value(
        "SELECT count(*) FROM kiva.orders WHERE site_id = 1 AND payment_status IN ('completed', 'refunded')"
    )
    assert completed / ENTRIES == pytest.approx(0.072, rel=0.02)
    statuses = {row[0] for row in await filled.ask("SELECT DISTINCT status FROM kiva.orders")}
    assert statuses == {"open", "closed", "complete", "cancelled", "skipped"}
    items = await filled.ask(
        "SELECT i.category, count(*) FROM kiva.order_items i JOIN kiva.orders o ON o.id = i.order_id"
        " WHERE o.site_id = 1 AND o.paid_at IS NOT NULL AND i.removed_at IS NULL GROUP BY 1"
    )
    per_order = {category: count / completed for category, count in items}
    assert per_order["menu"] == pytest.approx(7.2, abs=0.3)
    assert sum(per_order.values()) == pytest.approx(9.3, abs=0.4)


async def test_an_order_that_adds_up_says_so(filled: Filled) -> None:
    off = await filled.value(
        "SELECT count(*) FROM kiva.orders WHERE subtotal_cents + delivery_cents + tax_cents - discount_cents"
        " - credit_cents <> total_cents"
    )
    assert off == 0


async def test_every_delivery_week_was_opened_on_a_friday_before_its_monday(filled: Filled) -> None:
    weeks = await filled.ask(
        "SELECT w.week_start, w.opened_at AT TIME ZONE s.timezone AS opened FROM kiva.delivery_weeks w"
        " JOIN kiva.sites s ON s.id = w.site_id WHERE s.id = 1 ORDER BY 1"
    )
    assert len(weeks) == 52
    assert all(week.isoweekday() == 1 and (week - opened.date()).days == 3 for week, opened in weeks)


async def test_the_tag_of_a_contact_is_that_of_the_week_opened_last(filled: Filled) -> None:
    open_now = await filled.ask(
        "SELECT o.customer_id::text FROM kiva.orders o WHERE o.status = 'open' AND o.site_id = 1"
        " AND o.week_start = (SELECT max(week_start) FROM kiva.delivery_weeks WHERE site_id = 1)"
    )
    ids = {row[0] for row in open_now}
    for tag, customer_ids in filled.truth_rows("SELECT tag, customer_ids FROM contact"):
        assert (tag == "open order") == bool(ids & set(customer_ids.split(",")))
    assert {tag for (tag,) in filled.truth_rows("SELECT DISTINCT tag FROM contact")} == {
        *("open order", "closed order", "no order")
    }


async def test_the_shop_goes_on_writing_where_the_history_ends(filled: Filled) -> None:
    highest = await filled.value("SELECT max(id) FROM kiva.system_log")
    written = await filled.value(
        "INSERT INTO kiva.system_log (site_id, occurred_at, message) VALUES (9, now(), 'x') RETURNING id"
    )
    assert written == highest + 1
    await filled.ask("DELETE FROM kiva.system_log WHERE site_id = 9")


async def test_the_indexes_of_the_contract_are_there(filled: Filled) -> None:
    indexes = {
        row[0] for row in await filled.ask("SELECT indexname FROM pg_indexes WHERE schemaname = 'kiva'")
    }
    assert indexes >= {"system_log_commit", "system_log_inserted", "customers_email", "order_items_order"}


async def test_the_same_seed_gives_the_same_truth(filled: Filled, database: str, tmp_path: Path) -> None:
    def digest(path: Path) -> str:
        found = sha256()
        with closing(sqlite3.connect(path)) as db:
            for table in ("entry_row", "account", "contact"):
                for row in db.execute(f"SELECT * FROM {table} ORDER BY 1, 2"):
                    found.update(repr(row).encode())
        return found.hexdigest()

    again = tmp_path / "again.db"
    assert await generate(database, ENTRIES, 7, truth=again) == filled.generated
    assert digest(again) == digest(filled.truth)


async def test_three_sites_share_the_entries_and_each_has_its_own_currency(database: str) -> None:
    generated = await generate(database, 5_000, 3, sites=3)
    assert generated.entries == 5_000
    assert generated.site_ids == (1, 2, 3)
    connection = await asyncpg.connect(database)
    sites = await connection.fetch("SELECT timezone, currency FROM kiva.sites ORDER BY id")
    await connection.close()
    assert [tuple(row) for row in sites] == [
        ("America/Chicago", "USD"),
        ("Africa/Johannesburg", "zar"),
        ("Europe/London", "GBP"),
    ]


async def test_progress_counts_up_to_the_entries(database: str) -> None:
    told: list[int] = []
    await generate(database, 3_000, 3, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 3_000


async def test_a_database_that_has_the_schema_is_refused_and_the_truth_left_alone(
    database: str, tmp_path: Path
) -> None:
    truth = tmp_path / "truth.db"
    await generate(database, 100, 3, truth=truth)
    before = truth.read_bytes()
    with pytest.raises(SettingsError, match="empty one"):
        await generate(database, 100, 4, truth=truth)
    assert truth.read_bytes() == before


async def test_a_truth_that_cannot_be_written_is_a_settings_error(database: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="ground truth"):
        await generate(database, 100, 3, truth=tmp_path / "missing" / "truth.db")


async def test_a_database_out_of_reach_is_a_source_error() -> None:
    with pytest.raises(SourceError, match="Cannot reach"):
        await generate("postgresql://nobody@127.0.0.1:1/none", 100, 3)
