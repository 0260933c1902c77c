"""Writes whose answer was lost after they were made: they are made again, and that changes nothing more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
import pytest

from kiva_stream.errors import StateBusyError
from kiva_stream.model.account_ids import AccountIds, IdKind
from kiva_stream.model.bulk_imports import OpenImport
from kiva_stream.model.contacts import LeftOut
from kiva_stream.model.ids import AcId, ContactId, CustomerId, OrderId
from kiva_stream.model.positions import IdGap, Position
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.state.account_ids import SiteAccountIds
from kiva_stream.state.id_gaps import SiteIdGaps
from kiva_stream.state.leases import Lease, hold
from kiva_stream.state.ledger import SiteLedger
from kiva_stream.state.links import ContactLinks
from kiva_stream.state.orders import OrderStates
from kiva_stream.state.store import Store
from tests.support.postgres import connected
from tests.support.state_schema import ANN, BEA, begin, settings

Work = Callable[[Store, Lease], Awaitable[object]]
TABLES = (
    "contact",
    "customer",
    "import",
    "tag_due",
    "gap",
    "parked",
    "version",
    "carried_order",
    "sent_order",
)
SEEN = datetime(2026, 11, 30, tzinfo=UTC)
ONE, TWO = CustomerId(5), CustomerId(6)


def gap(first: int, last: int) -> IdGap:
    return IdGap(first, last, SEEN)


async def link(store: Store, _: Lease) -> None:
    await ContactLinks(store, 1).link({ONE: ANN, TWO: BEA})


async def relink(store: Store, lease: Lease) -> None:
    await link(store, lease)
    await ContactLinks(store, 1).relink([ONE], BEA, AcId(11))


async def import_contacts(store: Store, lease: Lease) -> None:
    links = ContactLinks(store, 1)
    contacts = [each.id for each in (await links.link({ONE: ANN, TWO: BEA})).values()]
    started = OpenImport(id="7", fingerprints=dict.fromkeys(contacts, b"x"), is_short=False)
    await links.record_import(started)
    await links.close_import(started, contacts)


async def refuse(store: Store, _: Lease) -> None:
    links = ContactLinks(store, 1)
    first, second = [each.id for each in (await links.link({ONE: ANN, TWO: BEA})).values()]
    await links.record_left_out(first, "phone", LeftOut("hash", "422"))
    await links.record_refused(second, b"x", "422")
    await links.record_orphaned(ContactId(first))


async def find_late_entries(store: Store, lease: Lease) -> None:
    gaps = SiteIdGaps(store, lease, 1)
    await gaps.record(0, 20, [gap(5, 9), gap(12, 12)])
    await gaps.record(9, 30, [gap(25, 26)])
    await gaps.record_found([gap(5, 9)], [gap(5, 5), gap(7, 9)], [Position(0, 6)])


async def adopt_other_ids(store: Store, lease: Lease) -> None:
    ledger, ids = SiteLedger(store, lease, 1), AccountIds(1, {"status": 2}, {WeekTag.OPEN: 3}, 4)
    await begin(ledger)
    await SiteAccountIds(store, 1).adopt(ids)
    links = ContactLinks(store, 1)
    [contact] = (await links.link({ONE: ANN})).values()
    await links.record_confirmed(contact.id, bytes(17), AcId(11), unsubscribed=True)
    await OrderStates(store, 1).record_carried([OrderId(7)])
    other = AccountIds(10, {"status": 20}, {WeekTag.OPEN: 30}, 40)
    assert await SiteAccountIds(store, 1).adopt(other) == set(IdKind)


@pytest.mark.parametrize("work", [link, relink, import_contacts, refuse, find_late_entries, adopt_other_ids])
async def test_a_write_that_is_made_again_after_its_answer_was_lost_changes_nothing_more(
    database: str, monkeypatch: pytest.MonkeyPatch, work: Work
) -> None:
    once = await tables_after(database, "once", work)
    lose_answers(monkeypatch)
    assert await tables_after(database, "twice", work) == once


async def tables_after(database: str, schema: str, work: Work) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of a new schema's tables after some work, without their moments."""
    async with Store.open(settings(database, schema)) as store:
        await store.migrate()
        async with hold(store, 1, "account", lease_s=30) as lease:
            await work(store, lease)
    async with connected(database) as look:
        return {table: await rows_of(look, f"{schema}.{table}") for table in TABLES}


async def rows_of(look: asyncpg.Connection, table: str) -> list[dict[str, Any]]:
    rows = [msgspec.json.decode(row[0]) for row in await look.fetch(f"SELECT to_jsonb(t) FROM {table} t")]
    kept = [{key: row[key] for key in row if key != "mark" and not key.endswith("_at")} for row in rows]
    return sorted(kept, key=str)


def lose_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every transaction and statement that may be repeated be made, and seem to have failed once."""
    write, fetch = Store._write, Store._fetch

    async def write_unanswered(store: Store, writing: Any) -> Any:  # noqa: ANN401  of any type
        answer = await write(store, writing)
        return await unanswered(answer)

    lost: list[object] = []

    async def unanswered(answer: object) -> object:
        lost.append(answer)
        if len(lost) % 2:
            raise StateBusyError("its answer was lost")
        return answer

    async def fetch_unanswered(store: Store, block: str, *args: Any) -> Any:  # noqa: ANN401  of any type
        answer = await fetch(store, block, *args)
        return await unanswered(answer) if store._is_repeatable(block) else answer

    monkeypatch.setattr(Store, "_write", write_unanswered)
    monkeypatch.setattr(Store, "_fetch", fetch_unanswered)
