"""Who is on the list: nobody comes back but by their own young entry, and the erased are taken off."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from kiva_stream.model.deliveries import Batch
from kiva_stream.model.ids import Email
from tests.support.entries import account, customer, position
from tests.unit.sync.builders import NOW, REFUSED, Bench, address, entry_of, shop

DAY_S = 86_400


# Back to the list


async def unsubscribed(*, is_live: bool = True) -> Bench:
    """Return the bench of one who was taken off the list, and wants e-mails again."""
    (ann,), _ = shop(1)
    bench = Bench([account(ann, email_opt_in=False)], is_live=is_live)
    await bench.snapshot(covers=position(9))
    assert bench.at_ac(ann).is_on_list is False
    bench.customers.change(ann, email_opt_in=True)
    return bench


@pytest.mark.parametrize("place", [1, 10], ids=["the snapshot covers", "the snapshot does not cover"])
async def test_a_young_resubscription_entry_resubscribes_the_contact(place: int) -> None:
    bench, (ann,) = await unsubscribed(), shop(1)[0]
    await bench.carry(bench.contact(ann), entry_of(place, resubscribes=True))
    assert bench.at_ac(ann).is_on_list is True
    assert bench.contacts.list_calls == [(ann.email, True)]
    assert not bench.linked(ann).unsubscribed


async def test_a_contact_is_resubscribed_after_its_fields_and_orders_are_written() -> None:
    bench, (ann,) = await unsubscribed(), shop(1)[0]
    bench.order_delivery.on_upsert = lambda: bench.contacts.calls.append("orders")
    await bench.carry(bench.contact(ann), entry_of(10, order=7, resubscribes=True))
    assert bench.contacts.calls == [f"sync {ann.email}", "orders", f"subscribe {ann.email}"]


async def test_a_backfill_resubscribes_no_contact_whatever_its_entries_say() -> None:
    bench, (ann,) = await unsubscribed(is_live=False), shop(1)[0]
    await bench.carry(bench.contact(ann), entry_of(10, resubscribes=True))
    assert bench.contacts.list_calls == []


async def test_entries_of_other_kinds_resubscribe_no_contact() -> None:
    bench, (ann,) = await unsubscribed(), shop(1)[0]
    await bench.carry(bench.contact(ann), entry_of(10))
    assert bench.contacts.list_calls == []


@pytest.mark.parametrize(("age_s", "is_back"), [(DAY_S - 1, True), (DAY_S, False)])
async def test_a_resubscription_entry_older_than_a_day_resubscribes_no_contact(
    age_s: float, *, is_back: bool
) -> None:
    bench, (ann,) = await unsubscribed(), shop(1)[0]
    await bench.carry(bench.contact(ann), entry_of(10, age_s=age_s, resubscribes=True))
    assert bench.at_ac(ann).is_on_list is is_back


async def test_the_age_up_to_which_an_entry_resubscribes_is_a_setting() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts, is_live=True, resubscribe_max_age_s=60)
    await bench.snapshot()
    await bench.carry(bench.contact(ann), entry_of(1, age_s=60, resubscribes=True))
    assert bench.contacts.list_calls == []
    await bench.carry(bench.contact(ann), entry_of(2, age_s=59, resubscribes=True))
    assert bench.contacts.list_calls == [(ann.email, True)]


# Late entries: they were parked or dead, or are read again


async def test_a_reopened_entry_resubscribes_who_is_unsubscribed_by_us() -> None:
    bench, (ann,) = await unsubscribed(), shop(1)[0]
    await bench.carry(bench.contact(ann), replace(entry_of(10, resubscribes=True), is_reopened=True))
    assert bench.at_ac(ann).is_on_list is True
    assert bench.links.notes["resubscribe_late"] == 0


@pytest.mark.parametrize("is_on_list", [True, None])
async def test_a_reopened_entry_resubscribes_nobody_whose_place_is_another_by_now(
    *, is_on_list: bool | None
) -> None:
    bench, (ann,) = await unsubscribed(), shop(1)[0]
    bench.at_ac(ann).is_on_list = is_on_list
    await bench.carry(bench.contact(ann), replace(entry_of(10, resubscribes=True), is_reopened=True))
    assert bench.contacts.list_calls == []
    assert bench.links.notes["resubscribe_late"] == 1


@pytest.mark.parametrize("lateness", ["reopened", "read again"])
async def test_a_late_entry_resubscribes_nobody_who_left_the_list_there(lateness: str) -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts, is_live=True)
    await bench.snapshot()
    bench.at_ac(ann).put_on_list(subscribed=False)
    late = replace(entry_of(10, age_s=1, resubscribes=True), is_reopened=lateness == "reopened")
    bench.sync.note_rewind(None if late.is_reopened else NOW)
    await bench.carry(bench.contact(ann), late)
    assert bench.at_ac(ann).is_on_list is False
    assert bench.links.notes["resubscribe_late"] == 1


async def test_an_entry_in_time_beside_a_late_one_resubscribes() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts, is_live=True)
    await bench.snapshot()
    bench.at_ac(ann).put_on_list(subscribed=False)
    late = replace(entry_of(10, resubscribes=True), is_reopened=True)
    await bench.carry(bench.contact(ann), late, entry_of(11, resubscribes=True))
    assert bench.at_ac(ann).is_on_list is True


async def test_an_entry_that_is_parked_while_it_waits_comes_late() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts, is_live=True)
    await bench.snapshot()
    bench.at_ac(ann).put_on_list(subscribed=False)
    batch = Batch(bench.contact(ann), [entry_of(10, resubscribes=True)])
    need = bench.sync.need(batch)
    assert need is not None
    batch.deliveries[0] = replace(batch.deliveries[0], is_reopened=True)
    await bench.ensure(need)
    assert bench.at_ac(ann).is_on_list is False


@pytest.mark.parametrize("change", [{"email_opt_in": False}, {"email_blacklisted": True}, {"erased": True}])
async def test_a_customer_who_does_not_want_emails_now_is_not_resubscribed(change: dict[str, Any]) -> None:
    bench, (ann,) = await unsubscribed(), shop(1)[0]
    bench.customers.change(ann, **change)
    await bench.carry(bench.contact(ann), entry_of(10, resubscribes=True))
    assert bench.at_ac(ann).is_on_list is False
    assert bench.contacts.list_calls == []


async def test_a_contact_is_not_resubscribed_while_another_account_of_its_address_opted_out() -> None:
    ann = customer(1)
    bench = Bench([account(ann), account(customer(2, email=ann.email), email_opt_in=False)], is_live=True)
    await bench.snapshot()
    await bench.carry(bench.contact(ann), entry_of(10, resubscribes=True))
    assert bench.at_ac(ann).is_on_list is False
    assert bench.contacts.list_calls == []


async def test_a_newcomer_who_had_unsubscribed_there_is_resubscribed_only_by_their_own_entry() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts, is_live=True)
    bench.contacts.there[bench.contacts.add(address(ann))].put_on_list(subscribed=False)
    (contact,) = await bench.link(ann)
    await bench.carry(contact, entry_of(1))
    assert bench.contacts.list_calls == []
    assert bench.at_ac(ann).is_on_list is False
    await bench.carry(contact, entry_of(2, resubscribes=True))
    assert bench.at_ac(ann).is_on_list is True


async def test_a_refused_contact_is_not_put_on_the_list() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts, is_live=True)
    bench.contacts.refused = bench.contacts.refused_alone = {address(ann)}
    bench.contacts.add(address(ann))  # it has somebody of this address all the same
    (contact,) = await bench.link(ann)
    await bench.carry(contact, entry_of(1, resubscribes=True))
    assert bench.statuses([ann]) == [REFUSED]
    assert bench.contacts.list_calls == []


async def test_a_resubscribed_customer_who_opts_out_again_is_unsubscribed_again() -> None:
    bench, (ann,) = await unsubscribed(), shop(1)[0]
    await bench.carry(bench.contact(ann), entry_of(10, resubscribes=True))
    bench.customers.change(ann, email_opt_in=False)
    await bench.carry(bench.contact(ann), entry_of(11))
    assert bench.at_ac(ann).is_on_list is False
    assert bench.linked(ann).unsubscribed


# The erased


async def linked_and(*, gone: bool) -> Bench:
    """Return the bench of a linked customer who is then erased, or whose row is gone."""
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot()
    bench.links.due.clear()
    if gone:
        del bench.customers.rows[ann.id]
    else:
        bench.customers.change(ann, erased=True)
    return bench


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("way", ["snapshot", "entry"])
async def test_the_contact_of_an_erased_customer_is_taken_off_the_list_and_is_to_lose_its_tag(
    way: str, *, gone: bool
) -> None:
    bench, (ann,) = await linked_and(gone=gone), shop(1)[0]
    if way == "snapshot":
        await bench.snapshot()
    else:
        await bench.carry(bench.contact(ann), entry_of(1))
    assert bench.contacts.calls == [f"unsubscribe {ann.email}"]
    assert bench.at_ac(ann).is_on_list is False
    assert bench.linked(ann).unsubscribed
    assert list(bench.links.due) == [bench.contact(ann).id]


async def test_the_contact_of_an_erased_customer_is_left_alone_once_it_is_off_the_list_without_a_tag() -> (
    None
):
    bench, (ann,) = await linked_and(gone=False), shop(1)[0]
    await bench.snapshot()
    await bench.due.record_tags_unknown([bench.contact(ann).id])
    bench.links.due.clear()
    await bench.carry(bench.contact(ann), entry_of(1))
    assert bench.contacts.calls == [f"unsubscribe {ann.email}"]
    assert bench.links.due == {}


async def test_a_contact_that_an_erased_customer_shared_stays_as_the_others_want_it() -> None:
    ann, twin = customer(1), customer(2, email=customer(1).email)
    bench = Bench([account(ann), account(twin)])
    await bench.snapshot()
    bench.links.due.clear()
    bench.customers.change(ann, erased=True)
    await bench.carry(bench.contact(twin), entry_of(1))
    assert bench.contacts.calls == [f"sync {twin.email}"]
    assert bench.shown(twin).customer_id == str(twin.id)
    assert bench.at_ac(twin).is_on_list is True
    assert bench.links.due == {}


async def test_a_contact_of_which_one_is_erased_and_the_other_has_another_address_is_left_alone() -> None:
    ann, twin = customer(1), customer(2, email=customer(1).email)
    bench = Bench([account(ann), account(twin)])
    await bench.snapshot()
    bench.customers.change(ann, erased=True)
    bench.customers.change(twin, email=Email("new@example.org"))
    await bench.carry(bench.contact(ann), entry_of(1))
    assert bench.contacts.calls == []


async def test_the_contact_of_a_customer_erased_before_it_was_written_is_never_created() -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    (contact,) = await bench.link(ann)
    bench.customers.change(ann, erased=True)
    await bench.carry(contact, entry_of(1, order=7))
    await bench.snapshot()
    assert bench.contacts.there == {}
    assert bench.contacts.imports == {}
    assert bench.contacts.calls == []
    assert bench.order_delivery.upserted == []


async def test_a_customer_erased_before_they_were_written_leaves_the_contact_at_activecampaign_alone() -> (
    None
):
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    bench.contacts.add(address(ann))
    (contact,) = await bench.link(ann)
    bench.customers.change(ann, erased=True)
    await bench.carry(contact, entry_of(1))
    assert bench.contacts.calls == []
    assert not bench.linked(ann).unsubscribed


@pytest.mark.parametrize(("opted_in", "is_on_list"), [(False, False), (True, True)])
async def test_a_customer_without_an_address_any_more_is_unsubscribed_if_they_opted_out(
    *, opted_in: bool, is_on_list: bool
) -> None:
    (ann,), accounts = shop(1)
    bench = Bench(accounts)
    await bench.snapshot()
    contact, there = bench.contact(ann), bench.at_ac(ann)
    bench.customers.change(ann, email=None, email_opt_in=opted_in)
    await bench.carry(contact, entry_of(1))
    assert there.is_on_list is is_on_list
