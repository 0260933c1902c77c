"""Scripted replies: each event has its list of answers, over real HTTP; order and count are the receiver's.

The pipeline runs among fakes of the shop and the state; the client, the events, the look-ups and what
answers them are the real ones.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import anyio
import pytest

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.contacts import Contacts
from kiva_stream.activecampaign.events import Events
from kiva_stream.activecampaign.tracking_log import TrackingLogs
from kiva_stream.model.account_ids import AccountIds
from kiva_stream.model.ids import AcId, Email
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.pipeline.delivery_lookup import TrackingLogLookup
from kiva_stream.sandbox.activecampaign import Account, Fault, FaultKind, Running
from tests.fakes.destination_contacts import AcContact
from tests.support.entries import HIGHEST_ID, LOGGED_OUT, customer, entry, place_in, place_of
from tests.support.pipeline_world import World
from tests.support.sandbox import SHOP, sandbox, shop

PEOPLE = [customer(number) for number in range(1, 6)]
SETTLE_S = 0.2
IDS = AccountIds(1, {"customer_id": 1}, dict.fromkeys(WeekTag, 1), 1)

BEFORE, AFTER = FaultKind.ERROR_BEFORE, FaultKind.ERROR_AFTER
CUT_BEFORE, CUT_AFTER = FaultKind.RESET_BEFORE, FaultKind.RESET_AFTER
HTML, GATEWAY = FaultKind.HTML_200, FaultKind.HTML_503
THROTTLED, FORBIDDEN, HANG, REFUSED = (
    FaultKind.THROTTLED,
    FaultKind.FORBIDDEN,
    FaultKind.HANG,
    FaultKind.REFUSED_EVENT,
)
# By place: what the tries of an event are answered with, the last one ok.
SCRIPTS: dict[int, tuple[FaultKind, ...]] = {
    1: (BEFORE, HTML, BEFORE),
    2: (AFTER,),
    3: (THROTTLED, CUT_BEFORE),
    4: (HANG, BEFORE),
    6: (REFUSED,),
    7: (CUT_AFTER,),
    8: (GATEWAY, AFTER),
    9: (FORBIDDEN,),
    11: (BEFORE, REFUSED),
    12: (CUT_BEFORE, CUT_AFTER),
    13: (AFTER, CUT_AFTER, AFTER),
    16: (HTML, CUT_BEFORE, HANG, AFTER),
    17: (THROTTLED, FORBIDDEN, REFUSED),
    18: (CUT_AFTER, AFTER),
    20: (BEFORE, AFTER),
}
DEAD = {place for place, script in SCRIPTS.items() if REFUSED in script}
PLACES = range(1, 26)


def faults(scripts: dict[int, tuple[FaultKind, ...]]) -> list[Fault]:
    """Return the scripts as faults: each hits once, those of an event in their order."""
    return [
        Fault(path="/event", kind=kind, count=1, containing=f"log={HIGHEST_ID - place}")
        for place, script in scripts.items()
        for kind in script
    ]


async def carry(running: Running, *, looks_up: bool, retry_refused_s: float | None = None) -> World:
    """Carry an event of each place to a receiver; return the world that it came from."""
    world = World(
        [entry(place, PEOPLE[place % len(PEOPLE)]) for place in PLACES],
        api_url=running.api_url,
        event_url=running.event_url,
        api_token=SHOP.api_token,
        event_actid=SHOP.event_actid,
        event_key=SHOP.event_key,
        events_per_second=0,
        requests_per_second=1_000,
        request_timeout_s=0.4,
        lookup_settle_s=SETTLE_S,
        backoff_max_s=0.1,
        retry_held_s=0.1,
    )
    world.link_everybody()
    receiver = running.account("shop")
    receiver.event_names[LOGGED_OUT.ac_name] = None
    for who in PEOPLE:
        contact = receiver.contacts.create(str(who.email), 0.0)
        world.contacts.there[AcId(contact.id)] = AcContact(Email(contact.email))
    settings = world.settings.activecampaign
    async with Client(settings, retry_refused_s=retry_refused_s) as client:
        world.events = cast("Any", Events(settings, client))
        if looks_up:
            contacts = Contacts(settings, client, IDS)
            world.lookup = cast("Any", TrackingLogLookup(world.links, contacts, TrackingLogs(client)))
        await world.run()
        while world.ledger.parked:
            for key in world.held_rows.rows:  # only a replay sends what is in doubt once more
                world.held_rows.ask(*key)
            await world.run()
    return world


def received(account: Account) -> dict[str, list[int]]:
    """Return the places of the events that the receiver recorded, in order, by contact."""
    return {
        contact.email: [place_in(each.eventdata) for each in account.events_of(contact.email)]
        for contact in account.contacts
    }


def assert_order_and_outcomes(world: World, account: Account, times: dict[int, int]) -> None:
    """Assert that each event was recorded so many times, each contact's in order, and has its outcome."""
    places = received(account)
    assert Counter(place for each in places.values() for place in each) == +Counter(times)
    assert all(each == sorted(each) for each in places.values())
    assert {place_of(where): why for where, why in world.ledger.dead.items()} == dict.fromkeys(
        DEAD, Reason.EVENT_REJECTED
    )
    assert sorted(map(place_of, world.ledger.delivered)) == sorted(set(PLACES) - DEAD)
    assert world.ledger.tally() == {
        "delivered": len(PLACES) - len(DEAD),
        "dead event_rejected": len(DEAD),
    }


@pytest.mark.parametrize("delay_s", [0.0, SETTLE_S / 2], ids=["shown at once", "shown late"])
async def test_whatever_the_answers_each_event_is_there_once_and_in_order_with_look_ups(
    delay_s: float,
) -> None:
    account = shop(
        tracking_enabled=True, requests_per_second=0, retry_after_s=1, tracking_log_delay_s=delay_s
    )
    async with sandbox(account, faults=faults(SCRIPTS)) as running:
        world = await carry(running, looks_up=True)
        assert_order_and_outcomes(
            world, running.account("shop"), {place: place not in DEAD for place in PLACES}
        )
        assert running.faults.drawn == Counter(kind for each in SCRIPTS.values() for kind in _tried(each))


def _tried(script: tuple[FaultKind, ...]) -> tuple[FaultKind, ...]:
    """Return what is seen of a script where what was processed is found."""
    processed = [index for index, kind in enumerate(script) if kind.processed]
    return script[: processed[0] + 1] if processed else script


async def test_without_look_ups_each_event_is_there_as_often_as_its_answer_was_lost_and_in_order() -> None:
    account = shop(tracking_enabled=True, requests_per_second=0, retry_after_s=1)
    async with sandbox(account, faults=faults(SCRIPTS)) as running:
        world = await carry(running, looks_up=False)
        lost = {place: sum(kind.processed for kind in script) for place, script in SCRIPTS.items()}
        times = {place: (place not in DEAD) + lost.get(place, 0) for place in PLACES}
        assert_order_and_outcomes(world, running.account("shop"), times)
        assert running.faults.drawn == Counter(kind for each in SCRIPTS.values() for kind in each)
        unknown = {BEFORE, AFTER, CUT_BEFORE, CUT_AFTER, HTML, HANG, GATEWAY}
        again = sum(kind in unknown for each in SCRIPTS.values() for kind in each)
        assert world.ledger.tally("note") == {"sent_again": again}


async def test_where_look_ups_are_forbidden_an_event_whose_answer_was_lost_is_sent_once_more() -> None:
    account = shop(tracking_enabled=True, requests_per_second=0, retry_after_s=1)
    forbidden = Fault(path="/contacts/*/trackingLogs", kind=FORBIDDEN)
    async with sandbox(account, faults=[forbidden, *faults({2: (BEFORE,)})]) as running:
        with anyio.fail_after(30):
            world = await carry(running, looks_up=True, retry_refused_s=600)
        assert Counter(place for each in received(running.account("shop")).values() for place in each) == (
            Counter(PLACES)
        )
        assert world.ledger.tally("note")["sent_again"] == 1
