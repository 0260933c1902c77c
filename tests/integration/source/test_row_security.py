"""Row-level security: policies hide rows without an error, so a session that they apply to is refused."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kiva_stream.errors import SourceError
from kiva_stream.runtime.shop import open_shop
from kiva_stream.settings.sections import PipelineSettings, Settings
from kiva_stream.source.contract import CONTRACT, check_contract
from tests.support.postgres import as_role, connected
from tests.support.settings import settings
from tests.support.shop_rows import ShopRows, opened_log, read, source_settings


async def secure(shop: ShopRows, *tables: str) -> None:
    for table in tables:
        await shop.connection.execute(f"ALTER TABLE kiva.{table} ENABLE ROW LEVEL SECURITY")


def settings_of(dsn: str) -> Settings:
    return replace(settings(PipelineSettings()), source=source_settings(dsn))


async def findings(dsn: str, role: str) -> list[str]:
    async with connected(as_role(dsn, role)) as connection:
        return [finding.text for finding in await check_contract(connection, "kiva", 1)]


@pytest.mark.parametrize("policy", ["", "CREATE POLICY all_rows ON kiva.{0} USING (true)"])
@pytest.mark.parametrize("table", CONTRACT)
async def test_a_table_with_row_level_security_is_named_with_the_remedy(
    shop: ShopRows, role: str, database: str, table: str, policy: str
) -> None:
    await secure(shop, table)
    if policy:
        await shop.connection.execute(policy.format(table))
    (text,) = await findings(database, role)
    assert text.startswith(f"Row-level security hides rows of kiva.{table} from {role} (")
    assert f"ALTER ROLE {role} BYPASSRLS;" in text
    await shop.connection.execute(f"ALTER ROLE {role} BYPASSRLS")
    assert await findings(database, role) == []


async def test_a_start_names_each_table_with_row_level_security(
    shop: ShopRows, role: str, database: str
) -> None:
    await secure(shop, *CONTRACT)
    with pytest.raises(SourceError) as raised:
        async with open_shop(settings_of(as_role(database, role))):
            pass
    assert all(f"kiva.{table}" in str(raised.value) for table in CONTRACT)


async def test_row_level_security_behind_a_view_is_found_whose_owner_it_applies_to(
    shop: ShopRows, role: str, database: str
) -> None:
    await shop.connection.execute(
        "ALTER TABLE kiva.orders RENAME TO sales; CREATE VIEW kiva.orders AS SELECT * FROM kiva.sales;"
        f"CREATE ROLE {role}_owner; GRANT USAGE, CREATE ON SCHEMA kiva TO {role}_owner;"
        f"GRANT SELECT ON kiva.sales TO {role}_owner; ALTER VIEW kiva.orders OWNER TO {role}_owner;"
        f"GRANT SELECT ON kiva.orders TO {role}"
    )
    try:
        assert await findings(database, role) == []
        await secure(shop, "sales")
        (text,) = await findings(database, role)
        assert text.startswith(f"Row-level security hides rows of kiva.orders from {role}_owner (")
        assert '"sales"' in text
        await shop.connection.execute(f"ALTER ROLE {role}_owner BYPASSRLS")
        assert await findings(database, role) == []
    finally:
        await shop.connection.execute(f"DROP OWNED BY {role}_owner; DROP ROLE {role}_owner")


async def test_row_level_security_does_not_concern_the_owner_of_a_table_unless_it_is_forced(
    shop: ShopRows, role: str, database: str
) -> None:
    await secure(shop, "orders")
    await shop.connection.execute(
        f"GRANT CREATE ON SCHEMA kiva TO {role}; ALTER TABLE kiva.orders OWNER TO {role}"
    )
    assert await findings(database, role) == []
    await shop.connection.execute("ALTER TABLE kiva.orders FORCE ROW LEVEL SECURITY")
    (text,) = await findings(database, role)
    assert text.startswith("Row-level security hides rows of kiva.orders")
    await shop.connection.execute("ALTER TABLE kiva.orders OWNER TO CURRENT_USER")


async def test_a_missing_grant_beside_row_level_security_is_told_apart(
    shop: ShopRows, role: str, database: str
) -> None:
    await secure(shop, "orders", "customers")
    await shop.connection.execute(f"REVOKE SELECT ON kiva.orders FROM {role}")
    grant, security = await findings(database, role)
    assert grant.endswith(f"GRANT SELECT ON kiva.orders TO {role};")
    assert security.startswith(f"Row-level security hides rows of kiva.customers from {role}")


async def test_row_level_security_that_comes_while_the_log_is_read_is_refused_and_hides_no_entry(
    shop: ShopRows, role: str, database: str
) -> None:
    await shop.entry(10)
    async with opened_log(as_role(database, role)) as opened:
        assert len(await read(opened)) == 1
        await secure(shop, "system_log")
        with pytest.raises(SourceError, match="run `check`: query would be affected by row-level security"):
            await read(opened)
