"""ActiveCampaign refuses contacts for the account's sake, or without a reason that names a value."""

from __future__ import annotations

import anyio

from kiva_stream.errors import RecordsHeld
from kiva_stream.model.customers import Customer
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
