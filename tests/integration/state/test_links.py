"""Contact links on a real PostgreSQL: which customer is which contact, and how far each contact has come."""

from __future__ import annotations

import asyncio
import gc

import asyncpg
import pytest

from kiva_stream.errors import CheckpointError
from kiva_stream.model.bulk_imports import OpenImport
from kiva_stream.model.contacts import Contact, ContactRecord, ContactStatus, LeftOut, NotOnList
from kiva_stream.model.ids import AcId, ContactId, CustomerId, Email
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.state.links import ContactLinks
from kiva_stream.state.store import Store
from kiva_stream.state.tags import DueTags
from tests.support.state_schema import ANN, BEA, begin, held_ledger

FIRST = ContactId(0)


@pytest.fixture
async def store(store: Store) -> Store:
    """A state schema of this version, with site 1 bound to an account."""
    async with held_ledger(store) as ledger:
        await begin(ledger)
    return store


@pytest.fixture
def links(store: Store) -> ContactLinks:
    return ContactLinks(store, 1)


@pytest.fixture
def due(store: Store) -> DueTags:
    return DueTags(store, 1)


def ids(*numbers: int) -> tuple[CustomerId, ...]:
    return tuple(map(CustomerId, numbers))


async def linked_contact(
    links: ContactLinks, customer: int = 5, email: Email = ANN, ac_id: int = 11
) -> Contact:
    """Return a customer's contact that ActiveCampaign has."""
    contact = (await links.link({CustomerId(customer): email}))[CustomerId(customer)]
    await links.record_confirmed(contact.id, email.encode(), AcId(ac_id), unsubscribed=False)
    return contact


async def stored(links: ContactLinks, contact: Contact) -> ContactRecord:
    """Return a contact as the state schema has it, seen by another process."""
    (linked,) = await ContactLinks(links._store, 1).records([contact.id])
    return linked


async def due_now(due: DueTags) -> list[ContactId]:
    return [each.record.contact.id for each in await due.page(FIRST, 100)]


# Linking


async def test_customers_of_one_address_share_a_contact(links: ContactLinks) -> None:
    found = await links.link({CustomerId(5): ANN, CustomerId(6): BEA, CustomerId(7): ANN})
    assert found[CustomerId(5)] is found[CustomerId(7)]
    assert found[CustomerId(6)] is not found[CustomerId(5)]
    contact = found[CustomerId(5)]
    assert (contact.email, contact.status, contact.why) == (ANN, ContactStatus.NEW, "")
    assert await links.link({CustomerId(8): ANN}) == {CustomerId(8): contact}
    (linked,) = await links.records([contact.id])
    assert linked.contact is contact
    assert (linked.customers, linked.fingerprint) == ((5, 7, 8), None)


async def test_linking_no_customers_links_none(links: ContactLinks) -> None:
    assert await links.link({}) == {}
    assert await links.page(ContactId(0), 10) == []


async def test_a_confirmed_link_stays_when_the_address_changes(store: Store, links: ContactLinks) -> None:
    (first,) = (await links.link({CustomerId(5): ANN})).values()
    await links.record_confirmed(first.id, b"ann", AcId(11), unsubscribed=False)
    for again in (links, ContactLinks(store, 1)):
        (contact,) = (await again.link({CustomerId(5): BEA})).values()
        assert (contact.id, contact.email) == (first.id, ANN)
    assert len(await links.page(ContactId(0), 10)) == 1


@pytest.mark.parametrize("is_rejected", [False, True])
async def test_an_unconfirmed_link_follows_the_address(
    store: Store, links: ContactLinks, *, is_rejected: bool
) -> None:
    (first,) = (await links.link({CustomerId(5): ANN})).values()
    if is_rejected:
        await links.record_rejected(first.id, Reason.AC_REJECTED)
    for again in (links, ContactLinks(store, 1)):
        (contact,) = (await again.link({CustomerId(5): BEA})).values()
        assert (contact.email, contact.status) == (BEA, ContactStatus.NEW)
    ((_, nobody, _), (_, customers, _)) = [
        (each.contact, each.customers, each.fingerprint) for each in await links.page(ContactId(0), 10)
    ]
    assert (nobody, customers) == ((), (5,))


async def test_sites_do_not_share_contacts(store: Store, links: ContactLinks) -> None:
    (mine,) = (await links.link({CustomerId(5): ANN})).values()
    (other,) = (await ContactLinks(store, 2).link({CustomerId(5): ANN})).values()
    assert mine.id != other.id
    assert [linked.contact.id for linked in await links.page(ContactId(0), 10)] == [mine.id]
    assert await ContactLinks(store, 2).records([mine.id]) == []


async def test_contacts_come_in_pages_by_id(links: ContactLinks) -> None:
    found = await links.link({CustomerId(n): Email(f"{n}@example.com") for n in (9, 5, 7)})
    ids = sorted(contact.id for contact in found.values())
    assert [linked.contact.id for linked in await links.page(ContactId(0), 2)] == ids[:2]
    assert [linked.contact.id for linked in await links.page(ids[1], 2)] == ids[2:]


async def test_holders_of_a_contact_see_it_confirmed_and_rejected(store: Store, links: ContactLinks) -> None:
    found = await links.link({CustomerId(5): ANN, CustomerId(6): BEA})
    ann, bea = found[CustomerId(5)], found[CustomerId(6)]
    await links.record_confirmed(ann.id, b"ann", AcId(11), unsubscribed=False)
    await links.record_rejected(bea.id, Reason.AC_REJECTED)
    assert (ann.status, ann.why) == (ContactStatus.LINKED, "")
    assert (bea.status, bea.why) == (ContactStatus.REJECTED, Reason.AC_REJECTED)
    stored = {linked.contact.email: linked for linked in await ContactLinks(store, 1).page(ContactId(0), 9)}
    assert stored[ANN].contact == ann
    assert stored[ANN].fingerprint == b"ann"
    assert stored[BEA].contact == bea
    await links.record_confirmed(bea.id, b"bea", AcId(12), unsubscribed=False)
    assert (bea.status, bea.why) == (ContactStatus.LINKED, "")
    (again,) = await ContactLinks(store, 1).records([bea.id])
    assert again.contact == bea


async def test_a_refusal_is_kept_until_the_contact_is_confirmed_or_to_be_tried_again(
    store: Store, links: ContactLinks
) -> None:
    found = await links.link({CustomerId(5): ANN, CustomerId(6): BEA})
    ann, bea = found[CustomerId(5)], found[CustomerId(6)]
    await links.record_confirmed(bea.id, b"bea", AcId(12), unsubscribed=False)
    for contact in (ann, bea):
        await links.record_refused(contact.id, b"refused", "422 no")
    assert (ann.status, ann.why) == (ContactStatus.REJECTED, Reason.AC_REJECTED)
    assert (bea.status, bea.why) == (ContactStatus.LINKED, "")
    for contact in (ann, bea):
        record = await stored(links, contact)
        assert (record.contact, record.refused_fingerprint) == (contact, b"refused")
        assert record.contact.reply == "422 no"
    (again,) = (await ContactLinks(store, 1).of_customers([CustomerId(5)])).values()
    assert again.reply == "422 no"
    await links.retry_refused([ann.id, bea.id])
    assert (ann.status, ann.why, ann.reply) == (ContactStatus.NEW, "", "")
    assert (bea.status, bea.why, bea.reply) == (ContactStatus.LINKED, "", "")
    for contact in (ann, bea):
        assert (await stored(links, contact)).refused_fingerprint is None
    await links.record_refused(ann.id, b"refused", "422 no")
    await links.record_confirmed(ann.id, b"ann", AcId(11), unsubscribed=False)
    record = await stored(links, ann)
    assert (record.contact.reply, record.refused_fingerprint, ann.reply) == ("", None, "")


async def test_the_fields_that_are_left_out_are_kept_until_they_are_to_be_sent_again(
    links: ContactLinks,
) -> None:
    ann = await linked_contact(links)
    await links.record_left_out(ann.id, "phone", LeftOut("1", "422 no"))
    await links.record_left_out(ann.id, "birthday", LeftOut("2", "never"))
    await links.record_left_out(ann.id, "phone", LeftOut("3", "422 no"))
    await links.record_confirmed(ann.id, b"ann", AcId(11), unsubscribed=False)
    assert (await stored(links, ann)).left_out == {
        "phone": LeftOut("3", "422 no"),
        "birthday": LeftOut("2", "never"),
    }
    await links.retry_refused([ann.id])
    assert (await stored(links, ann)).left_out == {}


async def test_a_contact_that_an_earlier_version_rejected_is_tried_again(links: ContactLinks) -> None:
    (ann,) = (await links.link({CustomerId(5): ANN})).values()
    await links.record_rejected(ann.id, Reason.AC_REJECTED)
    assert (await stored(links, ann)).refused_fingerprint is None
    await links.retry_refused([ann.id])
    assert ann.status is ContactStatus.NEW


async def test_a_contact_without_a_customer_left_is_not_retried(links: ContactLinks) -> None:
    (ann,) = (await links.link({CustomerId(5): ANN})).values()
    await links.record_rejected(ann.id, Reason.NO_CONTACT)
    await links.retry_refused([ann.id])
    assert (ann.status, ann.why) == (ContactStatus.REJECTED, Reason.NO_CONTACT)


async def test_an_import_is_recorded_until_it_is_closed(store: Store, links: ContactLinks) -> None:
    found = await links.link({CustomerId(5): ANN, CustomerId(6): BEA})
    ann, bea = found[CustomerId(5)], found[CustomerId(6)]
    first = OpenImport("i-1", {ann.id: b"ann", bea.id: b"bea"}, True, frozenset({bea.id}))
    second = OpenImport("i-2", {bea.id: b"bea 2"}, is_short=False)
    await links.record_import(first)
    await links.record_import(second)
    again = ContactLinks(store, 1)
    assert await again.open_imports() == [first, second]
    assert await ContactLinks(store, 2).open_imports() == []
    await links.close_import(first, [ann.id])
    assert await again.open_imports() == [second]
    assert (ann.status, bea.status) == (ContactStatus.LINKED, ContactStatus.NEW)
    prints = {linked.contact.email: linked.fingerprint for linked in await again.records([ann.id, bea.id])}
    assert prints == {ANN: b"ann", BEA: None}
    await links.close_import(second, [])
    assert await again.open_imports() == []


async def test_an_import_is_closed_with_its_contacts_or_not_at_all(
    links: ContactLinks, look: asyncpg.Connection
) -> None:
    (ann,) = (await links.link({CustomerId(5): ANN})).values()
    started = OpenImport("i-1", {ann.id: b"ann"}, is_short=False)
    await links.record_import(started)
    await look.execute("CREATE RULE kept AS ON DELETE TO kiva_stream.import DO ALSO SELECT 1 / 0")
    with pytest.raises(CheckpointError):
        await links.close_import(started, [ann.id])
    assert ann.status is ContactStatus.NEW
    assert await look.fetchval("SELECT status FROM kiva_stream.contact") == "new"


async def test_contacts_without_a_holder_are_evicted_beyond_the_bound(store: Store) -> None:
    links = ContactLinks(store, 1, cache_rows=3)
    await links.link({CustomerId(n): Email(f"{n}@example.com") for n in range(1, 10)})
    gc.collect()
    assert len(links._by_customer) == len(links._contacts) == 3
    kept = (await links.link({CustomerId(1): ANN}))[CustomerId(1)]
    for n in range(2, 10):
        await links.link({CustomerId(n): ANN})
    assert (await links.link({CustomerId(1): ANN}))[CustomerId(1)] is kept


async def test_the_customers_unused_for_the_longest_time_are_evicted_first(store: Store) -> None:
    links = ContactLinks(store, 1, cache_rows=2)
    for n in (1, 2, 1, 3):
        await links.link({CustomerId(n): ANN})
    assert list(links._by_customer) == [1, 3]


async def test_two_at_once_link_the_same_people_to_the_same_contacts(links: ContactLinks) -> None:
    people = {CustomerId(n): Email(f"{n % 40}@example.com") for n in range(100)}
    reverse = dict(reversed(people.items()))
    one, other = await asyncio.gather(links.link(people), links.link(reverse))
    assert all(one[customer] is other[customer] for customer in people)
    assert len(await links.page(ContactId(0), 1000)) == 40


async def test_the_contacts_of_customers_are_found_and_none_is_made(
    store: Store, links: ContactLinks
) -> None:
    ann = (await links.link({CustomerId(5): ANN}))[CustomerId(5)]
    for each in (links, ContactLinks(store, 1)):
        found = await each.of_customers([CustomerId(5), CustomerId(6)])
        assert found == {CustomerId(5): ann}
    assert (await links.of_customers([CustomerId(5)]))[CustomerId(5)] is ann
    assert await links.of_customers([]) == {}
    assert await ContactLinks(store, 2).of_customers([CustomerId(5)]) == {}
    assert len(await links.page(FIRST, 10)) == 1


async def test_the_contact_of_an_address_is_found(store: Store, links: ContactLinks) -> None:
    ann = await linked_contact(links)
    found = await links.find_by_email(ANN)
    assert found is not None
    assert found.contact is ann
    assert (found.customers, found.ac_id) == ((5,), 11)
    assert await links.find_by_email(BEA) is None
    assert await ContactLinks(store, 2).find_by_email(ANN) is None


# What ActiveCampaign has


async def test_a_confirmed_contact_is_stored_as_it_was_sent(links: ContactLinks) -> None:
    ann = (await links.link({CustomerId(5): ANN}))[CustomerId(5)]
    assert await stored(links, ann) == ContactRecord(ann, ids(5), None)
    await links.record_confirmed(ann.id, b"one", AcId(11), unsubscribed=True)
    assert await stored(links, ann) == ContactRecord(
        ann, ids(5), b"one", AcId(11), unsubscribed=True, taken_off=True
    )
    await links.record_confirmed(ann.id, b"two", AcId(12), unsubscribed=False)
    assert await stored(links, ann) == ContactRecord(
        ann, ids(5), b"two", AcId(12), unsubscribed=False, taken_off=True
    )


async def test_a_contact_that_no_import_brought_is_not_on_the_list_until_it_is_recorded_there(
    links: ContactLinks,
) -> None:
    contacts = await links.link({CustomerId(5): ANN, CustomerId(6): BEA})
    ann, bea = contacts[CustomerId(5)], contacts[CustomerId(6)]
    for contact in (ann, bea):
        await links.record_confirmed(
            contact.id, b"one", AcId(10 + contact.id), unsubscribed=False, came_alone=True
        )
    assert (await stored(links, ann)).not_on_list is NotOnList.CAME_ALONE

    await links.close_import(OpenImport("i-1", {ann.id: b"two"}, is_short=False), [ann.id])
    assert (await stored(links, ann)).not_on_list is NotOnList.CAME_ALONE
    await links.record_on_list([ann.id])
    await links.record_confirmed(bea.id, b"two", AcId(12), unsubscribed=True)
    assert [(await stored(links, each)).not_on_list for each in (ann, bea)] == [None, None]
    await links.record_confirmed(ann.id, b"three", AcId(11), unsubscribed=False)
    assert (await stored(links, ann)).not_on_list is None


async def test_a_contact_is_on_the_list_or_not_as_was_said_last(links: ContactLinks) -> None:
    ann = await linked_contact(links)
    bea = await linked_contact(links, 6, BEA, 12)
    for is_off in (True, False):
        await links.record_list_status(ann.id, unsubscribed=is_off)
        assert (await stored(links, ann)).unsubscribed is is_off
        assert not (await stored(links, bea)).unsubscribed


async def test_a_closed_import_records_the_contacts_it_unsubscribed(links: ContactLinks) -> None:
    ann, bea = await linked_contact(links), await linked_contact(links, 6, BEA, 12)
    eve = (await links.link({CustomerId(7): Email("eve@example.com")}))[CustomerId(7)]
    await links.record_list_status(bea.id, unsubscribed=True)
    prints = {ann.id: b"ann 2", bea.id: b"bea 2", eve.id: b"eve"}
    await links.record_import(OpenImport("i-1", prints, False, frozenset({ann.id, eve.id})))
    (started,) = await ContactLinks(links._store, 1).open_imports()
    await links.close_import(started, [ann.id, bea.id])
    assert (await stored(links, ann)).unsubscribed
    assert not (await stored(links, bea)).unsubscribed  # it is not asked for any more
    assert not (await stored(links, eve)).unsubscribed  # it did not come


async def test_an_import_leaves_ids_as_they_are_known(links: ContactLinks) -> None:
    ann = await linked_contact(links)
    await links.close_import(OpenImport("i-1", {ann.id: b"ann 2"}, is_short=False), [ann.id])
    assert await stored(links, ann) == ContactRecord(ann, ids(5), b"ann 2", AcId(11))


async def test_a_contact_has_the_tag_that_its_import_gives_it_also_when_the_import_is_lost(
    links: ContactLinks,
) -> None:
    found = await links.link({CustomerId(5): ANN, CustomerId(6): BEA})
    ann, bea = found[CustomerId(5)], found[CustomerId(6)]
    await links.record_import_tags({ann.id: WeekTag.OPEN, bea.id: WeekTag.NONE})
    started = OpenImport("i-1", {ann.id: b"ann", bea.id: b"bea"}, is_short=False)
    await links.record_import(started)
    await links.close_import(started, [ann.id])
    assert await stored(links, ann) == ContactRecord(ann, ids(5), b"ann", tag=WeekTag.OPEN)
    assert await stored(links, bea) == ContactRecord(bea, ids(6), None, tag=WeekTag.NONE)
    assert bea.status is ContactStatus.NEW
    await links.record_import_tags({})


async def test_a_contact_that_is_linked_for_the_first_time_is_due_for_its_tag(
    links: ContactLinks, due: DueTags, look: asyncpg.Connection
) -> None:
    found = await links.link({CustomerId(n): Email(f"{n}@example.com") for n in range(5)})
    one, two, three, refused, nobody = (contact.id for contact in found.values())
    await links.record_rejected(refused, Reason.AC_REJECTED)
    assert await due_now(due) == []
    await links.record_confirmed(one, b"1", AcId(1), unsubscribed=False)
    await links.close_import(OpenImport("i-1", {two: b"2", three: b"3"}, is_short=False), [three, two])
    await links.record_confirmed(refused, b"4", AcId(4), unsubscribed=False)
    assert set(await due_now(due)) == {one, two, three, refused}
    await look.execute("DELETE FROM kiva_stream.tag_due")
    await links.record_confirmed(one, b"1 again", AcId(1), unsubscribed=False)
    await links.close_import(OpenImport("i-2", {two: b"2 again"}, is_short=False), [two])
    await links.record_rejected(nobody, Reason.AC_REJECTED)
    assert await due_now(due) == []


async def test_a_contact_is_confirmed_with_its_due_tag_or_not_at_all(
    links: ContactLinks, look: asyncpg.Connection
) -> None:
    ann = (await links.link({CustomerId(5): ANN}))[CustomerId(5)]
    await look.execute("ALTER TABLE kiva_stream.tag_due ADD CHECK (contact_id < 0)")
    with pytest.raises(CheckpointError):
        await links.record_confirmed(ann.id, b"ann", AcId(11), unsubscribed=False)
    assert ann.status is ContactStatus.NEW
    assert await look.fetchval("SELECT status FROM kiva_stream.contact") == "new"


async def test_ids_are_learned_by_address(store: Store, links: ContactLinks) -> None:
    found = await links.link({CustomerId(5): ANN, CustomerId(6): BEA})
    other = (await ContactLinks(store, 2).link({CustomerId(5): ANN}))[CustomerId(5)]
    assert await links.ids_known_up_to() == 0
    await links.record_ids({ANN: AcId(11), Email("stranger@example.com"): AcId(12)}, AcId(12))
    assert await ContactLinks(store, 1).ids_known_up_to() == 12
    assert (await stored(links, found[CustomerId(5)])).ac_id == 11
    assert (await stored(links, found[CustomerId(6)])).ac_id is None
    ((linked),) = await ContactLinks(store, 2).records([other.id])
    assert linked.ac_id is None
    await links.record_ids({}, AcId(20))
    assert await links.ids_known_up_to() == 20


async def test_a_site_that_nothing_was_written_of_knows_no_contact(store: Store) -> None:
    assert await ContactLinks(store, 9).ids_known_up_to() == 0


# Moves


async def test_holders_of_a_contact_see_its_new_address(links: ContactLinks) -> None:
    ann = await linked_contact(links)
    new = Email("ann@new.example")
    await links.record_email(ann.id, new)
    assert ann.email == new
    assert (await stored(links, ann)).contact == ann
    assert (await links.link({CustomerId(5): new}))[CustomerId(5)] is ann
    found = await links.find_by_email(new)
    assert found is not None
    assert found.contact is ann
    assert await links.find_by_email(ANN) is None


async def test_a_contact_without_a_holder_gets_its_new_address_too(store: Store, links: ContactLinks) -> None:
    ann = await linked_contact(links)
    await ContactLinks(store, 1).record_email(ann.id, BEA)
    assert (await stored(links, ann)).contact.email == BEA


async def test_relinking_to_an_address_without_a_contact_creates_one(links: ContactLinks) -> None:
    ann = await linked_contact(links)
    joined = await links.relink([CustomerId(5), CustomerId(6)], BEA, AcId(12))
    assert joined is not ann
    assert await stored(links, joined) == ContactRecord(joined, ids(5, 6), None, AcId(12))
    assert (joined.email, joined.status) == (BEA, ContactStatus.NEW)
    assert (await stored(links, ann)).customers == ()


async def test_a_relinked_customer_leaves_the_old_contact(store: Store, links: ContactLinks) -> None:
    ann = await linked_contact(links)
    await links.link({CustomerId(7): ANN})
    bea = await linked_contact(links, 6, BEA, 12)
    assert await links.relink([CustomerId(5)], BEA, None) is bea
    assert await stored(links, bea) == ContactRecord(bea, ids(5, 6), BEA.encode(), AcId(12))
    assert (await stored(links, ann)).customers == (7,)
    for each in (links, ContactLinks(store, 1)):
        found = await each.of_customers([CustomerId(5), CustomerId(7)])
        assert {customer: contact.id for customer, contact in found.items()} == {5: bea.id, 7: ann.id}
    assert (await links.of_customers([CustomerId(5)]))[CustomerId(5)] is bea


async def test_relinking_leaves_other_sites_customers_where_they_are(
    store: Store, links: ContactLinks
) -> None:
    other = ContactLinks(store, 2)
    theirs = (await other.link({CustomerId(5): BEA}))[CustomerId(5)]
    await linked_contact(links)
    joined = await links.relink([CustomerId(5)], BEA, None)
    assert joined.id != theirs.id
    (linked,) = await other.records([theirs.id])
    assert linked.customers == (5,)


async def test_relinking_makes_the_tags_of_both_contacts_due(links: ContactLinks, due: DueTags) -> None:
    ann, bea = await linked_contact(links), await linked_contact(links, 6, BEA, 12)
    eve = await linked_contact(links, 7, Email("eve@example.com"), 13)
    await due.clear_due(await due.page(FIRST, 10))
    await links.relink([CustomerId(5)], BEA, None)
    assert await due_now(due) == [ann.id, bea.id]
    await due.clear_due(await due.page(FIRST, 10))
    await links.relink([CustomerId(7)], Email("new@example.com"), None)
    assert await due_now(due) == [eve.id]  # the new one is due when it is linked


async def test_a_customer_relinked_while_the_old_link_is_read_keeps_the_new_link(
    store: Store, links: ContactLinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await linked_contact(links)
    again = ContactLinks(store, 1)
    fetch = store.fetch

    async def joined_meanwhile(block: str, *args: object) -> list[asyncpg.Record]:
        rows = await fetch(block, *args)
        if block == "contacts_of_customers":
            await again.relink([CustomerId(5)], BEA, None)
        return rows

    monkeypatch.setattr(store, "fetch", joined_meanwhile)
    assert (await again.of_customers([CustomerId(5)]))[CustomerId(5)].email == BEA
    monkeypatch.undo()
    assert (await again.of_customers([CustomerId(5)]))[CustomerId(5)].email == BEA
    assert (await stored(links, ann)).customers == ()


async def test_an_orphaned_contact_has_no_customers_and_only_its_id_is_known(
    links: ContactLinks, due: DueTags, look: asyncpg.Connection
) -> None:
    ann, bea = await linked_contact(links), await linked_contact(links, 6, BEA, 12)
    await links.record_confirmed(ann.id, b"ann", AcId(11), unsubscribed=True)
    await due.record_tag(ann.id, ac_id=AcId(11), tag=WeekTag.OPEN, link=99)
    await links.record_orphaned(ann.id)
    assert await stored(links, ann) == ContactRecord(ann, (), None, AcId(11))
    assert (ann.email, ann.status, ann.why) == (ANN, ContactStatus.NEW, "")
    assert await due_now(due) == [bea.id]
    assert await look.fetchval("SELECT confirmed_at FROM kiva_stream.contact WHERE id = $1", ann.id) is None
    assert await links.of_customers([CustomerId(5), CustomerId(6)]) == {CustomerId(6): bea}
    assert await stored(links, bea) == ContactRecord(bea, ids(6), BEA.encode(), AcId(12))


async def test_a_new_customer_with_the_address_of_an_orphaned_contact_gets_it(links: ContactLinks) -> None:
    ann = await linked_contact(links)
    await links.relink([CustomerId(5)], BEA, None)
    await links.record_orphaned(ann.id)
    found = await links.link({CustomerId(5): BEA, CustomerId(8): ANN})
    assert found[CustomerId(8)] is ann
    assert found[CustomerId(5)].email == BEA
    assert (await stored(links, ann)).customers == (8,)


async def test_two_imports_of_the_same_contacts_may_end_at_once(links: ContactLinks) -> None:
    found = await links.link({CustomerId(n): Email(f"{n}@example.com") for n in range(20)})
    contacts = [contact.id for contact in found.values()]
    prints = dict.fromkeys(contacts, b"print")
    for turn in range(20):
        one, other = (OpenImport(f"i-{turn}-{n}", prints, is_short=False) for n in range(2))
        await asyncio.gather(links.close_import(one, contacts), links.close_import(other, contacts[::-1]))
    assert all(contact.status is ContactStatus.LINKED for contact in found.values())


async def test_what_an_import_carries_is_kept_with_its_age_until_it_is_withdrawn(
    links: ContactLinks, store: Store, look: asyncpg.Connection
) -> None:
    one, two = ContactId(1), ContactId(2)
    await links.record_carried({one: b"old", two: b"old"})
    await look.execute("UPDATE kiva_stream.carried_contact SET sent_at = now() - interval '1 hour'")
    await links.record_carried({one: b"newer"})
    again = await ContactLinks(store, 1).carried()
    assert {contact: print_ for contact, (print_, _) in again.items()} == {one: b"newer", two: b"old"}
    assert again[one][1] < 60
    assert again[two][1] >= 3600
    assert await ContactLinks(store, 2).carried() == {}
    await links.withdraw_carried([one, two])
    assert await links.carried() == {}
