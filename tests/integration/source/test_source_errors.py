"""What a shop's database can do to whoever reads it: restarts, a standby, columns that change meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from kiva_stream.errors import SourceError
from kiva_stream.model.positions import DAY1, Position
from kiva_stream.observability.incidents import Incidents
from kiva_stream.sandbox.postgres import OwnServer, own_postgres
from kiva_stream.source.contract import check_contract
from kiva_stream.source.customers import ShopCustomers
from kiva_stream.source.horizon import Horizon
from kiva_stream.source.log import SystemLog
from kiva_stream.source.source import FOLLOWING_WAITS_S, STANDBY, WAITS_S, Source
from tests.support.postgres import connected
from tests.support.shop_rows import ShopRows, Sleeps, opened_log, read, source_settings


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    with own_postgres() as started:
        yield started


@pytest.fixture
async def shop(server: OwnServer, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Yield the DSN of a shop's database with nine entries, on a server of its own."""
    name = f"shop_{abs(hash(request.node.name))}"
    dsn = await server.create_database(name)
    async with ShopRows.create(dsn) as rows:
        for _ in range(9):
            await rows.entry(10)
    yield dsn
    await server.drop_database(name)


class Restarts:
    """A sleep in which a server that is down comes up, at the wait of that number."""

    def __init__(self, server: OwnServer, up_at: int, incidents: Incidents) -> None:
        self._server = server
        self._up_at = up_at
        self._incidents = incidents
        self.waits: list[float] = []
        self.told: list[str] = []

    async def __call__(self, seconds: float, /) -> None:
        self.waits.append(seconds)
        self.told += [f"{incident.kind}: {incident.why}" for incident in self._incidents.all()]
        if len(self.waits) == self._up_at:
            await anyio.to_thread.run_sync(self._server.start)


@pytest.mark.parametrize(("waits_s", "up_at"), [(WAITS_S, 3), (FOLLOWING_WAITS_S, 9)])
async def test_a_server_that_is_restarted_between_pages_loses_and_repeats_nothing(
    server: OwnServer, shop: str, waits_s: tuple[float, ...], up_at: int
) -> None:
    incidents = Incidents()
    sleep = Restarts(server, up_at, incidents)
    settings = source_settings(shop, page_rows=2, range_rows=4)
    ids: list[int] = []
    async with Source.open(settings, sleep, waits_s=waits_s, incidents=incidents) as source:
        log = SystemLog(source, settings, ShopCustomers(source, 1, ()), sleep=sleep)
        async for page in log.pages(DAY1, await Horizon(source, settings).high_water_mark()):
            ids += [entry.position.id for entry in page]
            if len(ids) == 4:
                await anyio.to_thread.run_sync(server.stop)
    assert ids == list(range(1, 10))
    assert sleep.waits == list(waits_s[:up_at])
    assert len(sleep.told) == up_at
    assert all(each.startswith("source: The shop's database cannot be read") for each in sleep.told)
    assert incidents.all() == []


def test_following_repeats_reads_for_five_minutes_and_others_for_a_quarter_of_one() -> None:
    assert sum(FOLLOWING_WAITS_S) == 300
    assert sum(WAITS_S) == 15


async def test_a_standby_is_refused_at_the_start_and_after_a_failover(server: OwnServer, shop: str) -> None:
    signal = Path(server.folder) / "data" / "standby.signal"
    sleep = Sleeps()
    async with opened_log(shop, sleep) as opened:
        server.stop()
        signal.touch(mode=0o666)
        server.start()
        try:
            async with connected(shop) as connection:
                assert [each.text for each in await check_contract(connection, "kiva", 1)] == [STANDBY]
            with pytest.raises(SourceError) as failed:
                await read(opened)
            assert str(failed.value) == STANDBY
            assert sleep.waits == list(WAITS_S)  # it may be promoted meanwhile
            with pytest.raises(SourceError) as refused:
                async with opened_log(shop):
                    pass
            assert str(refused.value) == STANDBY
        finally:
            server.stop()
            signal.unlink()
            server.start()
        assert len(await read(opened)) == 9


async def test_a_column_whose_type_changes_meanwhile_is_read_on(shop: str) -> None:
    async with opened_log(shop, page_rows=2, range_rows=4) as opened, connected(shop) as admin:
        ids: list[int] = []
        async for page in opened.log.pages(DAY1, await opened.horizon.high_water_mark()):
            ids += [entry.position.id for entry in page]
            if len(ids) == 4:
                await admin.execute("ALTER TABLE kiva.system_log ALTER admin_user TYPE varchar(90)")
    assert ids == list(range(1, 10))


async def test_a_column_that_is_gone_meanwhile_is_one_sentence_and_not_tried_again(shop: str) -> None:
    sleep = Sleeps()
    async with opened_log(shop, sleep, page_rows=2, range_rows=4) as opened, connected(shop) as admin:
        pages = opened.log.pages(DAY1, await opened.horizon.high_water_mark())
        await anext(pages)
        await anext(pages)
        await admin.execute("ALTER TABLE kiva.system_log DROP COLUMN admin_user")
        with pytest.raises(
            SourceError, match=r"^The shop's database refuses a query; run `check`: .*admin_user"
        ):
            await anext(pages)
    assert sleep.waits == []


async def test_a_statement_that_always_takes_too_long_is_a_sentence_after_a_few_tries(shop: str) -> None:
    sleep = Sleeps()
    async with connected(shop) as admin, opened_log(shop, sleep, statement_timeout_s=0.05) as opened:
        mark = await opened.horizon.high_water_mark()
        async with admin.transaction():
            await admin.execute("LOCK TABLE kiva.system_log IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(SourceError, match=r"cannot be read \(source\.dsn\): canceling statement"):
                await anext(opened.log.pages(DAY1, mark))
        assert sleep.waits == list(WAITS_S)
        assert len(await read(opened)) == 9


async def test_a_writer_in_another_database_holds_the_log_up_and_is_named(
    server: OwnServer, shop: str
) -> None:
    other_dsn = await server.create_database("elsewhere")
    async with connected(other_dsn) as other, connected(shop) as admin, opened_log(shop) as opened:
        async with other.transaction():
            await other.execute("SELECT pg_current_xact_id()")
            written = await ShopRows(admin).entry()
            assert (await opened.horizon.high_water_mark()).position < written
            why = str(await opened.horizon.obstacle(Position(10, 9)))
            assert f"before the entry {written}: a writing transaction" in why
            assert f"the session with pid {other.get_server_pid()} in the database elsewhere" in why
        assert await opened.horizon.obstacle(Position(10, 9)) is None
