"""A call is refused with a 403 though the key is accepted: only its kind is paused."""

from __future__ import annotations

from msgspec.structs import replace

from kiva_stream.errors import PermissionRefused, RecordsHeld
from kiva_stream.model.ids import Email
from kiva_stream.sync.conviction import ROW
from tests.support.waiting import raises_one
from tests.unit.sync.builders import LINKED, NEW, Bench, address, entry_of, shop
from tests.unit.sync.test_order_sync import Bench as OrderBench
from tests.unit.sync.test_order_sync import orders

PHONE = "555 0100"
FREE = Email("free@example.org")


def kinds(bench: Bench | OrderBench) -> list[str]:
    return [each.kind for each in bench.incidents.all()]


async def test_when_no_import_is_permitted_new_contacts_are_paused_and_known_ones_are_sent_alone() -> None:
    customers, accounts = shop(16)
    bench = Bench(accounts[:6], contacts_per_import=20, import_min_contacts=5)
    await bench.snapshot()
    bench.customers.rows |= {each.customer.id: each for each in accounts[6:]}
    for each in customers[:6]:
        bench.customers.change(each, phone=PHONE)
    bench.contacts.forbidden = {"import"}
    await bench.snapshot()
    assert kinds(bench) == ["new_contacts"]
    assert bench.statuses(customers) == [LINKED] * 6 + [NEW] * 10
    assert [bench.shown(each).phone for each in customers[:6]] == [PHONE] * 6


async def test_when_no_contact_can_be_sent_alone_changes_are_paused_and_new_contacts_go_on() -> None:
    customers, accounts = shop(9)
    bench = Bench(accounts[:8], contacts_per_import=20)
    await bench.snapshot()
    bench.customers.rows |= {each.customer.id: each for each in accounts[8:]}
    for each in customers[:8]:
        bench.customers.change(each, phone=PHONE)
    bench.contacts.forbidden = {"sync"}
    await bench.snapshot()
    assert kinds(bench) == ["contacts"]
    assert len(bench.contacts.synced) <= 8
    assert bench.statuses(customers) == [LINKED] * 9


async def test_one_contact_that_is_forbidden_pauses_nothing() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot()
    bench.customers.change(ann, phone=PHONE)
    bench.contacts.forbidden = {"sync"}
    with raises_one(RecordsHeld):
        await bench.carry(bench.contact(ann), entry_of(1))
    assert kinds(bench) == []


async def test_where_contacts_may_not_be_looked_up_new_ones_are_written_and_their_ids_are_not_known() -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts)
    bench.contacts.forbidden = {"find", "page"}
    bench.contacts.excluded = {address(customers[0])}  # which a short import leaves out without a word
    await bench.snapshot()
    assert bench.statuses(customers) == [LINKED] * 3
    assert customers[0].email in bench.contacts.synced
    assert kinds(bench) == []


async def test_a_customer_moves_to_another_contact_where_none_may_be_looked_up() -> None:
    (ann, *_), accounts = shop(2)
    bench = Bench(accounts)
    await bench.snapshot()
    bench.links.ac_ids.clear()
    bench.contacts.forbidden = {"find"}
    await bench.move(ann, FREE)
    assert bench.contact(ann).email == FREE
    assert bench.shown(ann).email == FREE


async def test_a_late_entry_resubscribes_nobody_whose_contact_may_not_be_looked_up() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts, is_live=True)
    await bench.snapshot()
    await bench.writes.set_list(bench.linked(ann), subscribed=False)
    bench.links.ac_ids.clear()
    bench.contacts.forbidden = {"find"}
    await bench.carry(bench.contact(ann), replace(entry_of(10, resubscribes=True), is_reopened=True))
    assert bench.at_ac(ann).is_on_list is False
    assert bench.links.notes["resubscribe_late"] == 1


async def test_a_place_on_the_list_that_is_forbidden_holds_its_contact_alone() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot()
    bench.customers.change(ann, email_opt_in=False)
    bench.contacts.forbidden = {"list"}
    with raises_one(RecordsHeld):
        await bench.carry(bench.contact(ann), entry_of(1))
    assert kinds(bench) == []


def test_when_no_order_is_permitted_orders_are_paused_after_few_requests() -> None:
    bench = OrderBench(*orders(4))
    bench.uploads.error = PermissionRefused("403")
    bench.run(OrderBench.snapshot)
    assert kinds(bench) == []  # fewer than convict

    bench = OrderBench(*orders(16), orders_per_batch=16)
    bench.uploads.error = PermissionRefused("403")
    bench.run(OrderBench.snapshot)
    assert kinds(bench) == ["orders"]
    assert len([each for each in bench.uploads.asked if len(each) == 1]) == ROW
    assert bench.refused == {}
