"""A contact that gets no answer is held; all others of its import, and all that are written alone, go on."""

from __future__ import annotations

import anyio
import pytest

from kiva_stream.errors import RecordsHeld
from kiva_stream.model.contacts import ContactStatus
from kiva_stream.model.customers import Customer
from kiva_stream.model.ids import Email
from kiva_stream.model.positions import DAY1
from tests.support.virtual_time import now, run
from tests.support.waiting import until
from tests.unit.sync.builders import LINKED, NEW, Bench, address, need_of, shop

PHONE = "+1 555 0100"


def crowd(*silent: int) -> tuple[Bench, list[Customer]]:
    """Return eight customers, imported together, of whom these get no answer."""
    customers, accounts = shop(8)
    bench = Bench(accounts, contacts_per_import=9, import_min_contacts=4, retry_held_s=60)
    bench.contacts.silent = {address(customers[index]) for index in silent}
    return bench, customers


async def held_by(bench: Bench, *customers: Customer) -> set[int]:
    """Ensure the contacts of customers at the same time; return the ids of those that are held."""
    held: set[int] = set()

    async def ensure(who: Customer) -> None:
        try:
            await bench.sync.ensure(need_of(bench.contact(who)))
        except RecordsHeld as error:
            held.update(error.why)

    async with bench.sync.working(), anyio.create_task_group() as group:
        for each in customers:
            group.start_soon(ensure, each)
    return held


@pytest.mark.parametrize("silent", [(0,), (5,), (1, 6), (2, 3)])
def test_a_snapshot_ends_though_contacts_get_no_answer_and_all_others_are_linked(
    silent: tuple[int, ...],
) -> None:
    bench, customers = crowd(*silent)
    run(bench.sync.snapshot(DAY1, lambda _count: None))

    assert bench.statuses(customers) == [NEW if index in silent else LINKED for index in range(8)]


def test_of_contacts_that_are_ensured_together_only_the_silent_one_is_held() -> None:
    bench, customers = crowd(3)

    async def play() -> set[int]:
        await bench.link(*customers)
        return await held_by(bench, *customers)

    assert run(play()) == {bench.contact(customers[3]).id}
    assert bench.statuses(customers).count(LINKED) == 7


def test_a_changed_contact_alone_is_held_when_reads_were_answered_for_long_and_arrives_later() -> None:
    bench, customers = crowd()
    ann = customers[0]

    async def play() -> None:
        await bench.sync.snapshot(DAY1, lambda _count: None)
        bench.customers.change(ann, phone=PHONE)
        bench.contacts.silent = {address(ann)}
        began_at = now()
        assert await held_by(bench, ann) == {bench.contact(ann).id}
        assert now() - began_at >= 60
        assert bench.contact(ann).status is ContactStatus.LINKED
        bench.contacts.silent = set()
        bench.held_records.make_due()
        assert await held_by(bench, ann) == set()

    run(play())
    assert bench.shown(ann).phone == PHONE


@pytest.mark.parametrize("is_new", [True, False])
def test_a_contact_that_is_held_in_what_may_be_an_outage_is_due_when_another_one_is_answered(
    *, is_new: bool
) -> None:
    bench, (ann, bob, *_) = crowd()

    async def play() -> None:
        if is_new:
            await bench.link(ann, bob)
        else:
            await bench.sync.snapshot(DAY1, lambda _count: None)
        bench.contacts.silent = {address(ann)}
        for each in (ann, bob):
            bench.customers.change(each, phone=PHONE)
        assert await held_by(bench, ann) == {bench.contact(ann).id}
        bench.contacts.silent = set()
        assert await held_by(bench, ann) == {bench.contact(ann).id}  # not yet
        assert await held_by(bench, bob) == set()
        assert await held_by(bench, ann) == set()

    run(play())


def test_in_an_outage_no_contact_is_held() -> None:
    bench, customers = crowd()
    bench.contacts.is_silent, bench.contacts.reads_are_answered = True, False

    async def play() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(bench.sync.snapshot, DAY1, lambda _count: None)
            await anyio.sleep(600)
            bench.contacts.is_silent = False

    run(play())
    assert bench.statuses(customers) == [LINKED] * 8


def test_a_move_to_an_address_that_gets_no_answer_is_left_to_the_next_try_of_the_contact() -> None:
    bench, customers = crowd()
    ann = customers[0]

    async def play() -> None:
        await bench.sync.snapshot(DAY1, lambda _count: None)
        bench.contacts.add(Email("new@example.org"))  # so that the customer is relinked
        bench.contacts.silent = {Email("new@example.org")}
        bench.customers.change(ann, email="new@example.org")
        await bench.sync.move({ann.id: Email("new@example.org")})
        assert bench.contact(ann).status is ContactStatus.NEW
        bench.contacts.silent = set()
        bench.held_records.make_due()
        assert await held_by(bench, ann) == set()

    run(play())
    assert bench.contact(ann).status is ContactStatus.LINKED


async def snapshot_of(bench: Bench) -> None:
    await bench.sync.snapshot(DAY1, lambda _count: None)


def test_an_opt_out_that_gets_no_answer_holds_its_contact_alone_and_is_made_when_that_is_over() -> None:
    bench, customers = crowd()
    ann, bob = customers[:2]

    async def play() -> None:
        await snapshot_of(bench)
        for each in (ann, bob):
            bench.customers.change(each, email_opt_in=False)
        bench.contacts.silent, bench.contacts.silent_call = {address(ann)}, "set_list"
        assert await held_by(bench, ann, bob) == {bench.contact(ann).id}
        assert [bench.at_ac(each).is_on_list for each in (ann, bob)] == [True, False]
        bench.contacts.silent = set()
        bench.held_records.make_due()
        assert await held_by(bench, ann, bob) == set()

    run(play())
    assert bench.at_ac(ann).is_on_list is False


def test_an_opt_out_without_an_answer_keeps_none_of_its_import_from_being_written() -> None:
    bench, customers = crowd()
    ann, *others = customers

    async def play() -> None:
        await snapshot_of(bench)
        for each in customers:
            bench.customers.change(each, email_opt_in=each not in {ann, others[0]}, phone=PHONE)
        bench.contacts.silent, bench.contacts.silent_call = {address(ann)}, "set_list"
        await snapshot_of(bench)
        assert [bench.shown(each).phone for each in customers] == ["", *[PHONE] * 7]
        bench.contacts.silent = set()
        bench.held_records.make_due()
        assert await held_by(bench, ann) == set()

    run(play())
    assert bench.at_ac(ann).is_on_list is False
    assert bench.shown(ann).phone == PHONE


def test_a_snapshot_goes_on_though_a_contact_that_nobody_counts_for_cannot_be_taken_off_the_list() -> None:
    bench, customers = crowd()
    ann, *others = customers

    async def play() -> None:
        await snapshot_of(bench)
        bench.customers.change(ann, erased=True, email=None)
        for each in others:
            bench.customers.change(each, phone=PHONE)
        bench.contacts.silent = {address(ann)}
        await snapshot_of(bench)
        assert {bench.shown(each).phone for each in others} == {PHONE}
        bench.contacts.silent = set()
        bench.held_records.make_due()
        await snapshot_of(bench)

    run(play())
    assert bench.at_ac(ann).is_on_list is False


def test_a_new_address_that_gets_no_answer_has_the_customer_relinked_in_some_seconds() -> None:
    bench, customers = crowd()
    ann, new = customers[0], Email("new@example.org")

    async def play() -> None:
        await snapshot_of(bench)
        bench.contacts.silent, bench.contacts.silent_call = {new}, "rename"
        bench.customers.change(ann, email=new)
        began_at = now()
        await bench.sync.move({ann.id: new})
        assert now() - began_at < 60

    run(play())
    assert bench.contact(ann).email == new
    assert bench.contacts.at(new).customer_id == str(ann.id)
    assert bench.contacts.at(address(ann)).customer_id == ""


def test_a_new_address_whose_answer_was_lost_is_the_contact_s() -> None:
    bench, customers = crowd()
    ann, new = customers[0], Email("new@example.org")

    async def play() -> None:
        await snapshot_of(bench)
        there = bench.contacts.id_of(address(ann))
        bench.contacts.silent, bench.contacts.silent_call = {new}, "rename"
        bench.contacts.applies_silent = True
        bench.customers.change(ann, email=new)
        await bench.sync.move({ann.id: new})
        assert bench.contacts.id_of(new) == there
        assert bench.contacts.id_of(address(ann)) is None

    run(play())
    assert bench.contact(ann).email == new


def test_a_contact_that_all_left_and_that_gets_no_answer_stops_no_move() -> None:
    bench, customers = crowd()
    ann, bob = customers[:2]

    async def play() -> None:
        await snapshot_of(bench)
        bench.contacts.silent = {address(ann)}
        bench.customers.change(ann, email=address(bob))
        await bench.sync.move({ann.id: address(bob)})

    run(play())
    assert bench.contact(ann) is bench.contact(bob)
    assert bench.contacts.at(address(ann)).customer_id == str(ann.id)


def test_an_import_gives_its_innocents_free_while_it_searches_the_culprit() -> None:
    bench, customers = crowd(7)
    unanswered: list[int] = []

    async def write_meanwhile() -> None:
        await until(lambda: bench.contacts.unanswered)
        async with bench.locks.hold([bench.contact(customers[0]).id]):
            unanswered.append(len(bench.contacts.unanswered))

    async def play() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(write_meanwhile)
            await snapshot_of(bench)
        unanswered.append(len(bench.contacts.unanswered))

    run(play())
    at_release, in_all = unanswered
    assert at_release < in_all
