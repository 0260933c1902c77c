"""A place on the list that gets no answer is held by itself, and tried again when it is due."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from kiva_stream.errors import RecordsHeld, Rejected
from kiva_stream.model.contacts import Contact, ContactStatus
from kiva_stream.model.held_records import HeldKey, HeldKind
from kiva_stream.model.ids import AcId, ContactId, Email
from kiva_stream.sync.list_places import ListPlaces
from kiva_stream.sync.lone_requests import DETOUR_S, ContactRequests
from tests.fakes.destination_contacts import FakeContacts
from tests.fakes.state_held import RETRY_S, FakeHeldRows, held_records
from tests.support.virtual_time import now, run

ANN = Email("ann@example.org")
KEY = HeldKey(HeldKind.LIST, 7)


class Bench:
    """The list places of an account that has Ann, who is on the list."""

    def __init__(self) -> None:
        self.contacts = FakeContacts()
        self.contacts.add(ANN)
        self.contacts.at(ANN).is_on_list = True
        self.contacts.silent = {ANN}
        self.rows = FakeHeldRows()
        self.held = held_records(self.rows)
        alone = ContactRequests(
            self.contacts, RETRY_S, on_recovery=partial(self.held.make_due, HeldKind.LIST)
        )
        ports: Any = SimpleNamespace(held=self.held, alone=alone)
        self.places = ListPlaces(ports)

    async def write(self, *, subscribed: bool = False, is_looked_up: bool = False) -> str | None:
        ac_id = self.contacts.id_of(ANN)
        assert ac_id is not None
        ann = Contact(ContactId(7), ANN, ContactStatus.LINKED)
        return await self.places.put(ann, None if is_looked_up else ac_id, subscribed=subscribed)


def test_a_list_place_is_held_and_not_sent_before_its_next_try_but_then() -> None:
    bench = Bench()

    async def play() -> None:
        with pytest.raises(RecordsHeld) as held:
            await bench.write()
        assert set(held.value.why) == {7}
        assert bench.rows.rows[KEY].attempts == 1
        bench.contacts.silent = set()
        began_at = now()
        with pytest.raises(RecordsHeld):
            await bench.write()
        assert now() - began_at < 1
        await anyio.sleep(RETRY_S)
        await bench.write()

    run(play())
    assert bench.contacts.at(ANN).is_on_list is False
    assert bench.rows.rows == {}


def test_a_list_place_that_is_held_in_what_may_be_an_outage_is_due_when_another_one_is_answered() -> None:
    bench = Bench()
    bob = Contact(ContactId(8), Email("bob@example.org"), ContactStatus.LINKED)

    async def play() -> None:
        with pytest.raises(RecordsHeld):
            await bench.write()
        bench.contacts.silent = set()
        bench.contacts.add(bob.email)
        ac_id = bench.contacts.id_of(bob.email)
        await bench.places.put(bob, ac_id, subscribed=False)
        await bench.write()

    run(play())
    assert bench.rows.rows == {}


def test_a_list_place_that_was_discarded_counts_as_refused() -> None:
    bench = Bench()

    async def play() -> None:
        with pytest.raises(RecordsHeld):
            await bench.write()
        bench.rows.ask(HeldKind.LIST, 7, discard=True)
        await bench.held.refresh()
        assert await bench.write() == "500"

    run(play())
    assert bench.contacts.at(ANN).is_on_list is True
    assert bench.rows.rows == {}


@pytest.mark.parametrize("trouble", ["no answer", "a 403"])
def test_a_contact_that_cannot_be_looked_up_is_held_by_its_place_until_the_next_try(trouble: str) -> None:
    bench = Bench()
    bench.contacts.silent = {ANN} if trouble == "no answer" else set()
    bench.contacts.silent_call = "find"
    bench.contacts.forbidden = {"find"} if trouble == "a 403" else set()

    async def play() -> None:
        began_at = now()
        with pytest.raises(RecordsHeld) as held:
            await bench.write(is_looked_up=True)
        assert set(held.value.why) == {7}
        assert now() - began_at < 2 * DETOUR_S
        bench.contacts.silent, bench.contacts.forbidden = set(), set()
        with pytest.raises(RecordsHeld):
            await bench.write(is_looked_up=True)
        await anyio.sleep(RETRY_S)
        assert await bench.write(is_looked_up=True) is None

    run(play())
    assert bench.contacts.at(ANN).is_on_list is False
    assert bench.rows.rows == {}


class Refusing(FakeContacts):
    """An account that refuses all places on the list."""

    async def set_list(
        self,
        contact: AcId,  # noqa: ARG002  it is not about the contact
        *,
        subscribed: bool,  # noqa: ARG002
        tries: float = math.inf,  # noqa: ARG002
        is_suspect: bool = False,  # noqa: ARG002
    ) -> None:
        raise Rejected("refused", "No Result found for List with id 1")


@pytest.mark.parametrize(("is_missing", "error"), [(True, RecordsHeld), (False, Rejected)])
def test_a_list_place_that_is_refused_since_the_list_is_gone_is_held(
    is_missing: bool, error: type[Exception]
) -> None:
    async def are_ids_missing() -> bool:
        await anyio.lowlevel.checkpoint()
        return is_missing

    async def play() -> None:
        requests = ContactRequests(Refusing(), RETRY_S, are_ids_missing)
        with pytest.raises(error):
            await requests.set_list(AcId(7), subscribed=False)

    run(play())
