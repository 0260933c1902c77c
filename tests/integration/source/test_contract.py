from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.resources import files
from uuid import uuid4

import asyncpg
import pytest

from kiva_stream.errors import SourceError
from kiva_stream.source.contract import CONTRACT, check_contract, require_contract, server_findings

SHOP = files("kiva_stream.sandbox.generator").joinpath("shop.sql").read_text("utf-8")
SITE = """
INSERT INTO kiva.sites (id, name, timezone, admin_base_url, launched_on)
VALUES (1, 'Green Box', 'America/Denver', 'https://box.example', '2018-01-01')
"""


@pytest.fixture
async def shop(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A shop's database to contract, with site 1."""
    connection = await asyncpg.connect(database)
    await connection.execute(SHOP)
    await connection.execute(SITE)
    yield connection
    await connection.close()


@pytest.fixture
async def role(shop: asyncpg.Connection) -> AsyncIterator[str]:
    """A role that may do nothing yet."""
    name = f"ro_{uuid4().hex}"
    await shop.execute(f"CREATE ROLE {name}")
    yield name
    await shop.execute(f"RESET ROLE; DROP OWNED BY {name}; DROP ROLE {name}")


async def findings(shop: asyncpg.Connection, *, site_id: int = 1) -> list[str]:
    return [finding.text for finding in await check_contract(shop, "kiva", site_id)]


async def test_the_contract_itself_has_no_findings(shop: asyncpg.Connection) -> None:
    assert await findings(shop) == []
    await require_contract(shop, "kiva", 1)


async def test_a_role_with_nothing_but_select_is_enough(shop: asyncpg.Connection, role: str) -> None:
    tables = ", ".join(f"kiva.{table}" for table in CONTRACT)
    await shop.execute(f"GRANT USAGE ON SCHEMA kiva TO {role}; GRANT SELECT ON {tables} TO {role}")
    await shop.execute(f"SET ROLE {role}; SET default_transaction_read_only = on")
    assert await findings(shop) == []
    await shop.execute("SET default_transaction_read_only = off")


@pytest.mark.parametrize("table", CONTRACT)
async def test_a_missing_table_is_named(shop: asyncpg.Connection, table: str) -> None:
    await shop.execute(f"DROP TABLE kiva.{table} CASCADE")
    (text,) = await findings(shop)
    assert text.startswith(f"There is no table kiva.{table} in the shop's database: set source.schema")


async def test_missing_columns_of_a_table_are_named_together(shop: asyncpg.Connection) -> None:
    await shop.execute("ALTER TABLE kiva.customers DROP COLUMN phone, DROP COLUMN email_opt_in")
    assert await findings(shop) == [
        "kiva.customers has no column phone, email_opt_in: add it, or give a view of that name with it."
    ]


async def test_a_column_that_is_not_read_is_not_missed(shop: asyncpg.Connection) -> None:
    await shop.execute("ALTER TABLE kiva.system_log DROP COLUMN stack_trace")
    assert await findings(shop) == []


async def test_a_column_of_a_wrong_type_is_named_with_what_it_is_to_be(shop: asyncpg.Connection) -> None:
    await shop.execute(
        "ALTER TABLE kiva.customers ALTER is_test DROP DEFAULT, ALTER is_test TYPE int USING 0"
    )
    (text,) = await findings(shop)
    assert text.startswith("kiva.customers.is_test is of type int4, and is to be boolean: give a view")


async def test_a_txid_that_is_no_xid8_is_refused(shop: asyncpg.Connection) -> None:
    await shop.execute("ALTER TABLE kiva.system_log ALTER txid DROP DEFAULT, ALTER txid TYPE bigint USING 0")
    (text,) = await findings(shop)
    assert text.startswith("kiva.system_log.txid is of type int8, and is to be xid8")


async def test_types_that_read_the_same_pass(shop: asyncpg.Connection) -> None:
    await shop.execute("CREATE DOMAIN kiva.short AS varchar(40)")
    await shop.execute(
        "ALTER TABLE kiva.customers ALTER phone TYPE varchar(30), ALTER first_name TYPE kiva.short;"
        "ALTER TABLE kiva.system_log ALTER data TYPE json, ALTER site_id TYPE bigint;"
        "ALTER TABLE kiva.order_items ALTER qty TYPE numeric(12, 3), ALTER unit_price_cents TYPE smallint"
    )
    assert await findings(shop) == []


async def test_a_view_instead_of_a_table_passes(shop: asyncpg.Connection) -> None:
    await shop.execute(
        "ALTER TABLE kiva.system_log RENAME TO journal;"
        "CREATE VIEW kiva.system_log AS SELECT * FROM kiva.journal"
    )
    assert await findings(shop) == []


async def test_a_table_without_select_is_named_with_the_grant(shop: asyncpg.Connection, role: str) -> None:
    tables = ", ".join(f"kiva.{table}" for table in CONTRACT if table != "orders")
    await shop.execute(f"GRANT USAGE ON SCHEMA kiva TO {role}; GRANT SELECT ON {tables} TO {role}")
    await shop.execute(f"SET ROLE {role}")
    (text,) = await findings(shop)
    assert text.startswith(f"{role} may not read kiva.orders")
    assert text.endswith(f"GRANT SELECT ON kiva.orders TO {role};")


async def test_select_on_some_columns_only_is_not_enough(shop: asyncpg.Connection, role: str) -> None:
    tables = ", ".join(f"kiva.{table}" for table in CONTRACT if table != "sites")
    await shop.execute(
        f"GRANT USAGE ON SCHEMA kiva TO {role}; GRANT SELECT ON {tables} TO {role};"
        f"GRANT SELECT (id, name) ON kiva.sites TO {role}"
    )
    await shop.execute(f"SET ROLE {role}")
    (text,) = await findings(shop)
    assert text.startswith(f"{role} may not read kiva.sites")


async def test_a_view_whose_owner_may_not_read_what_is_behind_it_is_found(
    shop: asyncpg.Connection, role: str
) -> None:
    await shop.execute(
        "ALTER TABLE kiva.orders RENAME TO sales; CREATE VIEW kiva.orders AS SELECT * FROM kiva.sales;"
        f"GRANT USAGE, CREATE ON SCHEMA kiva TO {role}; ALTER VIEW kiva.orders OWNER TO {role}"
    )
    (text,) = await findings(shop)
    assert "may not read kiva.orders (permission denied for table sales)" in text


async def test_a_schema_without_usage_is_one_finding_with_the_grant(
    shop: asyncpg.Connection, role: str
) -> None:
    await shop.execute(f"SET ROLE {role}")
    assert await findings(shop) == [f"{role} may not look into kiva: GRANT USAGE ON SCHEMA kiva TO {role};"]


async def test_a_missing_schema_is_one_finding(shop: asyncpg.Connection) -> None:
    (finding,) = await check_contract(shop, "shop", 1)
    assert finding.text.startswith("There is no schema shop in the shop's database: set source.schema")


async def test_a_missing_site_is_named_with_those_that_are_there(shop: asyncpg.Connection) -> None:
    assert await findings(shop, site_id=7) == [
        "There is no site 7 in the shop's database: set source.site_id; there is 1."
    ]


async def test_ids_below_1_are_a_finding_without_a_horizon_only(shop: asyncpg.Connection) -> None:
    insert = "INSERT INTO kiva.system_log (id, site_id, occurred_at, message) VALUES ($1, $2, now(), 'x')"
    await shop.execute(insert, 1, 1)
    await shop.execute(insert, 0, 2)  # of another site
    assert await check_contract(shop, "kiva", 1, horizon=False) == []
    await shop.execute(insert, -4, 1)
    assert await findings(shop) == []
    (finding,) = await check_contract(shop, "kiva", 1, horizon=False)
    assert finding.text.startswith("system_log has ids below 1, as -4, which are not read")


async def test_a_violated_contract_stops_a_start_with_one_sentence(shop: asyncpg.Connection) -> None:
    with pytest.raises(SourceError, match="There is no site 7"):
        await require_contract(shop, "kiva", 7)


def test_an_old_server_is_refused() -> None:
    assert [finding.text[:36] for finding in server_findings(120_022, in_recovery=False)] == [
        "The shop's database is PostgreSQL 12"
    ]
    assert list(server_findings(130_000, in_recovery=False)) == []


def test_a_standby_is_refused() -> None:
    (finding,) = server_findings(170_000, in_recovery=True)
    assert "set source.dsn to the primary" in finding.text
