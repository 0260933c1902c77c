"""An import that is refused without naming a row: who is at fault is found by halving; the others arrive."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import pytest

from kiva_stream.errors import KindRefused, RecordsHeld
from kiva_stream.model.contacts import DesiredContact
from kiva_stream.model.ids import ContactId
from kiva_stream.sync.contact_changes import ContactChange
from kiva_stream.sync.import_refusals import LastTries, Refusal, is_all_refused, refused_alone, spread
from tests.support.virtual_time import run
from tests.support.waiting import raises_one
from tests.unit.sync.builders import LINKED, NEW, REFUSED, Bench, address, emails, need_of, shop

BAD = "400 Bad Request"

Refuses = Callable[[Sequence[DesiredContact]], str]


def of_address(*addresses: str | None, said: str = BAD) -> Refuses:
    """Refuse imports with one of these addresses."""
    return lambda rows: said if any(row.email in addresses for row in rows) else ""


# The rules


async def test_both_halves_refused_with_the_same_text_may_be_about_the_account() -> None:
    bench = Bench(shop(4)[1])
    customers, _ = shop(4)
    await bench.link(*customers)
    part = bench.wanted(*customers)
    first, second = part[:2], part[2:]
    assert is_all_refused(part, [Refusal(first, "400 row 1"), Refusal(second, "400 row 2")])
    assert not is_all_refused(part, [Refusal(first, "400 row 1"), Refusal(second, "400 no")])
    assert not is_all_refused(part, [Refusal(first, "400 row 1")])
    assert not is_all_refused(part, [Refusal(first, "400 row 1"), Refusal(second[:1], "400 row 2")])
    assert spread(part, 5) == part
    assert spread(part, 2) == [part[0], part[3]]


async def test_a_part_of_which_one_is_held_and_none_accepted_may_still_be_about_the_account() -> None:
    customers, accounts = shop(16)
    bench = Bench(accounts)
    await bench.link(*customers)
    changes = bench.wanted(*customers)
    probed: list[ContactId] = []

    async def send(parts: Sequence[Sequence[ContactChange]]) -> list[Refusal]:
        """Refuse all but the first contact, which gets no answer once it is in a half."""
        silent = changes[0].id if len(parts) > 1 else None
        left = [[each for each in part if each.id != silent] for part in parts]
        return [Refusal(part, BAD) for part in left if part]

    async def probe(change: ContactChange) -> str:
        probed.append(change.id)
        return BAD

    with pytest.raises(KindRefused):
        await refused_alone(changes, send, probe, accepted=set())
    assert len(probed) == 5


async def test_one_contact_with_its_address_alone_that_is_refused_with_a_known_text_is_enough() -> None:
    customers, accounts = shop(8)
    bench = Bench(accounts, contacts_per_import=8)
    bench.contacts.refuses_import = lambda _rows: "You have reached your contact limit."
    await bench.snapshot()
    assert [len(each) for each in bench.contacts.refused_imports] == [8, 4, 4, 1]
    assert [each.kind for each in bench.incidents.all()] == ["new_contacts"]
    assert bench.statuses(customers) == [NEW] * 8
    assert bench.contacts.synced == []


def test_of_one_text_so_many_contacts_are_sent_by_themselves_until_an_import_takes_them() -> None:
    tries = LastTries(2)
    one, two, three = map(ContactId, (1, 2, 3))
    assert [tries.takes(each, f"no {each}") for each in (one, two, three, one)] == [True, True, False, True]
    assert tries.takes(three, "not now")
    tries.taken(one)
    assert tries.takes(three, "no 4")


# What becomes of contacts


@pytest.mark.parametrize("bad", [(0,), (7,), (2, 3), (1, 6), (0, 4, 7)])
async def test_contacts_that_imports_are_refused_for_are_sent_by_themselves_and_all_others_are_imported(
    bad: tuple[int, ...],
) -> None:
    customers, accounts = shop(8)
    bench = Bench(accounts, contacts_per_import=8)
    bench.contacts.refuses_import = of_address(*(customers[index].email for index in bad))
    await bench.snapshot()
    assert bench.statuses(customers) == [LINKED] * 8
    assert sorted(bench.contacts.synced) == [address(customers[index]) for index in bad]


async def test_a_contact_that_is_refused_by_itself_too_is_rejected_with_the_reply() -> None:
    customers, accounts = shop(8)
    bench = Bench(accounts, contacts_per_import=8)
    bench.contacts.refuses_import = of_address(customers[5].email)
    bench.contacts.refused_alone_with = {address(customers[5]): "the e-mail is not valid"}
    await bench.snapshot()
    assert bench.statuses(customers) == [LINKED] * 5 + [REFUSED] + [LINKED] * 2
    assert bench.contact(customers[5]).reply == "the e-mail is not valid"


async def test_a_pointer_to_an_optional_field_costs_the_value_of_the_one_that_has_it() -> None:
    customers, accounts = shop(8)
    bench = Bench(accounts, contacts_per_import=8)
    for each in customers:
        bench.customers.change(each, phone="+1 555 0100")
    bench.customers.change(customers[3], phone="bad phone")
    bench.contacts.refuses_import = lambda rows: (
        '422 {"errors":[{"source":{"pointer":"\\\\/data\\\\/attributes\\\\/phone"}}]}'
        if any(row.phone == "bad phone" for row in rows)
        else ""
    )
    await bench.snapshot()
    assert bench.statuses(customers) == [LINKED] * 8
    assert [not bench.shown(each).phone for each in customers].index(True) == 3
    assert bench.contacts.synced == []
    assert bench.at_ac(customers[3]).is_on_list


async def test_when_contacts_with_their_address_alone_are_refused_the_account_is_at_fault() -> None:
    customers, accounts = shop(8)
    bench = Bench(accounts, contacts_per_import=8)
    bench.contacts.refuses_import = lambda _rows: BAD
    await bench.snapshot()
    assert [len(each) for each in bench.contacts.refused_imports] == [8, 4, 4, 1, 1, 1, 1, 1]
    assert [each.kind for each in bench.incidents.all()] == ["new_contacts"]
    assert bench.statuses(customers) == [NEW] * 8
    assert bench.contacts.synced == []

    bench.contacts.refuses_import = lambda _rows: ""
    bench.restart()
    await bench.snapshot()
    assert bench.statuses(customers) == [LINKED] * 8


async def test_when_empty_fields_are_refused_a_field_is_gone_and_nobody_is_sent_without_it() -> None:
    customers, accounts = shop(8)
    bench = Bench(accounts, contacts_per_import=8)
    bench.contacts.refuses_import = lambda rows: BAD if any(row.status is not None for row in rows) else ""
    await bench.snapshot()
    assert bench.contacts.synced == []
    (accepted,) = bench.contacts.imports.values()
    assert len(accepted) == 1
    assert [each.kind for each in bench.incidents.all()] == ["new_contacts", "contacts"]
    imports = len(bench.contacts.refused_imports)
    await bench.snapshot()
    assert len(bench.contacts.refused_imports) == imports

    bench.contacts.refuses_import = lambda _rows: ""
    bench.restart()
    await bench.snapshot()
    assert bench.statuses(customers) == [LINKED] * 8
    assert [bench.shown(each).status for each in customers] == ["active"] * 8


def test_while_a_custom_field_is_gone_the_probe_is_not_sent_without_the_import() -> None:
    customers, accounts = shop(8)

    async def play() -> None:
        bench = Bench(accounts, contacts_per_import=8)
        bench.contacts.refuses_import = lambda rows: (
            BAD if any(row.status is not None for row in rows) else ""
        )
        await bench.snapshot()
        for _ in range(3):
            await anyio.sleep(bench.settings.retry_refused_s)
            probes = bench.sync.take_due()
            assert len(probes) == 2  # a new contact, and one that was imported with its address alone
            for each in customers:
                if bench.contact(each).id in probes:
                    with raises_one(RecordsHeld):
                        await bench.ensure(need_of(bench.contact(each)))
        assert bench.contacts.synced == []
        assert [each.kind for each in bench.incidents.all()] == ["new_contacts", "contacts"]

        await anyio.sleep(bench.settings.retry_refused_s)
        bench.contacts.refuses_import = of_address(customers[7].email)  # the field is there again
        probes = bench.sync.take_due()
        for each in customers:
            if bench.contact(each).id in probes:
                await bench.ensure(need_of(bench.contact(each)))
        await bench.snapshot()
        assert bench.contacts.synced == [address(customers[7])]
        assert bench.incidents.all() == []

    run(play())


async def test_when_a_contact_with_empty_fields_is_accepted_each_that_is_at_fault_is_found() -> None:
    customers, accounts = shop(8)
    bench = Bench(accounts, contacts_per_import=8)
    bench.contacts.refuses_import = lambda rows: BAD if any(row.customer_id for row in rows) else ""
    await bench.snapshot()
    assert bench.statuses(customers) == [LINKED] * 8
    assert sorted(bench.contacts.synced) == emails(customers)


async def test_of_one_text_import_failure_min_are_sent_by_themselves_and_the_others_are_held() -> None:
    customers, accounts = shop(8)
    bench = Bench(accounts, contacts_per_import=8, import_failure_min=2)
    bench.contacts.refuses_import = of_address(*emails(customers[:4]))
    await bench.snapshot()
    assert bench.statuses(customers).count(LINKED) == 6
    assert bench.statuses(customers).count(NEW) == 2
    assert len(bench.contacts.synced) == 2

    bench.contacts.refuses_import = lambda _rows: ""
    bench.held_records.make_due()
    await bench.snapshot()
    assert bench.statuses(customers) == [LINKED] * 8
    assert len(bench.contacts.synced) == 2


async def test_an_import_that_is_not_completed_is_sent_again_then_halved_and_who_is_at_fault_is_held() -> (
    None
):
    customers, accounts = shop(8)
    bench = Bench(accounts, contacts_per_import=8)
    bench.contacts.interrupting = {address(customers[2])}
    await bench.snapshot()
    assert bench.statuses(customers) == [LINKED] * 2 + [NEW] + [LINKED] * 5
    sizes = [len(each) for each in bench.contacts.addresses()]
    assert sizes == [8, 8, 4, 4, 2, 2, 1, 1, 1]
    assert bench.links.imports == {}

    bench.contacts.interrupting = set()
    bench.held_records.make_due()
    await bench.snapshot()
    assert bench.statuses(customers) == [LINKED] * 8
