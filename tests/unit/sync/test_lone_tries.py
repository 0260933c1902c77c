"""Contacts that imports did not take: of many five are tried first, and say what becomes of the others."""

from __future__ import annotations

import pytest

from kiva_stream.model.ids import ContactId
from kiva_stream.sync.lone_tries import LoneTries, RefusedRow
from kiva_stream.sync.refusal_texts import blanked
from tests.unit.sync.builders import LINKED, NEW, REFUSED, Bench, emails, shop

PHONE = "+1 555 0100"


def test_texts_are_compared_without_digits_and_addresses() -> None:
    assert blanked("400 row 17: ann@example.org is bad") == blanked("400 row 3: [address] is bad")
    assert blanked("400 no") != blanked("400 not now")


@pytest.mark.parametrize("way", ["refused", "failing", "excluded"])
async def test_when_the_first_five_are_refused_alike_new_contacts_are_paused_and_nobody_is_rejected(
    way: str,
) -> None:
    customers, accounts = shop(10)
    bench = Bench(accounts, contacts_per_import=10)
    setattr(bench.contacts, way, set(emails(customers[:7])))
    bench.contacts.refused_alone, bench.contacts.refusal_alone = set(emails(customers)), "no"
    await bench.snapshot()
    assert [each.kind for each in bench.incidents.all()] == ["new_contacts"]
    assert bench.contacts.synced == emails(customers[:5])
    assert bench.statuses(customers) == [NEW] * 7 + [LINKED] * 3

    setattr(bench.contacts, way, set())
    bench.restart()
    await bench.snapshot()
    assert bench.statuses(customers) == [LINKED] * 10


async def test_five_or_fewer_are_each_tried() -> None:
    customers, accounts = shop(10)
    bench = Bench(accounts, contacts_per_import=10)
    bench.contacts.failing = bench.contacts.refused_alone = set(emails(customers[:5]))
    await bench.snapshot()
    assert bench.statuses(customers) == [REFUSED] * 5 + [LINKED] * 5


@pytest.mark.parametrize("way", ["refused", "failing", "excluded"])
async def test_when_one_of_the_first_five_is_accepted_all_are_tried(way: str) -> None:
    customers, accounts = shop(10)
    bench = Bench(accounts, contacts_per_import=10)
    setattr(bench.contacts, way, set(emails(customers[:9])))
    bench.contacts.refused_alone = set(emails(customers[:4]))
    await bench.snapshot()
    assert bench.statuses(customers) == [REFUSED] * 4 + [LINKED] * 6


async def test_new_and_known_contacts_are_tried_apart() -> None:
    customers, accounts = shop(14)
    bench = Bench(accounts[:7], contacts_per_import=14, import_min_contacts=1)
    await bench.snapshot()
    bench.customers.rows |= {each.customer.id: each for each in accounts[7:]}
    for each in customers[:7]:
        bench.customers.change(each, phone=PHONE)
    bench.contacts.failing = set(emails(customers))
    bench.contacts.refused_alone, bench.contacts.refusal_alone = set(emails(customers[7:])), "no"
    await bench.snapshot()
    assert [bench.shown(each).phone for each in customers[:7]] == [PHONE] * 7
    assert bench.statuses(customers[7:]) == [NEW] * 7


async def test_when_the_first_five_are_refused_each_for_a_value_of_its_own_all_are_tried() -> None:
    customers, accounts = shop(8)
    bench = Bench(accounts, contacts_per_import=10)
    bench.contacts.failing = set(emails(customers))
    bench.contacts.refused_alone_with = dict.fromkeys(emails(customers), "the e-mail is not valid")
    await bench.snapshot()
    assert bench.statuses(customers) == [REFUSED] * 8


async def test_when_the_first_five_are_refused_with_several_texts_the_others_are_held() -> None:
    customers, accounts = shop(8)
    bench = Bench(accounts, contacts_per_import=10)
    bench.contacts.failing = set(emails(customers))
    said = ("no", "not now", "no", "never", "no")
    bench.contacts.refused_alone_with = dict(zip(emails(customers), said, strict=False))
    await bench.snapshot()
    assert bench.statuses(customers) == [NEW] * 8
    assert bench.incidents.all() == []
    assert bench.contacts.synced == emails(customers[:5])


async def test_when_the_first_five_get_no_answer_the_others_are_not_said_to_follow_refusals() -> None:
    customers, accounts = shop(7)
    bench = Bench(accounts)
    await bench.link(*customers)
    rows = [RefusedRow(change) for change in bench.wanted(*customers)]
    tried: list[ContactId] = []

    async def attempt(row: RefusedRow) -> dict[ContactId, str]:
        tried.append(row.change.id)
        return {row.change.id: "500"}

    held = await LoneTries(bench.refusals).each(rows, attempt)
    assert len(tried) == 5
    assert list(held) == [row.change.id for row in rows]
    assert held[rows[-1].change.id] == "others before it were not taken: 500"
