"""The rows of the dirty-data catalogue about contacts, through the whole pipeline on fakes."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from kiva_stream.model.contacts import ContactStatus, DesiredContact
from kiva_stream.model.customers import Customer
from kiva_stream.model.ids import Email
from kiva_stream.model.week_tags import WeekTag
from tests.fakes.destination_events import FakeEvents
from tests.support.entries import EVENT, customer, entry, moment, place_of
from tests.support.pipeline_world import ANN, BOB, FAILING, REFUSED, TWIN, World, story

CANCEL, CANCEL_BY_SHOP, REACTIVATE = "customer.cancel", "admin.customer.cancel", "customer.reactivate"
UNSUBSCRIBE, RESUBSCRIBE, NEW_ADDRESS = "email.unsubscribe", "email.resubscribe", "customer.email.change"
A, B = Email("customer1@example.org"), Email("new@example.org")


class HearingEvents(FakeEvents):
    """Also keeps what the events say."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    async def send(
        self,
        email: Email,
        name: str,
        data: str,
        *,
        is_suspect: bool = False,  # noqa: ARG002  the breaker's
    ) -> None:
        self.said.append(data)
        await super().send(email, name, data)


def following(*actions: str, who: Customer = ANN, page_rows: int = 10) -> World:
    """Return the world of a customer who is linked when these entries are read, some seconds old."""
    entries = [entry(place, who, action=action) for place, action in enumerate([EVENT, *actions], start=1)]
    return World(entries, page_rows=page_rows, is_live=True, now=moment(60))


async def carry_the_first(world: World) -> None:
    """Have all contacts come, and the first entry; what follows is for the next process, which follows."""
    world.takes_snapshot = True
    await world.run(until_place=1)
    world.takes_snapshot = False
    world.events.arrivals.clear()
    world.contacts.calls.clear()


def shown(world: World, who: Customer) -> DesiredContact:
    """Return what ActiveCampaign shows of a customer."""
    one = world.contacts.at(world.links.by_customer[who.id].email).shown
    assert one is not None
    return one


def delivered(world: World) -> list[int]:
    return sorted(map(place_of, world.ledger.delivered))


def names(world: World) -> list[str]:
    return [each.name for each in world.events.arrivals]


async def test_row_11_an_entry_of_an_address_that_activecampaign_refuses_is_dead_and_not_tried_again() -> (
    None
):
    world, outcomes = story([(REFUSED, EVENT), (FAILING, EVENT), (FAILING, EVENT), (REFUSED, EVENT)])
    world.contacts.refused_alone = {REFUSED.email or A, FAILING.email or A}
    await world.run(until_place=2)
    await world.run()
    world.assert_complete(dict.fromkeys(outcomes, "dead ac_rejected"))
    assert world.contacts.addresses() == [[FAILING.email]]  # of the other, the import was refused
    assert sorted(world.contacts.synced) == sorted([str(REFUSED.email), str(FAILING.email)])  # once each
    assert world.events.arrivals == []


async def test_row_12_two_accounts_of_one_address_are_one_contact_with_the_better_status_and_one_lane() -> (
    None
):
    world, outcomes = story([(ANN, EVENT), (TWIN, EVENT), (ANN, EVENT), (TWIN, EVENT)])
    world.shop.change(ANN, status="cancelled")
    world.shop.change(TWIN, status="active")
    await world.run()
    world.assert_complete(outcomes)
    assert world.contacts.addresses() == [[A]]
    assert (shown(world, ANN).status, shown(world, ANN).customer_id) == ("active", str(TWIN.id))
    assert world.links.by_customer[ANN.id] is world.links.by_customer[TWIN.id]
    assert world.events.places(A) == [1, 2, 3, 4]


async def test_row_13_an_address_that_went_and_came_back_inside_a_page_is_the_one_it_was() -> None:
    world = following(EVENT, NEW_ADDRESS, EVENT, NEW_ADDRESS, EVENT)
    await carry_the_first(world)
    await world.run()  # all of a page is as the row is when the page is read
    assert [one.email for one in world.contacts.there.values()] == [A]
    assert world.contacts.calls == []
    assert world.events.places(A) == [2, 4, 6]


async def test_row_13_an_address_that_went_and_came_back_is_the_final_one_of_one_contact() -> None:
    world = following(EVENT, NEW_ADDRESS, EVENT, NEW_ADDRESS, EVENT)
    await carry_the_first(world)
    await world.run(until_place=2)
    for until_place, email in ((4, B), (6, A)):
        world.shop.change(ANN, email=email)
        await world.run(until_place)
    assert world.contacts.renamed == [(A, B), (B, A)]
    assert [one.email for one in world.contacts.there.values()] == [A]
    assert world.events.places() == [2, 4, 6]
    assert [each.email for each in world.events.arrivals] == [A, B, A]
    assert (shown(world, ANN).email, shown(world, ANN).customer_id) == (A, str(ANN.id))


async def test_row_14_an_address_that_another_contact_has_is_adopted_and_the_old_one_is_empty() -> None:
    bobs = customer(2).email
    world = World(
        [entry(place, who) for place, who in enumerate([ANN, BOB, ANN, BOB, ANN], start=1)], page_rows=2
    )
    world.link_everybody()
    world.log.before = {3: lambda: world.shop.change(ANN, email=bobs)}
    await world.run()
    assert delivered(world) == [1, 2, 3, 4, 5]
    assert bobs
    assert (world.events.places(A), world.events.places(bobs)) == ([1], [2, 3, 4, 5])
    assert world.links.by_customer[ANN.id] is world.links.by_customer[BOB.id]
    old = world.contacts.at(A)
    assert (old.customer_id, old.tags) == ("", {})
    assert world.links.by_email[A].status is ContactStatus.NEW
    assert world.contacts.renamed == []
    assert list(world.contacts.at(bobs).tags) == [WeekTag.NONE]


@pytest.mark.parametrize(
    ("actions", "wants_emails"), [((UNSUBSCRIBE, RESUBSCRIBE), True), ((RESUBSCRIBE, UNSUBSCRIBE), False)]
)
@pytest.mark.parametrize("was_on_list", [True, False])
async def test_row_15_of_an_unsubscription_and_a_resubscription_in_a_batch_the_last_state_wins(
    actions: tuple[str, str], *, wants_emails: bool, was_on_list: bool
) -> None:
    world = following(*actions)
    world.shop.change(ANN, email_opt_in=was_on_list)
    await carry_the_first(world)
    assert world.contacts.at(A).is_on_list is was_on_list
    world.shop.change(ANN, email_opt_in=wants_emails)
    await world.run()
    assert world.contacts.at(A).is_on_list is wants_emails
    assert world.events.places() == [2, 3]
    said = {UNSUBSCRIBE: "Unsubscribed email", RESUBSCRIBE: "Re-subscribed to emails"}
    assert names(world) == [said[action] for action in actions]


async def test_row_16_a_blacklisted_customer_who_resubscribes_stays_off_the_list_and_the_event_is_sent() -> (
    None
):
    world = following(RESUBSCRIBE)
    world.shop.change(ANN, email_opt_in=False)
    await carry_the_first(world)
    world.shop.change(ANN, email_opt_in=True, email_blacklisted=True)
    await world.run()
    assert world.contacts.at(A).is_on_list is False
    assert not any(subscribed for _, subscribed in world.contacts.list_calls)
    assert names(world) == ["Re-subscribed to emails"]


async def test_row_17_cancelled_twice_are_two_events_and_one_change_of_the_status() -> None:
    world = following(CANCEL, CANCEL_BY_SHOP)
    world.events = events = HearingEvents()
    events.on_arrival = world.check_arrival
    await carry_the_first(world)
    events.said.clear()
    world.shop.change(ANN, status="cancelled", cancel_date=date(2018, 3, 4))
    await world.run()
    assert names(world) == ["Customer cancelled"] * 2
    assert ["by=customer" in events.said[0], "by=admin" in events.said[1]] == [True, True]
    assert world.contacts.calls == [f"sync {A}"]
    assert (shown(world, ANN).status, shown(world, ANN).cancel_date) == ("cancelled", "2018-03-04")


async def test_row_18_of_a_customer_who_cancelled_and_returned_the_present_row_counts() -> None:
    world = following(CANCEL, REACTIVATE, EVENT)
    await carry_the_first(world)
    world.shop.change(ANN, status="active", cancel_date=date(2018, 3, 4), phone="+1 555 0100")
    await world.run()
    assert (shown(world, ANN).status, shown(world, ANN).cancel_date) == ("active", "")
    assert world.contacts.calls == [f"sync {A}"]
    assert names(world) == ["Customer cancelled", "Logged out"]
    assert world.ledger.tally() == {"delivered": 3, "synced": 1}


async def snapshot_of(**row: Any) -> World:  # noqa: ANN401  columns are of any type
    """Return the world after Ann's row was brought."""
    world = World([entry(1, ANN)], now=moment(60))
    world.shop.change(ANN, **row)
    world.link_everybody()
    await world.run()
    return world


@pytest.mark.parametrize(
    ("birthday", "sent"),
    [
        (date(1904, 5, 2), "1904-05-02"),
        (date(1904, 2, 29), "1904-02-29"),
        (date(2018, 3, 4), "2018-03-04"),
        (date(2018, 3, 5), ""),
    ],
)
async def test_row_39_a_birthday_of_unknown_year_is_sent_as_it_is_and_one_in_the_future_is_empty(
    birthday: date, sent: str
) -> None:
    assert shown(await snapshot_of(birthday=birthday), ANN).birthday == sent


@pytest.mark.parametrize(
    ("status", "next_delivery", "is_stale"),
    [
        ("active", date(2018, 3, 3), True),
        ("active", date(2018, 3, 4), False),
        ("paused", date(2018, 3, 3), False),
    ],
)
async def test_row_40_a_next_delivery_in_the_past_of_an_active_customer_is_sent_as_stored_and_counted(
    status: str, next_delivery: date, *, is_stale: bool
) -> None:
    world = await snapshot_of(status=status, next_delivery=next_delivery)
    assert shown(world, ANN).next_delivery == next_delivery.isoformat()
    assert world.links.notes == ({"stale_next_delivery": 1} if is_stale else {})


@pytest.mark.parametrize("box_type", ["Retired box", None], ids=["inactive", "row gone"])
async def test_row_41_of_a_box_type_that_is_inactive_the_name_is_sent_and_of_one_that_is_gone_nothing(
    box_type: str | None,
) -> None:
    assert shown(await snapshot_of(box_type=box_type), ANN).box_type == box_type
