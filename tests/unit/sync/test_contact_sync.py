"""Contact sync: which contacts are brought when and how, and what their entries wait for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace

from kiva_stream.errors import AccountRefused, CheckpointError
from kiva_stream.model.contacts import ContactStatus, ListStatus
from kiva_stream.model.deliveries import Batch, Need
from kiva_stream.model.ids import Email, OrderId
from kiva_stream.model.week_tags import WeekTag
from tests.support.entries import account, customer, position
from tests.support.waiting import raises_one, until
from tests.unit.sync.builders import (
    LINKED,
    LOST,
    NEW,
    NOBODY_LEFT,
    NOW,
    REFUSED,
    RUNNING,
    Bench,
    address,
    emails,
    entry_of,
    need_of,
    shop,
)

PHONE = "+1 555 0100"


# The snapshot


async def test_the_snapshot_imports_every_customer_once_and_links_them() -> None:
    customers, accounts = shop(7)
    bench = Bench(accounts)
    await bench.snapshot()
    assert bench.imported() == emails(customers)
    assert sorted(map(len, bench.contacts.addresses())) == [1, 3, 3]
    assert sorted(bench.done) == [1, 3, 3]
    assert bench.statuses(customers) == [LINKED] * 7
    assert bench.links.imports == {}


async def test_a_snapshot_without_customers_imports_nothing() -> None:
    bench = Bench()
    await bench.snapshot()
    assert bench.contacts.imports == {}
    assert bench.done == []


async def test_a_snapshot_of_many_pages_imports_every_customer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kiva_stream.sync.contact_snapshot.PAGE_ROWS", 2)
    customers, accounts = shop(7)
    bench = Bench(accounts)
    await bench.snapshot()
    assert bench.imported() == emails(customers)
    assert sorted(map(len, bench.contacts.addresses())) == [1, 3, 3]


async def test_a_second_snapshot_sends_only_what_changed() -> None:
    customers, accounts = shop(4)
    bench = Bench(accounts)
    await bench.snapshot()
    bench.contacts.imports.clear()
    bench.customers.change(customers[1], phone=PHONE)
    bench.restart()
    await bench.snapshot()
    assert bench.contacts.imports == {}
    assert bench.contacts.calls == [f"sync {customers[1].email}"]


async def test_only_the_import_that_creates_a_contact_subscribes_it() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts, import_min_contacts=1)
    await bench.snapshot()
    bench.customers.change(ann, phone=PHONE)
    await bench.snapshot()
    assert bench.list_statuses() == [ListStatus.SUBSCRIBE, ListStatus.KEEP]


@pytest.mark.parametrize("change", [{"erased": True}, {"is_test": True}, {"email": None}, {"site_id": 2}])
async def test_customers_erased_for_tests_of_other_sites_or_without_address_never_become_contacts(
    change: dict[str, Any],
) -> None:
    bench = Bench([account(customer(1, **change)), account(customer(2))])
    await bench.snapshot()
    assert bench.imported() == [customer(2).email]
    assert list(bench.contacts.there) == [101]


async def test_customers_of_one_address_are_one_contact() -> None:
    ann = customer(1)
    bench = Bench([account(ann), account(customer(2, email=ann.email))])
    await bench.snapshot()
    assert bench.contacts.addresses() == [[ann.email]]


async def test_a_contact_that_was_refused_is_sent_by_a_later_snapshot_only_when_its_rows_changed() -> None:
    customers, accounts = shop(2)
    bench = Bench(accounts)
    bench.contacts.refused = bench.contacts.refused_alone = {address(customers[0])}
    await bench.snapshot()
    bench.contacts.imports.clear()
    bench.contacts.refused = bench.contacts.refused_alone = set()  # it would come now
    await bench.snapshot()
    assert bench.contacts.imports == {}
    bench.customers.change(customers[0], phone=PHONE)
    await bench.snapshot()
    assert bench.contacts.addresses() == [[customers[0].email]]
    assert bench.statuses(customers) == [LINKED] * 2


async def test_a_refused_contact_is_retried_when_its_rows_changed_or_when_that_is_asked_for() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    bench.contacts.refused = bench.contacts.refused_alone = {address(ann)}
    await bench.snapshot()
    contact = bench.contact(ann)
    assert contact.reply == bench.contacts.refusal_alone
    await bench.sync.retry_refused([contact], is_asked=False)
    assert bench.statuses([ann]) == [REFUSED]
    await bench.sync.retry_refused([contact], is_asked=True)
    assert (bench.statuses([ann]), contact.reply) == ([NEW], "")
    await bench.snapshot()
    assert bench.statuses([ann]) == [REFUSED]
    bench.customers.change(ann, phone=PHONE)
    await bench.sync.retry_refused([contact], is_asked=False)
    assert bench.statuses([ann]) == [NEW]


async def test_a_refused_contact_needs_nothing_unless_it_is_dirty() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    bench.contacts.refused = bench.contacts.refused_alone = {address(ann)}
    await bench.snapshot()
    contact = bench.contact(ann)
    assert await bench.carry(contact, entry_of(1)) is None
    bench.sync.mark_dirty(contact, [])
    bench.contacts.refused = bench.contacts.refused_alone = set()
    await bench.carry(contact, entry_of(2))
    assert bench.statuses([ann]) == [REFUSED]  # its rows are the same
    bench.sync.mark_dirty(contact, [])
    bench.customers.change(ann, phone=PHONE)
    await bench.carry(contact, entry_of(3))
    assert bench.statuses([ann]) == [LINKED]


async def test_the_snapshot_learns_activecampaigns_ids_by_paging() -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts)
    bench.contacts.page_rows = 2
    for email in ("a@example.net", *emails(customers[:2]), "b@example.net"):  # there before: 101 to 104
        bench.contacts.add(Email(email))
    await bench.snapshot()
    assert [bench.linked(each).ac_id for each in customers] == [102, 103, 105]
    assert bench.contacts.paged == [0, 102, 104, 104, 105]
    assert bench.contacts.looked_up == []


async def test_a_later_snapshot_learns_only_the_ids_of_contacts_created_since() -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts[:2])
    await bench.snapshot()
    bench.contacts.paged.clear()
    bench.customers.rows[customers[2].id] = accounts[2]
    bench.contacts.add(address(customers[2]))
    bench.restart()
    await bench.snapshot()
    assert bench.contacts.paged[0] == 102
    assert bench.linked(customers[2]).ac_id == 103


async def test_a_snapshot_that_had_nothing_to_send_learns_ids_once() -> None:
    bench = Bench(shop(2)[1])
    await bench.snapshot()
    bench.contacts.paged.clear()
    await bench.snapshot()
    assert bench.contacts.paged == [102]


async def test_the_snapshot_moves_customers_whose_address_changed_before_it_compares() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot()
    bench.customers.change(ann, email=Email("new@example.org"))
    bench.restart()
    await bench.snapshot()
    assert bench.contacts.calls == ["rename customer1@example.org new@example.org", "sync new@example.org"]
    assert bench.statuses([ann]) == [LINKED]


async def test_the_snapshot_starts_no_automations() -> None:
    bench = Bench(shop(4)[1])
    await bench.snapshot()
    assert set(bench.contacts.automations.values()) == {False}


@pytest.mark.parametrize(
    ("is_live", "age_s", "starts_automations"),
    [(True, 3600, True), (True, 3601, False), (False, 0, False)],
)
async def test_when_following_the_snapshot_starts_automations_of_a_customer_who_just_joined(
    age_s: float, *, is_live: bool, starts_automations: bool
) -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts[:2], is_live=is_live, realtime_max_age_s=3600)
    await bench.snapshot()
    for each in accounts[1:]:  # one of them is there already
        joined_at = NOW - timedelta(seconds=age_s)
        bench.customers.rows[each.customer.id] = replace(each, joined_at=joined_at, phone=PHONE)
    await bench.snapshot()
    assert bench.contacts.addresses()[1:] == [[customers[2].email]]
    assert bench.contacts.automations == {"import 1": False, "import 2": starts_automations}


async def test_the_snapshot_imports_customers_who_just_joined_apart_from_history() -> None:
    customers, accounts = shop(4)
    young = [replace(each, joined_at=NOW) for each in accounts[::2]]
    bench = Bench([*accounts[1::2], *young], is_live=True)
    await bench.snapshot()
    started = bench.contacts.automations
    assert {address(each) for each in customers[::2]} == {
        each.email for key, contacts in bench.contacts.imports.items() if started[key] for each in contacts
    }
    assert bench.imported() == emails(customers)


async def test_a_change_of_a_customer_who_just_joined_starts_no_automations_by_a_snapshot() -> None:
    (ann,), accounts = shop(1)
    bench = Bench([replace(accounts[0], joined_at=NOW)], is_live=True, import_min_contacts=1)
    await bench.snapshot()
    bench.customers.change(ann, phone=PHONE)
    await bench.snapshot()
    assert bench.contacts.automations == {"import 1": True, "import 2": False}


async def test_a_refused_account_ends_the_snapshot_and_rejects_nobody() -> None:
    customers, accounts = shop(4)
    bench = Bench(accounts)
    bench.contacts.refuses_account = True
    with raises_one(AccountRefused):
        await bench.snapshot()
    assert bench.statuses(customers) == [NEW] * 4


async def test_a_failing_state_ends_the_snapshot() -> None:
    bench = Bench(shop(1)[1])
    bench.links.fails = True
    with raises_one(CheckpointError):
        await bench.snapshot()


# The week tag of newcomers


@pytest.mark.parametrize(
    ("anns", "twins", "tag"),
    [
        (set(), set(), WeekTag.NONE),
        ({"closed"}, set(), WeekTag.CLOSED),
        ({"complete"}, {"open"}, WeekTag.OPEN),
    ],
)
async def test_a_newcomer_is_created_with_the_week_tag_of_all_customers_of_the_contact(
    anns: set[str], twins: set[str], tag: WeekTag
) -> None:
    ann = customer(1)
    twin = customer(2, email=ann.email)
    bench = Bench([account(ann), account(twin)])
    bench.weeks.put(ann, *anns)
    bench.weeks.put(twin, *twins)
    await bench.snapshot()
    assert list(bench.at_ac(ann).tags) == [tag]
    assert bench.linked(ann).tag is tag


async def test_a_newcomer_is_due_since_the_week_may_have_changed_meanwhile() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    (contact,) = await bench.link(ann)
    await bench.carry(contact, entry_of(1))
    assert list(bench.links.due) == [bench.contact(ann).id]


async def test_the_snapshot_makes_every_linked_contact_due_since_no_entry_up_to_it_will() -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts)
    bench.contacts.refused = bench.contacts.refused_alone = {address(customers[2])}
    await bench.snapshot()
    bench.links.due.clear()
    await bench.snapshot()
    assert sorted(bench.links.due) == [bench.contact(each).id for each in customers[:2]]


async def test_a_contact_that_activecampaign_has_already_gets_no_tag_in_the_import() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    bench.contacts.add(address(ann))
    await bench.snapshot()
    assert bench.at_ac(ann).tags == {}
    assert bench.linked(ann).tag is None
    assert list(bench.links.due) == [bench.contact(ann).id]


async def test_a_change_of_a_contact_carries_no_tag() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts, import_min_contacts=1)
    await bench.snapshot()
    bench.weeks.put(ann, "open")
    bench.customers.change(ann, phone=PHONE)
    await bench.snapshot()
    assert [each.tag for contacts in bench.contacts.imports.values() for each in contacts] == [
        WeekTag.NONE,
        None,
    ]
    assert bench.linked(ann).tag is WeekTag.NONE


async def test_a_linked_contact_whose_id_is_not_known_yet_gets_no_second_tag() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts, import_min_contacts=1)
    (contact,) = await bench.link(ann)
    await bench.carry(contact, entry_of(1))
    bench.links.ac_ids.clear()
    bench.customers.change(ann, phone=PHONE)
    await bench.carry(contact, entry_of(2))
    assert [each.tag for each in bench.contacts.imports["import 2"]] == [None]


async def test_a_contact_whose_first_import_was_lost_keeps_the_tag_it_was_sent_with() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    async with anyio.create_task_group() as group:  # stopped while its import runs
        bench.contacts.reports = [RUNNING] * 1_000
        group.start_soon(bench.snapshot)
        await until(lambda: bench.contacts.asked)
        group.cancel_scope.cancel()
    bench.weeks.put(ann, "open")  # it would get another one now
    bench.contacts.reports = [LOST]
    bench.restart()
    await bench.snapshot()
    assert [contacts[0].tag for contacts in bench.contacts.imports.values()] == [WeekTag.NONE] * 2
    assert list(bench.at_ac(ann).tags) == [WeekTag.NONE]
    assert list(bench.links.due) == [bench.contact(ann).id]


async def test_weeks_are_not_read_when_no_contact_is_new() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot()
    bench.weeks.current = bench.weeks.statuses = None  # type: ignore[method-assign, assignment]
    bench.customers.change(ann, phone=PHONE)
    await bench.snapshot()
    assert bench.shown(ann).phone == PHONE


# What a batch must wait for


async def test_a_batch_of_a_new_contact_needs_its_upsert() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    (contact,) = await bench.link(ann)
    old, young = entry_of(3, age_s=60), entry_of(4, age_s=50)
    need = bench.sync.need(Batch(contact, [old, young]))
    assert need == Need(contact, position(4), young.inserted_at, frozenset())


async def test_entries_that_the_snapshot_covers_need_nothing() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot(covers=position(5))
    contact = bench.contact(ann)
    assert bench.sync.need(Batch(contact, [entry_of(4), entry_of(5, order=7)])) is None
    assert bench.sync.need(Batch(contact, [entry_of(5), entry_of(6)])) is not None


async def test_once_a_contact_is_upserted_for_an_entry_the_entries_before_need_nothing() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    (contact,) = await bench.link(ann)
    assert await bench.carry(contact, entry_of(4))
    assert bench.sync.need(Batch(contact, [entry_of(3), entry_of(4)])) is None
    assert bench.sync.need(Batch(contact, [entry_of(5)])) is not None


async def test_contacts_upserted_together_are_each_synced_up_to_their_own_entries() -> None:
    customers, accounts = shop(2)
    bench = Bench(accounts)
    ann, bob = await bench.link(*customers)
    await bench.sync.upsert([need_of(ann, 4), need_of(bob, 9)])
    assert bench.sync.need(Batch(ann, [entry_of(4)])) is None
    assert bench.sync.need(Batch(ann, [entry_of(9)])) is not None
    assert bench.sync.need(Batch(bob, [entry_of(9)])) is None


async def test_a_batch_needs_the_orders_that_its_entries_name_but_those_the_snapshot_covered() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot(covers=position(5))
    need = bench.sync.need(
        Batch(bench.contact(ann), [entry_of(5, order=1), *(entry_of(n, n) for n in (6, 7))])
    )
    assert need
    assert need.orders == {6, 7}


async def test_an_order_that_is_named_is_needed_though_the_contact_is_as_it_should_be() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    (contact,) = await bench.link(ann)
    await bench.carry(contact, entry_of(4))
    need = bench.sync.need(Batch(contact, [entry_of(3, order=7)]))
    assert need
    assert need.orders == {7}


@pytest.mark.parametrize(("why", "is_needed"), [(REFUSED[1], False), (NOBODY_LEFT[1], True)])
async def test_a_refused_contact_needs_nothing_but_a_contact_without_customers_is_tried_again(
    why: str, *, is_needed: bool
) -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    (contact,) = await bench.link(ann)
    contact.set_status(ContactStatus.REJECTED, why)
    assert (bench.sync.need(Batch(contact, [entry_of(1, order=7)])) is not None) is is_needed


async def test_a_contact_rejected_without_customers_is_created_when_it_has_one_again() -> None:
    (ann,), accounts = shop(1)
    bench = Bench()
    (contact,) = await bench.link(ann)
    await bench.carry(contact, entry_of(1))
    assert bench.statuses([ann]) == [NOBODY_LEFT]
    bench.customers.rows[ann.id] = accounts[0]
    await bench.carry(contact, entry_of(2))
    assert bench.statuses([ann]) == [LINKED]


async def test_a_dirty_contact_is_upserted_with_its_dirty_orders_once() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot(covers=position(9))
    contact = bench.contact(ann)
    bench.sync.mark_dirty(contact, [OrderId(7)])
    bench.sync.mark_dirty(contact, [OrderId(8)])
    bench.customers.change(ann, phone=PHONE)
    need = await bench.carry(contact, entry_of(1))
    assert need
    assert need.orders == {7, 8}
    assert bench.shown(ann).phone == PHONE
    assert bench.order_delivery.upserted == [[7, 8]]
    assert bench.sync.need(Batch(contact, [entry_of(1)])) is None


async def test_a_contact_that_is_dirty_without_orders_is_upserted_too() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot(covers=position(9))
    bench.sync.mark_dirty(bench.contact(ann), [])
    need = await bench.carry(bench.contact(ann), entry_of(1))
    assert need == Need(bench.contact(ann), position(1), NOW)


async def test_an_order_marked_dirty_during_an_upsert_is_upserted_with_the_next_batch() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    (contact,) = await bench.link(ann)
    bench.order_delivery.on_upsert = lambda: bench.sync.mark_dirty(contact, [OrderId(8)])
    await bench.carry(contact, entry_of(1, order=7))
    need = bench.sync.need(Batch(contact, [entry_of(1)]))
    assert need
    assert need.orders == {8}
