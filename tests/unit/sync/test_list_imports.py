"""Contacts that came by a request of their own get on the list by an import, until when they count as off."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest
from msgspec.structs import replace

from kiva_stream.errors import Unanswered
from kiva_stream.model.contacts import Contact, ContactRecord, ContactStatus, DesiredContact, NotOnList
from kiva_stream.model.ids import AcId, ContactId, Email
from kiva_stream.model.positions import DAY1
from kiva_stream.sync.contact_changes import ContactChange
from kiva_stream.sync.list_imports import is_to_be_put
from tests.support.entries import account
from tests.support.virtual_time import run
from tests.unit.sync.builders import LINKED, Bench, address, emails, need_of, shop

BAD = "400 Bad Request"


# The rule


async def test_one_that_came_alone_and_wants_the_list_is_put_there() -> None:
    (change,) = await wanted(opt_in=True)
    assert is_to_be_put(change.record, change)


async def test_one_that_an_import_brought_or_that_was_on_another_list_is_not_put_there() -> None:
    (change,) = await wanted(opt_in=True)
    for why in (None, NotOnList.OTHER_LIST):
        assert not is_to_be_put(replace(change.record, not_on_list=why), change)


async def test_one_that_opted_out_is_not_put_there() -> None:
    (change,) = await wanted(opt_in=False)
    assert not is_to_be_put(change.record, change)


async def test_one_whose_change_is_refused_waits() -> None:
    (change,) = await wanted(opt_in=True)
    assert not is_to_be_put(replace(change.record, refused_fingerprint=b"change"), change)


async def wanted(*, opt_in: bool) -> list[ContactChange]:
    """Return the change of a new contact, and its record after it came alone."""
    (ann,), _ = shop(1)
    bench = Bench([account(ann, email_opt_in=opt_in)])
    await bench.link(ann)
    linked = Contact(ContactId(1), Email("ann@example.org"), ContactStatus.LINKED)
    record = ContactRecord(linked, (ann.id,), b"sent", AcId(7), not_on_list=NotOnList.CAME_ALONE)
    return [change._replace(record=record) for change in bench.wanted(ann)]


# What becomes of contacts


def refuse_values(rows: Sequence[DesiredContact]) -> str:
    return BAD if any(row.status is not None for row in rows) else ""


async def test_one_that_came_by_a_request_of_its_own_is_put_on_the_list_by_an_import_of_its_address() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    bench.contacts.refuses_import = refuse_values
    await bench.snapshot()
    assert bench.contacts.calls == [f"sync {ann.email}"]
    assert bench.at_ac(ann).is_on_list
    assert list(bench.at_ac(ann).tags) == [bench.linked(ann).tag]
    assert bench.linked(ann).not_on_list is None

    sent = len(bench.contacts.imports), len(bench.contacts.synced)
    await bench.snapshot()
    assert (len(bench.contacts.imports), len(bench.contacts.synced)) == sent


async def test_one_whose_address_imports_refuse_counts_as_not_on_the_list_until_a_later_snapshot() -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts)
    bench.contacts.refuses_import = lambda rows: (
        BAD if any(row.email == customers[1].email for row in rows) else ""
    )
    await bench.snapshot()
    assert bench.statuses(customers) == [LINKED] * 3
    assert bench.at_ac(customers[1]).is_on_list is None
    assert bench.linked(customers[1]).not_on_list is NotOnList.CAME_ALONE
    assert bench.linked(customers[1]).tag is None
    assert [bench.linked(each).not_on_list for each in (customers[0], customers[2])] == [None, None]

    bench.contacts.refuses_import = lambda _rows: ""
    bench.restart()
    await bench.snapshot()
    assert bench.at_ac(customers[1]).is_on_list
    assert bench.linked(customers[1]).not_on_list is None
    assert bench.contacts.synced == [customers[1].email]
    assert bench.contacts.list_calls == []


async def test_one_that_failed_since_it_left_the_list_is_not_put_there_and_no_import_is_tried() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    bench.contacts.add(address(ann))
    bench.contacts.at(address(ann)).put_on_list(subscribed=False)
    await bench.snapshot()
    assert bench.contacts.synced == [ann.email]
    assert len(bench.contacts.imports) == 1
    assert bench.at_ac(ann).is_on_list is False
    assert bench.linked(ann).not_on_list is None


async def test_those_that_failed_are_put_on_the_list_together() -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts)
    bench.contacts.failing = set(emails(customers))
    await bench.snapshot()
    assert bench.contacts.addresses() == [emails(customers)] * 2
    assert [bench.linked(each).not_on_list for each in customers] == [NotOnList.CAME_ALONE] * 3
    assert [bench.linked(each).tag for each in customers] == [None] * 3


async def test_five_whose_address_imports_refuse_do_not_count_against_the_account_at_the_next_snapshot() -> (
    None
):
    customers, accounts = shop(6)
    bench = Bench(accounts, contacts_per_import=12)
    bench.contacts.refuses_import = lambda rows: (
        BAD if any(row.email in emails(customers[:5]) for row in rows) else ""
    )
    await bench.snapshot()
    assert bench.statuses(customers) == [LINKED] * 6
    await bench.snapshot()
    off = [bench.linked(each).not_on_list for each in customers]
    assert off == [NotOnList.CAME_ALONE] * 5 + [None]


async def test_an_upsert_that_is_asked_for_tries_again() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    bench.contacts.failing = {address(ann)}
    await bench.snapshot()
    bench.contacts.failing = set()
    await bench.sync.upsert([need_of(bench.contact(ann))])
    assert bench.at_ac(ann).is_on_list
    assert bench.linked(ann).not_on_list is None


@pytest.mark.parametrize("answers", [False, True])
async def test_one_that_opted_out_meanwhile_is_not_put_there(*, answers: bool) -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    bench.contacts.failing = {address(ann)}
    await bench.snapshot()
    bench.contacts.failing = set()
    bench.customers.change(ann, email_opt_in=False)
    bench.contacts.refused_alone = set() if answers else {address(ann)}
    await bench.snapshot()
    assert bench.at_ac(ann).is_on_list is (False if answers else None)
    assert len(bench.contacts.imports) == 2


def test_one_whose_place_gets_no_answer_is_put_there_by_an_import() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts, retry_held_s=1)
    bench.contacts.add(address(ann))
    bench.contacts.failing = {address(ann)}
    bench.contacts.list_place = unanswered  # type: ignore[assignment, method-assign]
    bench.restart()

    async def play() -> None:
        await bench.sync.snapshot(DAY1, lambda _count: None)
        bench.contacts.failing = set()
        await bench.sync.snapshot(DAY1, lambda _count: None)

    run(play())
    assert bench.at_ac(ann).is_on_list
    assert bench.linked(ann).not_on_list is None


async def unanswered(_contact: AcId, **_: object) -> bool | None:
    """Implement Contacts.list_place of an account that gives no answer."""
    await anyio.sleep(1)
    raise Unanswered("500")
