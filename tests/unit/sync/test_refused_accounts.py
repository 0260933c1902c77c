"""ActiveCampaign refuses contacts for the account's sake, or without a reason that names a value."""

from __future__ import annotations

import anyio

from kiva_stream.errors import RecordsHeld
from kiva_stream.model.customers import Customer
from kiva_stream.model.held_records import HeldKind, Silent
from kiva_stream.model.ids import OrderId
from kiva_stream.sync.conviction import ROW
from tests.support.virtual_time import run
from tests.support.waiting import raises_one
from tests.unit.sync.builders import LINKED, NEW, REFUSED, Bench, address, emails, entry_of, need_of, shop

LIMIT = "You have reached your contact limit."
NO = "That did not work."
PHONE = "555 0100"


def failing(
    count: int, reply: str, *, of: int | None = None, contacts_per_import: int = 10
) -> tuple[Bench, list[Customer]]:
    """Return the bench of customers of whom so many fail in imports, and are refused alone with a reply."""
    customers, accounts = shop(of or count)
    bench = Bench(accounts, contacts_per_import=contacts_per_import)
    bench.contacts.failing = bench.contacts.refused_alone = set(emails(customers[:count]))
    bench.contacts.refusal_alone = reply
    return bench, customers


async def test_one_refusal_with_a_known_text_pauses_new_contacts() -> None:
    bench, customers = failing(8, LIMIT)
    await bench.snapshot()
    assert bench.statuses(customers) == [NEW] * 8
    assert bench.contacts.synced == [address(customers[0])]
    (incident,) = bench.incidents.all()
    assert incident.kind == "new_contacts"
    assert LIMIT in incident.why
    assert bench.refusals.pauses() == [incident.why]


async def test_changes_of_contacts_that_are_there_go_on_while_new_ones_are_paused() -> None:
    (known, *others), accounts = shop(4)
    bench = Bench(accounts)
    bench.contacts.failing = bench.contacts.refused_alone = set(emails(others))
    bench.contacts.refusal_alone = LIMIT
    await bench.snapshot()
    bench.customers.change(known, phone=PHONE)
    (contact,) = await bench.link(known)
    await bench.carry(contact, entry_of(1))
    assert bench.shown(known).phone == PHONE
    assert bench.statuses(others) == [NEW] * 3


async def test_no_request_goes_out_for_a_new_contact_while_they_are_paused() -> None:
    bench, customers = failing(2, LIMIT)
    await bench.snapshot()
    requests = len(bench.contacts.addresses()) + len(bench.contacts.synced)
    await bench.snapshot()
    assert len(bench.contacts.addresses()) + len(bench.contacts.synced) == requests
    assert bench.statuses(customers) == [NEW] * 2


def test_the_probe_that_is_accepted_ends_the_pause_and_all_are_due() -> None:
    async def story() -> None:
        bench, customers = failing(3, LIMIT)
        await bench.snapshot()
        assert bench.sync.take_due() == set()
        await anyio.sleep(300)
        assert bench.sync.has_due
        (probe,) = bench.sync.take_due()
        assert probe == bench.contact(customers[0]).id
        with raises_one(RecordsHeld):
            await bench.ensure(need_of(bench.contact(customers[0])))
        assert bench.sync.take_due() == set()
        await anyio.sleep(300)
        bench.contacts.failing = bench.contacts.refused_alone = set()
        (probe,) = bench.sync.take_due()
        await bench.ensure(need_of(bench.contact(customers[1])))
        assert bench.incidents.all() == []
        assert bench.sync.take_due() == {bench.contact(customers[0]).id, bench.contact(customers[2]).id}
        await bench.snapshot()
        assert bench.statuses(customers) == [LINKED] * 3

    run(story())


async def test_five_contacts_refused_alike_pause_their_kind_and_the_others_are_not_tried() -> None:
    bench, customers = failing(9, NO)
    await bench.snapshot()
    assert bench.contacts.synced == emails(customers[:ROW])
    assert bench.statuses(customers) == [NEW] * 9
    assert [each.kind for each in bench.incidents.all()] == ["new_contacts"]


async def test_contacts_that_name_no_value_are_held_and_rejected_between_two_acceptances() -> None:
    bench, customers = failing(1, NO, of=3)
    (bad, *good) = customers
    before, after = await bench.link(*good)
    await bench.ensure(need_of(before))
    with raises_one(RecordsHeld):
        await bench.ensure(need_of((await bench.link(bad))[0]))
    assert bench.statuses([bad]) == [NEW]
    await bench.ensure(need_of(after))
    assert bench.statuses([bad]) == [REFUSED]
    assert bench.contact(bad).reply == NO
    assert bench.sync.take_due() == {bench.contact(bad).id}


async def test_a_refusal_before_the_first_acceptance_is_tried_again_after_it() -> None:
    bench, (bad, good) = failing(1, NO, of=2)
    with raises_one(RecordsHeld):
        await bench.ensure(need_of((await bench.link(bad))[0]))
    await bench.ensure(need_of((await bench.link(good))[0]))
    assert bench.statuses([bad]) == [NEW]
    assert bench.sync.take_due() == {bench.contact(bad).id}


async def test_a_known_text_that_repeats_an_address_convicts_nobody() -> None:
    bench, customers = failing(2, "[address] is beyond the contact limit of its domain")
    await bench.snapshot()
    assert bench.incidents.all() == []
    assert bench.statuses(customers) == [REFUSED] * 2


async def test_of_contacts_that_failed_those_that_are_there_are_tried_apart() -> None:
    bench, customers = failing(12, LIMIT, contacts_per_import=20)
    for each in customers[6:]:
        bench.links.ac_ids[(await bench.link(each))[0].id] = bench.contacts.add(address(each))
    bench.contacts.refused_alone = set(emails(customers[:6]))
    await bench.snapshot()
    assert bench.statuses(customers) == [NEW] * 6 + [LINKED] * 6


async def test_an_opt_out_goes_though_changes_of_contacts_are_paused() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot()
    bench.contacts.refused_values = {PHONE: LIMIT}
    bench.customers.change(ann, phone=PHONE)
    with raises_one(RecordsHeld):
        await bench.carry(bench.contact(ann), entry_of(1))
    bench.customers.change(ann, email_opt_in=False)
    with raises_one(RecordsHeld):
        await bench.carry(bench.contact(ann), entry_of(2))
    assert bench.at_ac(ann).is_on_list is False
    assert bench.shown(ann).phone != PHONE


def test_contacts_of_orders_that_are_due_are_tried_now() -> None:
    async def story() -> None:
        (ann, bob), accounts = shop(2)
        bench = Bench(accounts)
        await bench.snapshot()
        for number, each in ((1, ann), (2, bob)):
            bench.sync.mark_dirty(bench.contact(each), [OrderId(number)])
        bench.order_kind.convict([OrderId(1)], "no")
        assert bench.sync.take_due() == set()
        await anyio.sleep(300)
        assert bench.sync.has_due
        assert bench.sync.take_due() == {bench.contact(ann).id}

    run(story())


async def test_a_new_contact_that_is_accepted_as_a_known_one_is_not_recorded_as_refused_later() -> None:
    bench, customers = failing(1, NO, of=4)
    (ann, *others) = customers
    (before, *after) = await bench.link(*others)
    await bench.ensure(need_of(before))
    (contact,) = await bench.link(ann)
    with raises_one(RecordsHeld):
        await bench.ensure(need_of(contact))
    bench.links.ac_ids[contact.id] = bench.contacts.add(address(ann))
    bench.contacts.failing = bench.contacts.refused_alone = set()
    await bench.ensure(need_of(contact))
    for each in after:
        await bench.ensure(need_of(each))
    assert bench.statuses([ann]) == [LINKED]
    assert bench.links.refused == {}
    assert contact.id not in bench.sync.take_due()


async def test_a_new_contact_that_is_refused_as_a_known_one_keeps_the_last_reply() -> None:
    bench, customers = failing(1, NO, of=4)
    (ann, *others) = customers
    (before, *after) = await bench.link(*others)
    await bench.ensure(need_of(before))
    (contact,) = await bench.link(ann)
    with raises_one(RecordsHeld):
        await bench.ensure(need_of(contact))
    bench.links.ac_ids[contact.id] = bench.contacts.add(address(ann))
    bench.contacts.refusal_alone = "[address] is not valid"
    await bench.ensure(need_of(contact))
    for each in after:
        await bench.ensure(need_of(each))
    assert bench.statuses([ann]) == [REFUSED]
    assert bench.contact(ann).reply == "[address] is not valid"
    assert bench.sync.take_due() == set()


async def test_a_contact_whose_data_are_again_as_they_were_is_not_recorded_as_refused_later() -> None:
    (ann, bob, eve), accounts = shop(3)
    bench = Bench(accounts)
    await bench.snapshot()
    bench.contacts.refused_alone, bench.contacts.refusal_alone = {address(ann)}, NO
    bench.customers.change(bob, phone=PHONE)
    await bench.carry(bench.contact(bob), entry_of(1))
    bench.customers.change(ann, phone=PHONE)
    with raises_one(RecordsHeld):
        await bench.carry(bench.contact(ann), entry_of(2))
    bench.customers.change(ann, phone="")
    await bench.carry(bench.contact(ann), entry_of(3))
    bench.customers.change(eve, phone=PHONE)
    await bench.carry(bench.contact(eve), entry_of(4))
    assert bench.links.refused == {}
    assert bench.sync.take_due() == set()


async def test_a_held_contact_that_is_discarded_is_not_tried_again_after_another_is_accepted() -> None:
    bench, (bad, good) = failing(1, NO, of=2)
    (contact, other) = await bench.link(bad, good)
    with raises_one(RecordsHeld):
        await bench.ensure(need_of(contact))
    bench.held.ask(HeldKind.CONTACT, contact.id, discard=True)
    await bench.held_records.refresh()
    await bench.ensure(need_of(contact))
    assert bench.statuses([bad]) == [REFUSED]
    await bench.ensure(need_of(other))
    assert bench.sync.take_due() == set()


async def test_a_held_order_of_a_contact_that_is_linked_no_more_is_handed_to_order_sync() -> None:
    bench, (bad,) = failing(1, NO)
    (contact,) = await bench.link(bad)
    await bench.held_records.hold(HeldKind.ORDER, {7: Silent(contact.id, b"", "no")})
    with raises_one(RecordsHeld):
        await bench.ensure(need_of(contact, 1, 7, 8))
    await bench.sync.retry_refused([contact], is_asked=True)
    bench.contacts.refusal_alone = "[address] is not valid"
    await bench.sync.upsert([need_of(contact, 1, 7, 8)])
    assert bench.statuses([bad]) == [REFUSED]
    assert bench.order_delivery.upserted == [[7]]
