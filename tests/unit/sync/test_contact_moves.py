"""Contact moves: customers whose address changed come to the contact they belong to now.

A contact is renamed, another one adopted, a shared one left to the others; nobody's contact is cleared.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from kiva_stream.model.customers import Customer
from kiva_stream.model.ids import CustomerId, Email, OrderId
from kiva_stream.model.week_tags import WeekTag
from tests.support.entries import account, customer
from tests.support.virtual_time import run
from tests.unit.sync.builders import LINKED, NEW, REFUSED, Bench, address, emails, entry_of, shop

FREE = Email("free@example.org")
OTHER = Email("other@example.org")
ANN, BOB, TWIN = customer(1), customer(2), customer(3, email=customer(1).email)
ANNS, BOBS = address(ANN), address(BOB)
MAX_TURNS = 200


async def linked(*, twin: bool = False) -> Bench:
    """Return the bench of linked customers: Ann, Bob, and perhaps one who shares Ann's address."""
    people = [ANN, BOB, TWIN] if twin else [ANN, BOB]
    bench = Bench(map(account, people))
    await bench.snapshot()
    bench.restart()
    return bench


def assert_nobodys(bench: Bench, email: Email) -> None:
    """Check that the contact of an address is still there, without customer id and week tag, and unlinked."""
    left = bench.contacts.at(email)
    assert left.customer_id == ""
    assert left.tags == {}
    link = bench.links.linked(bench.links.by_email[email])
    assert (link.contact.status, link.contact.why) == NEW
    assert (link.customers, link.fingerprint, link.tag) == ((), None, None)
    assert link.contact.id not in bench.links.due


# A contact of one's own is renamed


async def test_a_contact_of_one_customer_gets_their_new_address() -> None:
    bench = await linked()
    contact, ac_id = bench.contact(ANN), bench.contacts.id_of(ANNS)
    await bench.move(ANN, FREE)
    assert bench.contacts.calls == [f"rename {ANNS} {FREE}"]
    assert bench.contacts.id_of(FREE) == ac_id
    assert bench.contact(ANN) is contact
    assert (contact.email, bench.statuses([ANN])) == (FREE, [LINKED])
    assert list(bench.at_ac(ANN).tags) == [WeekTag.NONE]


async def test_a_customer_who_opted_out_stays_off_the_list_at_their_new_address() -> None:
    bench = Bench([account(ANN, email_opt_in=False)])
    await bench.snapshot()
    await bench.move(ANN, FREE)
    await bench.carry(bench.contact(ANN), entry_of(1))
    assert bench.at_ac(ANN).is_on_list is False
    assert bench.list_statuses() == ["unsubscribe"]


async def test_an_address_that_went_and_came_back_is_the_final_one_of_the_one_contact() -> None:
    bench = await linked()
    contact, ac_id = bench.contact(ANN), bench.contacts.id_of(ANNS)
    await bench.move(ANN, FREE)
    await bench.move(ANN, ANNS)
    await bench.carry(bench.contact(ANN), entry_of(1))
    assert bench.contact(ANN) is contact
    assert contact.email == ANNS
    assert bench.contacts.id_of(ANNS) == ac_id
    assert bench.contacts.id_of(FREE) is None
    assert bench.contacts.synced == []  # it shows what it should, as it did before


async def test_a_customer_who_has_the_contacts_address_already_is_not_moved() -> None:
    bench = await linked()
    with anyio.fail_after(10):
        await bench.sync.move({ANN.id: ANNS, CustomerId(99): FREE})
        await bench.sync.move({})
    assert bench.contacts.calls == []
    assert bench.contacts.looked_up == []


async def test_customers_who_share_a_contact_and_move_together_keep_sharing_it() -> None:
    bench = await linked(twin=True)
    contact = bench.contact(ANN)
    bench.customers.change(TWIN, email=FREE)
    await bench.move(ANN, FREE)
    assert bench.contact(ANN) is bench.contact(TWIN) is contact
    assert bench.contacts.calls == [f"rename {ANNS} {FREE}"]


async def test_a_contact_whose_id_is_not_known_is_found_by_the_old_address() -> None:
    bench = await linked()
    bench.links.ac_ids.clear()
    await bench.move(ANN, FREE)
    assert bench.contacts.looked_up == [ANNS]
    assert bench.contacts.renamed == [(ANNS, FREE)]


async def test_a_contact_that_activecampaign_lost_is_created_anew_by_a_move() -> None:
    bench = await linked()
    bench.contacts.there.pop(bench.links.ac_ids.pop(bench.contact(ANN).id))
    await bench.move(ANN, FREE)
    assert bench.contacts.calls == []
    assert bench.contacts.addresses()[1:] == [[FREE]]
    assert bench.statuses([ANN]) == [LINKED]
    assert bench.links.by_email[ANNS] not in bench.links.by_customer.values()


async def test_a_contact_whose_id_activecampaign_lost_is_created_anew_by_a_move() -> None:
    bench = await linked()
    bench.contacts.there.pop(bench.links.ac_ids[bench.contact(ANN).id])
    bench.contacts.refused_alone = {ANNS}
    await bench.move(ANN, FREE)
    assert bench.contacts.addresses()[1:] == [[FREE]]
    assert bench.statuses([ANN]) == [LINKED]
    assert bench.links.by_email[ANNS] not in bench.links.by_customer.values()


# Where another contact has the address, it is adopted


async def test_the_contact_of_ours_that_has_the_new_address_is_joined() -> None:
    bench = await linked()
    bobs = bench.contact(BOB)
    bench.customers.change(ANN, first_name="Anna")
    await bench.move(ANN, BOBS)
    assert bench.contact(ANN) is bench.contact(BOB) is bobs
    assert bench.shown(BOB).first_name == "Anna"  # of two that are active, the lower id is shown
    assert len(bench.contacts.there) == 2
    assert_nobodys(bench, ANNS)


async def test_a_joined_contact_is_due_for_its_week_tag_and_the_movers_orders_are_upserted() -> None:
    bench = await linked()
    bench.links.due.clear()
    bench.orders.paid = {ANN.id: [OrderId(1), OrderId(2)], BOB.id: [OrderId(3)]}
    await bench.move(ANN, BOBS)
    assert list(bench.links.due) == [bench.contact(BOB).id]
    assert bench.order_delivery.upserted == [[1, 2]]


async def test_a_foreign_contact_that_has_the_new_address_is_adopted_as_it_is() -> None:
    bench = await linked()
    taken = bench.contacts.add(FREE)
    with capture_logs() as lines:
        await bench.move(ANN, FREE)
    assert bench.contacts.renamed == []
    assert bench.linked(ANN).ac_id == taken
    assert bench.statuses([ANN]) == [LINKED]
    assert bench.shown(ANN).customer_id == str(ANN.id)
    assert [each.tag for each in bench.contacts.imports["import 2"]] == [None]
    assert len(bench.contacts.there) == 3
    assert [line["log_level"] for line in lines] == ["info"]
    assert "example.org" not in str(lines)
    assert_nobodys(bench, ANNS)


async def test_an_adopted_contact_that_had_unsubscribed_is_not_subscribed() -> None:
    bench = await linked()
    bench.contacts.there[bench.contacts.add(FREE)].put_on_list(subscribed=False)
    await bench.move(ANN, FREE)
    assert bench.statuses([ANN]) == [LINKED]
    assert bench.at_ac(ANN).is_on_list is False


async def test_a_customer_who_opted_out_unsubscribes_the_contact_they_join() -> None:
    bench = Bench([account(ANN, email_opt_in=False), account(BOB)])
    await bench.snapshot()
    await bench.move(ANN, BOBS)
    assert bench.at_ac(BOB).is_on_list is False


async def test_the_adopted_contact_shows_all_before_the_move_is_done_and_as_young_as_it_is() -> None:
    bench = await linked()
    bench.contacts.add(FREE)
    await bench.move(ANN, FREE)
    assert bench.contacts.automations == {"import 1": False, "import 2": True}


async def test_when_the_new_contact_is_refused_the_old_one_is_dissolved_all_the_same() -> None:
    bench = await linked()
    bench.contacts.refused_alone = bench.contacts.refused = {FREE}
    with capture_logs() as lines:
        await bench.move(ANN, FREE)
    assert bench.statuses([ANN]) == [REFUSED]
    assert [(line["log_level"], line["contact"]) for line in lines] == [("warning", 1)]
    assert "example.org" not in str(lines)
    assert bench.order_delivery.upserted == []
    assert_nobodys(bench, ANNS)


async def test_a_customer_who_left_a_contact_and_returns_to_its_address_has_it_again() -> None:
    bench = await linked()
    contact, ac_id = bench.contact(ANN), bench.contacts.id_of(ANNS)
    bench.orders.paid = {ANN.id: [OrderId(1)]}
    await bench.move(ANN, BOBS)
    await bench.move(ANN, ANNS)
    assert bench.contact(ANN) is contact
    assert bench.linked(ANN).ac_id == ac_id
    assert bench.statuses([ANN, BOB]) == [LINKED] * 2
    assert [bench.at_ac(each).customer_id for each in (ANN, BOB)] == ["1", "2"]
    assert bench.order_delivery.upserted == [[1], [1]]


async def test_customers_who_swap_addresses_have_each_others_contact() -> None:
    bench = await linked()
    anns, bobs = bench.contact(ANN), bench.contact(BOB)
    bench.customers.change(ANN, email=BOBS)
    await bench.move(BOB, ANNS)
    assert (bench.contact(ANN), bench.contact(BOB)) == (bobs, anns)
    assert [bench.at_ac(each).customer_id for each in (ANN, BOB)] == ["1", "2"]


# Who shared a contact leaves it to the others


async def test_a_customer_who_moves_leaves_a_shared_contact_to_the_other_and_gets_another() -> None:
    bench = await linked(twin=True)
    contact, ac_id = bench.contact(TWIN), bench.contacts.id_of(ANNS)
    await bench.move(ANN, FREE)
    assert (bench.contacts.renamed, bench.contacts.disowned) == ([], [])
    assert bench.contact(TWIN) is contact
    assert bench.contacts.id_of(ANNS) == ac_id
    assert [bench.at_ac(each).customer_id for each in (ANN, TWIN)] == ["1", "3"]
    assert bench.statuses([ANN, TWIN]) == [LINKED] * 2


async def test_when_a_customer_leaves_a_shared_contact_both_are_due_and_their_orders_are_upserted() -> None:
    bench = await linked(twin=True)
    bench.links.due.clear()
    bench.orders.paid = {ANN.id: [OrderId(1)], TWIN.id: [OrderId(3)]}
    await bench.move(ANN, FREE)
    assert set(bench.links.due) == {bench.contact(ANN).id, bench.contact(TWIN).id}
    assert bench.order_delivery.all == {1}


async def test_a_customer_who_leaves_a_shared_contact_joins_the_contact_of_the_new_address() -> None:
    bench = await linked(twin=True)
    await bench.move(TWIN, BOBS)
    assert bench.contact(TWIN) is bench.contact(BOB)
    assert bench.at_ac(ANN).customer_id == "1"
    assert (bench.contacts.renamed, bench.contacts.disowned) == ([], [])


async def test_when_two_customers_leave_for_two_addresses_the_first_takes_the_contact_along() -> None:
    bench = await linked(twin=True)
    ac_id = bench.contacts.id_of(ANNS)
    bench.customers.change(TWIN, email=OTHER)
    await bench.move(ANN, FREE)
    assert bench.contacts.renamed == [(ANNS, FREE)]
    assert bench.contacts.id_of(FREE) == ac_id
    assert bench.contact(TWIN).email == OTHER
    assert [bench.at_ac(each).customer_id for each in (ANN, TWIN)] == ["1", "3"]


async def test_when_the_first_finds_the_address_taken_the_second_takes_the_contact_along() -> None:
    bench = await linked(twin=True)
    ac_id = bench.contacts.id_of(ANNS)
    bench.customers.change(TWIN, email=OTHER)
    await bench.move(ANN, BOBS)
    assert bench.contact(ANN) is bench.contact(BOB)
    assert bench.contacts.id_of(OTHER) == ac_id
    assert bench.contacts.disowned == []
    assert bench.at_ac(TWIN).customer_id == "3"


async def test_an_erased_customer_keeps_no_contact_from_being_renamed() -> None:
    bench = await linked(twin=True)
    bench.customers.change(TWIN, erased=True)
    await bench.move(ANN, FREE)
    assert bench.contacts.renamed == [(ANNS, FREE)]


# A contact that is nobody's any more


async def test_a_contact_that_cannot_be_cleared_is_dissolved_in_the_state_all_the_same() -> None:
    bench = await linked()
    bench.contacts.refused_alone = {ANNS}
    with capture_logs() as lines:
        await bench.move(ANN, BOBS)
    assert (bench.links.by_email[ANNS].status, "example.org" in str(lines)) == (NEW[0], False)
    assert [(line["log_level"], line["contact"]) for line in lines] == [("info", 1)]
    assert bench.contact(ANN) is bench.contact(BOB)


async def test_a_contact_that_an_earlier_run_left_and_did_not_clear_is_cleared_by_the_snapshot() -> None:
    bench = await linked()
    bench.customers.change(ANN, email=BOBS)
    await bench.links.relink([ANN.id], BOBS, None)
    bench.restart()
    await bench.snapshot()
    assert bench.contacts.disowned == [ANNS]
    assert_nobodys(bench, ANNS)


async def test_a_contact_that_was_cleared_is_not_cleared_again() -> None:
    bench = await linked()
    await bench.move(ANN, BOBS)
    bench.restart()
    await bench.snapshot()
    assert bench.contacts.disowned == [ANNS]


# One request at a time


@pytest.mark.parametrize("email", [FREE, BOBS], ids=["renamed", "left"])
async def test_a_contact_that_is_in_a_request_is_moved_after_it(email: Email) -> None:
    bench = await linked()
    bench.customers.change(ANN, email=email)
    async with anyio.create_task_group() as group, bench.locks.hold([bench.contact(ANN).id]):
        group.start_soon(bench.move_all)
        await anyio.wait_all_tasks_blocked()
        assert bench.contacts.calls == []
        assert bench.contact(ANN).email == ANNS
    assert bench.contact(ANN).email == email


async def test_a_contact_is_not_cleared_while_it_is_in_a_request() -> None:
    bench = await linked()
    await bench.links.relink([ANN.id], BOBS, None)
    left = bench.links.linked(bench.links.by_email[ANNS])
    async with anyio.create_task_group() as group, bench.locks.hold([left.contact.id]):
        group.start_soon(bench.moves.dissolve, left)
        await anyio.wait_all_tasks_blocked()
        assert bench.contacts.calls == []
    assert bench.contacts.calls == [f"disown {ANNS}"]


# Stopped at any moment


def to_a_free_address(bench: Bench) -> None:
    bench.customers.change(ANN, email=FREE)


def to_a_contact_of_ours(bench: Bench) -> None:
    bench.customers.change(ANN, email=BOBS)


def to_a_contact_of_somebody_elses(bench: Bench) -> None:
    bench.contacts.add(FREE)
    bench.customers.change(ANN, email=FREE)


def both_to_two_addresses(bench: Bench) -> None:
    bench.customers.change(ANN, email=FREE)
    bench.customers.change(TWIN, email=OTHER)


def of_unknown_ids(bench: Bench) -> None:
    bench.links.ac_ids.clear()
    bench.customers.change(ANN, email=FREE)


@pytest.mark.parametrize(
    ("change", "twin"),
    [
        (to_a_free_address, False),
        (to_a_free_address, True),
        (to_a_contact_of_ours, False),
        (to_a_contact_of_ours, True),
        (to_a_contact_of_somebody_elses, False),
        (to_a_contact_of_somebody_elses, True),
        (both_to_two_addresses, True),
        (of_unknown_ids, False),
    ],
)
def test_cut_short_at_any_await_the_next_snapshot_makes_a_move_whole(
    change: Callable[[Bench], None], *, twin: bool
) -> None:
    async def cut_short_after(turns: int) -> bool:
        bench = await linked(twin=twin)
        change(bench)
        is_struck = await bench.struck(turns)
        bench.restart()
        await bench.snapshot()
        assert_everybody_is_where_they_belong(bench)
        return is_struck

    for turns in range(MAX_TURNS):
        if not run(cut_short_after(turns)):
            assert turns > 5, "hardly anything was struck"
            return
    pytest.fail("never came to the end")


def assert_everybody_is_where_they_belong(bench: Bench) -> None:
    """Check that each address has the one contact that shows its customers, and no other shows anybody."""
    wanted: dict[Email, CustomerId] = {}
    for number, row in sorted(bench.customers.rows.items()):
        email = address(row.customer)
        assert bench.contact(row.customer).email == email
        assert bench.statuses([row.customer]) == [LINKED]
        wanted.setdefault(email, number)
    assert {one.email: one.customer_id for one in bench.contacts.there.values() if one.customer_id} == {
        email: str(number) for email, number in wanted.items()
    }
    tagged = {one.email for one in bench.contacts.there.values() if one.tags}
    assert tagged <= set(wanted)
    for contact in bench.links.by_id.values():
        is_used = contact.email in wanted
        assert is_used or (contact.status, contact.why) == NEW


# Wherever they go

ADDRESSES = [*emails([ANN, BOB]), FREE, OTHER]
STEPS = st.lists(
    st.tuples(
        st.sampled_from([ANN, BOB, TWIN]),
        st.sampled_from(ADDRESSES),
        st.sampled_from(["move", "with the next", "in the next process"]),
    ),
    max_size=8,
)


@settings(max_examples=150)
@given(STEPS, st.sets(st.sampled_from([FREE, OTHER])), st.sampled_from([1, 9]))
def test_wherever_customers_move_each_ends_at_their_address_and_left_contacts_are_dissolved(
    steps: list[tuple[Customer, Email, str]], there_before: set[Email], import_min_contacts: int
) -> None:
    bench = Bench(map(account, [ANN, BOB, TWIN]), import_min_contacts=import_min_contacts)

    async def go() -> None:
        await bench.snapshot()
        for email in there_before:
            bench.contacts.add(email)
        for who, email, how in steps:
            bench.customers.change(who, email=email)
            if how == "move":
                await bench.move_all()
            elif how == "in the next process":
                bench.restart()
                await bench.snapshot()
        await bench.snapshot()

    run(go())
    assert_everybody_is_where_they_belong(bench)


async def test_dirty_orders_of_a_contact_that_two_customers_join_are_upserted() -> None:
    customers, accounts = shop(3)
    bench = Bench(accounts)
    await bench.snapshot()
    joined = bench.contact(customers[2])
    bench.sync.mark_dirty(joined, [OrderId(9)])
    for each in customers[:2]:
        bench.customers.change(each, email=joined.email)
    await bench.move_all()
    assert 9 in {order for orders in bench.order_delivery.upserted for order in orders}
