"""A shop's database, and a role that may only read it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from tests.support.shop_rows import ShopRows


@pytest.fixture
async def shop(database: str) -> AsyncIterator[ShopRows]:
    async with ShopRows.create(database) as rows:
        yield rows


@pytest.fixture
async def role(shop: ShopRows) -> AsyncIterator[str]:
    """A role that may look at the shop's tables, and nothing else."""
    name = f"kiva_test_{uuid4().hex}"
    await shop.connection.execute(
        f"CREATE ROLE {name} LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA kiva TO {name};"
        f"GRANT SELECT ON ALL TABLES IN SCHEMA kiva TO {name}"
    )
    yield name
    await shop.connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
