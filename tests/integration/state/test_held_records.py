"""Held records on a real PostgreSQL: a restart knows them, with attempts and next try."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from msgspec.structs import replace

from kiva_stream.model.checkpoint import ParkedBehind
from kiva_stream.model.held_records import HeldKey, HeldKind, HeldRecord
from kiva_stream.model.ids import ContactId, CustomerId, OrderId
from kiva_stream.model.positions import Position
from kiva_stream.state.held_records import HeldFilter, StoredHeldRecords
from kiva_stream.state.ledger import SiteLedger
from kiva_stream.state.links import ContactLinks
from kiva_stream.state.store import Store
from kiva_stream.state.tombstones import Tombstones
from kiva_stream.sync.held_records import HeldRecords
from tests.fakes.state_held import silent
from tests.support.state_schema import ANN, held_ledger

CONTACT, ORDER = HeldKey(HeldKind.CONTACT, 7), HeldKey(HeldKind.ORDER, 7)


@pytest.fixture
async def ledger(store: Store) -> AsyncIterator[SiteLedger]:
    async with held_ledger(store) as ledger:
        yield ledger


def held(key: HeldKey, due_in_s: float = 300, attempts: int = 1) -> HeldRecord:
    return HeldRecord(
        key,
        contact=ContactId(7),
        fingerprint=b"print",
        reply="500",
        attempts=attempts,
        due_in_s=due_in_s,
    )


async def test_a_restart_knows_what_is_held_with_attempts_and_next_try(store: Store) -> None:
    rows = StoredHeldRecords(store, 1)
    before = HeldRecords(rows, (), 300, chance=lambda: 0)
    await before.hold(HeldKind.CONTACT, {7: silent(7)})
    await before.hold(HeldKind.CONTACT, {7: silent(7, reply="502")})

    (known,) = await rows.read()
    assert (known.key, known.attempts, known.reply) == (CONTACT, 2, "502")
    assert 590 < known.due_in_s <= 600
    after = HeldRecords(rows, [known], 300)
    assert after.holds(ContactId(7))
    assert after.due() == set()


async def test_a_contact_and_an_order_of_one_id_are_two_records_and_sites_are_apart(store: Store) -> None:
    rows, other = StoredHeldRecords(store, 1), StoredHeldRecords(store, 2)
    await rows.record([held(CONTACT), held(ORDER)])
    await other.record([held(ORDER)])
    await rows.end([ORDER])

    assert [each.key for each in await rows.read()] == [CONTACT]
    assert [each.key for each in await other.read()] == [ORDER]


async def test_a_try_that_fails_replaces_the_row_and_keeps_since_when_it_is_held(
    store: Store, look: asyncpg.Connection
) -> None:
    rows = StoredHeldRecords(store, 1)
    await rows.record([held(ORDER)])
    since = await look.fetchval("SELECT since FROM kiva_stream.held")
    await look.execute("UPDATE kiva_stream.held SET discarded_at = now()")
    (known,) = await rows.read()
    assert known.is_discarded
    await rows.record([held(ORDER, attempts=2)])

    assert await look.fetchrow("SELECT since, attempts, discarded_at FROM kiva_stream.held") == (
        since,
        2,
        None,
    )


async def test_no_parked_entry_waits_for_a_tag_which_is_asked_for_by_its_customer_alone(
    store: Store, look: asyncpg.Connection
) -> None:
    rows, parked_at = StoredHeldRecords(store, 1), Position(5, 50)
    contact = (await ContactLinks(store, 1).link({CustomerId(5): ANN}))[CustomerId(5)].id
    await rows.record([replace(held(HeldKey(HeldKind.TAG, contact)), contact=contact)])
    await look.execute("INSERT INTO kiva_stream.parked VALUES (1, $1, $2, $3)", *parked_at, contact)

    (listed,) = await rows.listed()
    assert (listed.key.kind, listed.customers, listed.parked) == (HeldKind.TAG, [5], 0)
    _, (parked,) = await rows.parked(None, 9, oldest_first=True)
    assert parked.key is None
    assert await rows.ask(HeldFilter(positions=[parked_at])) == 0
    assert await rows.count_undiscarded(HeldFilter(customers=[CustomerId(5)])) == 1
    assert await rows.discard(HeldFilter(customers=[CustomerId(5)])) == 1
    assert await rows.count_undiscarded(HeldFilter(customers=[CustomerId(5)])) == 0


async def test_the_contacts_that_most_parked_entries_are_of_are_named_with_what_is_held(
    store: Store, look: asyncpg.Connection, ledger: SiteLedger
) -> None:
    contact = (await ContactLinks(store, 1).link({CustomerId(5): ANN}))[CustomerId(5)].id
    of_ann = [replace(held(key), contact=contact) for key in (ORDER, HeldKey(HeldKind.TAG, contact))]
    await StoredHeldRecords(store, 1).record(of_ann)
    for txid, whose in enumerate([contact, contact, 0, 0, 0, 9]):
        await look.execute("INSERT INTO kiva_stream.parked VALUES (1, $1, 1, $2)", txid, whose)

    assert await ledger.largest_parked(2) == [
        ParkedBehind(3, [], None),
        ParkedBehind(2, [CustomerId(5)], ORDER),
    ]
    assert (await ledger.leftovers()).parked == 6


async def test_a_person_who_is_forgotten_and_a_contact_that_is_left_are_held_no_more(store: Store) -> None:
    rows, links = StoredHeldRecords(store, 1), ContactLinks(store, 1)
    contact = (await links.link({CustomerId(5): ANN}))[CustomerId(5)].id
    its_own = [
        replace(held(HeldKey(kind, contact)), contact=contact) for kind in (HeldKind.CONTACT, HeldKind.TAG)
    ]
    await rows.record([*its_own, held(ORDER)])
    await links.record_orphaned(contact)
    assert [each.key for each in await rows.read()] == [ORDER]
    await Tombstones(store, 1).forget_orders([OrderId(7)])
    assert await rows.read() == []
    await rows.record([replace(held(ORDER), contact=contact)])
    await Tombstones(store, 1).forget_contact(contact)
    assert await rows.read() == []
