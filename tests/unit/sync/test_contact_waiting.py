"""Contact sync: who waits for a contact and its orders, with whom, and until when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from kiva_stream.errors import AccountRefused, CheckpointError, SourceError
from kiva_stream.model.contacts import Contact, ContactStatus
from kiva_stream.model.customers import CustomerAccount
from kiva_stream.model.deliveries import Batch
from kiva_stream.model.ids import Email, OrderId
from tests.support.entries import account, customer
from tests.support.waiting import raises_one, until
from tests.unit.sync.builders import (
    LINKED,
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
LONG_AGO = datetime.min.replace(tzinfo=UTC)


async def test_contacts_that_are_ensured_at_the_same_time_share_an_import() -> None:
    customers, accounts = shop(4)
    bench = Bench(accounts)
    bench.contacts.gate = anyio.Event()
    contacts = await bench.link(*customers)
    async with bench.sync.working(), anyio.create_task_group() as group:
        group.start_soon(bench.sync.ensure, need_of(contacts[0]))
        await anyio.wait_all_tasks_blocked()
        for each in contacts[1:]:
            group.start_soon(bench.sync.ensure, need_of(each))
        await anyio.wait_all_tasks_blocked()
        bench.contacts.gate.set()
    assert bench.contacts.addresses() == [[customers[0].email], emails(customers[1:])]
    assert bench.statuses(customers) == [LINKED] * 4


async def test_more_contacts_than_an_import_takes_go_by_several_imports() -> None:
    customers, accounts = shop(5)
    bench = Bench(accounts)
    await bench.ensure(*map(need_of, await bench.link(*customers)))
    assert max(map(len, bench.contacts.addresses())) <= 3
    assert bench.imported() == emails(customers)


async def test_ensure_returns_only_when_the_import_completed() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    (contact,) = await bench.link(ann)
    bench.contacts.gate = anyio.Event()
    bench.contacts.reports = [RUNNING] * 3
    seen: list[ContactStatus] = []

    async def ensure() -> None:
        await bench.sync.ensure(need_of(contact))
        seen.append(contact.status)

    async with bench.sync.working(), anyio.create_task_group() as group:
        group.start_soon(ensure)
        await anyio.wait_all_tasks_blocked()
        assert seen == []
        bench.contacts.gate.set()
        await until(lambda: bench.contacts.asked)
        assert seen == []
    assert seen == [ContactStatus.LINKED]
    assert len(bench.contacts.asked) == 4


async def test_ensure_returns_only_when_the_orders_came_after_the_contact() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    (contact,) = await bench.link(ann)
    bench.order_delivery.gate = anyio.Event()
    came: list[tuple[ContactStatus, str]] = []
    bench.order_delivery.on_upsert = lambda: came.extend(bench.statuses([ann]))
    returned: list[str] = []

    async def ensure() -> None:
        await bench.sync.ensure(need_of(contact, 1, 7))
        returned.append("ensure")

    async with bench.sync.working(), anyio.create_task_group() as group:
        group.start_soon(ensure)
        await until(lambda: contact.status is ContactStatus.LINKED)
        await anyio.wait_all_tasks_blocked()
        assert returned == []
        bench.order_delivery.gate.set()
    assert returned == ["ensure"]
    assert came == [LINKED]
    assert bench.order_delivery.upserted == [[7]]


async def test_no_batch_waits_for_the_orders_of_other_contacts() -> None:
    customers, accounts = shop(2)
    bench = Bench(accounts)
    ann, bob = await bench.link(*customers)
    bench.order_delivery.gate = anyio.Event()
    async with bench.sync.working(), anyio.create_task_group() as group:
        group.start_soon(bench.sync.ensure, need_of(ann, 1, 7))
        with anyio.fail_after(10):
            await bench.sync.ensure(need_of(bob))
        assert bench.order_delivery.upserted == []
        bench.order_delivery.gate.set()
    assert bench.order_delivery.upserted == [[7]]


async def test_a_contact_that_is_as_it_should_be_does_not_wait_for_the_imports_of_others() -> None:
    customers, accounts = shop(9)
    bench = Bench(accounts[:1])
    await bench.snapshot()
    bench.customers.rows |= {each.customer.id: each for each in accounts}
    bench.contacts.gate = anyio.Event()
    async with bench.sync.working(), anyio.create_task_group() as group:
        for contact in await bench.link(*customers[1:]):
            group.start_soon(bench.sync.ensure, need_of(contact))
            await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(10):
            await bench.sync.ensure(need_of(bench.contact(customers[0])))
        assert len(bench.contacts.imports) == 1
        bench.contacts.gate.set()
    assert bench.statuses(customers) == [LINKED] * 9


async def test_the_ids_of_contacts_created_by_an_import_that_entries_waited_for_are_known() -> None:
    customers, accounts = shop(2)
    bench = Bench(accounts)
    await bench.ensure(*map(need_of, await bench.link(*customers)))
    assert [bench.linked(each).ac_id for each in customers] == [101, 102]
    assert bench.contacts.looked_up == []


async def test_a_contact_is_written_as_the_shop_has_it_then_and_not_as_when_its_entry_was_read() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot()
    need = bench.sync.need(Batch(bench.contact(ann), [entry_of(1)]))
    assert need
    bench.customers.change(ann, phone=PHONE)
    await bench.ensure(need)
    assert bench.shown(ann).phone == PHONE


async def test_a_contact_that_is_as_it_should_be_costs_no_request() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot()
    bench.contacts.imports.clear()
    await bench.carry(bench.contact(ann), entry_of(1))
    assert bench.contacts.imports == {}
    assert bench.contacts.calls == []


async def test_all_paid_orders_of_a_newcomer_are_upserted_and_of_others_those_that_entries_name() -> None:
    (ann, bob), accounts = shop(2)
    twin = customer(3, email=ann.email)
    bench = Bench([*accounts, account(twin)])
    bench.orders.paid = {ann.id: [OrderId(1), OrderId(2)], twin.id: [OrderId(3)], bob.id: [OrderId(4)]}
    anns, bobs, _ = await bench.link(ann, bob, twin)
    await bench.ensure(need_of(bobs))
    await bench.ensure(need_of(anns, 1, 9), need_of(bobs, 1, 5))
    assert sorted(bench.order_delivery.upserted) == [[1, 2, 3, 9], [4], [5]]


async def test_no_order_of_a_refused_contact_is_upserted() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    bench.contacts.refused = bench.contacts.refused_alone = {address(ann)}
    bench.orders.paid = {ann.id: [OrderId(1)]}
    (contact,) = await bench.link(ann)
    await bench.ensure(need_of(contact, 1, 7))
    assert bench.statuses([ann]) == [REFUSED]
    assert bench.order_delivery.upserted == []


async def test_an_upsert_of_no_contacts_makes_no_request() -> None:
    bench = Bench()
    await bench.sync.upsert([])
    assert bench.customers.asked == 0


@pytest.mark.parametrize(("age_s", "starts_automations"), [(3600, True), (3601, False), (-60, True)], ids=str)
async def test_a_contact_that_only_old_entries_wait_for_starts_no_automations(
    age_s: float, *, starts_automations: bool
) -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts, realtime_max_age_s=3600)
    (contact,) = await bench.link(ann)
    await bench.ensure(need_of(contact, inserted_at=NOW - timedelta(seconds=age_s)))
    assert bench.contacts.automations == {"import 1": starts_automations}


async def test_one_young_entry_among_those_of_an_import_starts_automations() -> None:
    customers, accounts = shop(4)
    bench = Bench(accounts)
    bench.contacts.gate = anyio.Event()
    contacts = await bench.link(*customers)
    async with bench.sync.working(), anyio.create_task_group() as group:
        group.start_soon(bench.sync.ensure, need_of(contacts[0], inserted_at=LONG_AGO))
        await anyio.wait_all_tasks_blocked()
        for each, newest in zip(contacts[1:], (LONG_AGO, NOW, LONG_AGO), strict=True):
            group.start_soon(bench.sync.ensure, need_of(each, inserted_at=newest))
        await anyio.wait_all_tasks_blocked()
        bench.contacts.gate.set()
    assert bench.contacts.automations == {"import 1": False, "import 2": True}


async def test_a_young_entry_starts_automations_in_its_own_import_only() -> None:
    customers, accounts = shop(4)
    bench = Bench(accounts)
    contacts = await bench.link(*customers)
    ages = (LONG_AGO, LONG_AGO, LONG_AGO, NOW)
    await bench.sync.upsert(
        [need_of(each, inserted_at=age) for each, age in zip(contacts, ages, strict=True)]
    )
    assert bench.contacts.automations == {"import 1": False, "import 2": True}


@pytest.mark.parametrize("change", [{"erased": True}, {"is_test": True}, {"email": Email("new@example.org")}])
async def test_a_contact_without_a_customer_of_its_address_is_rejected(change: dict[str, Any]) -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    (contact,) = await bench.link(ann)
    bench.customers.change(ann, **change)
    await bench.ensure(need_of(contact))
    assert bench.statuses([ann]) == [NOBODY_LEFT]
    assert bench.contacts.imports == {}


async def test_a_contact_whose_customers_are_gone_is_rejected() -> None:
    (ann,), _ = shop(1)
    bench = Bench()
    (contact,) = await bench.link(ann)
    await bench.ensure(need_of(contact))
    assert bench.statuses([ann]) == [NOBODY_LEFT]


async def test_when_the_account_is_refused_every_call_of_ensure_raises() -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts)
    contacts = await bench.link(*customers)
    bench.contacts.refuses_account = True
    refused: list[str] = []

    async def ensure(wanted: Contact) -> None:
        with raises_one(AccountRefused):
            await bench.sync.ensure(need_of(wanted))
        refused.append(wanted.email)

    async with bench.sync.working(), anyio.create_task_group() as group:
        for each in contacts:
            group.start_soon(ensure, each)
    assert sorted(refused) == emails(customers)
    assert bench.statuses(customers) == [NEW] * 3


async def test_after_a_failure_the_same_workers_serve_the_next_call_of_ensure() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    (contact,) = await bench.link(ann)
    bench.contacts.refuses_account = True
    async with bench.sync.working():
        for _ in range(9):  # more than work at once
            with raises_one(AccountRefused):
                await bench.sync.ensure(need_of(contact))
        bench.contacts.refuses_account = False
        await bench.sync.ensure(need_of(contact))
    assert bench.statuses([ann]) == [LINKED]


async def test_a_contact_whose_batch_is_cancelled_while_all_writers_are_busy_is_not_written() -> None:
    customers, accounts = shop(6)
    bench = Bench(accounts)
    contacts = await bench.link(*customers)
    bench.contacts.gate = anyio.Event()
    async with bench.sync.working(), anyio.create_task_group() as group:
        for contact in contacts[:-1]:
            group.start_soon(bench.sync.ensure, need_of(contact))
            await anyio.wait_all_tasks_blocked()
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as last:
                last.start_soon(bench.sync.ensure, need_of(contacts[-1]))
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
        bench.contacts.gate.set()
    assert bench.statuses(customers) == [LINKED] * 5 + [NEW]
    assert bench.imported() == emails(customers[:-1])


@pytest.mark.parametrize("broken", ["links", "shop"])
async def test_when_no_contact_can_be_looked_at_every_waiting_call_raises(broken: str) -> None:
    customers, accounts = shop(2)
    bench = Bench(accounts)
    contacts = await bench.link(*customers)
    if broken == "links":
        bench.links.fails = True
    else:
        bench.customers.accounts = gone  # type: ignore[assignment, method-assign]
    failed: list[str] = []

    async def ensure(wanted: Contact) -> None:
        with raises_one(CheckpointError if broken == "links" else SourceError):
            await bench.sync.ensure(need_of(wanted))
        failed.append(wanted.email)

    async with bench.sync.working(), anyio.create_task_group() as group:
        for each in contacts:
            group.start_soon(ensure, each)
    assert sorted(failed) == emails(customers)


async def gone(_ids: object) -> list[CustomerAccount]:
    """Implement Customers.accounts of a source that is gone."""
    raise SourceError("the source is gone")


async def test_a_contact_whose_batch_is_cancelled_before_it_is_looked_at_is_not_written() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    (contact,) = await bench.link(ann)
    async with anyio.create_task_group() as group:
        group.start_soon(bench.sync.ensure, need_of(contact))
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    async with bench.sync.working():
        await anyio.wait_all_tasks_blocked()
    assert bench.contacts.imports == {}
