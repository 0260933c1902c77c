"""The adapter against the sandbox, over HTTP: what it creates, sends and survives."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import chain, repeat
from typing import Any, NamedTuple

import msgspec
import pytest

from kiva_stream import ports
from kiva_stream.activecampaign.account import AccountIds, AccountSetup
from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.contacts import Contacts
from kiva_stream.activecampaign.events import Events
from kiva_stream.catalog import CATALOG
from kiva_stream.errors import (
    AccountRefused,
    Rejected,
    RowsRejected,
    SettingsError,
    TryLater,
    UnknownOutcome,
)
from kiva_stream.model import DesiredContact, Email, ImportReport, ImportState, ListStatus
from kiva_stream.sandbox.activecampaign import Account, Fault, FaultKind, Running
from kiva_stream.settings import ActiveCampaignSettings
from tests.sandboxes import SHOP, sandbox, shop

IN_NO_TIME: dict[str, object] = {
    "requests_per_second": 0,
    "bulk_imports_per_minute": 0,
    "single_imports_per_minute": 0,
    "import_duration_s": 0,
}
ANN = DesiredContact(Email("ann@example.org"), "Ann", "Archer", "+1 555", "7", ListStatus.SUBSCRIBE)
BOB = DesiredContact(Email("bob@example.org"), "Bob", "", "", "8", ListStatus.UNSUBSCRIBE)
EVE = DesiredContact(Email("eve@example.org"), "", "", "", "9", ListStatus.LEAVE)


def settings_for(running: Running, changes: dict[str, Any]) -> ActiveCampaignSettings:
    """Return settings for the account `shop`."""
    settings = ActiveCampaignSettings(
        api_url=running.api_url,
        event_url=running.event_url,
        api_token=SHOP.api_token,
        event_actid=SHOP.event_actid,
        event_key=SHOP.event_key,
        events_per_second=0,
    )
    return msgspec.structs.replace(settings, **changes)


def fast_clock() -> float:
    """Return a time that passes a thousand times as fast, so that budgets and back-off take no time."""
    return time.monotonic() * 1_000


async def fast_sleep(seconds: float) -> None:
    """Sleep by the fast clock."""
    await asyncio.sleep(seconds / 1_000)


class World(NamedTuple):
    """The adapter's parts, and the account they talk to."""

    running: Running
    account: Account
    client: Client
    setup: AccountSetup
    events: ports.Events

    def contacts(self, ids: AccountIds) -> ports.Contacts:
        return Contacts(settings_for(self.running, {}), self.client, ids, clock=fast_clock)


@asynccontextmanager
async def world(
    *,
    faults: tuple[Fault, ...] = (),
    patience_s: float = math.inf,
    changes: dict[str, Any] = {},  # noqa: B006  never changed
    **account: object,
) -> AsyncIterator[World]:
    """Run a sandbox with an account that limits nothing but what is asked for, and the adapter on it."""
    async with sandbox(shop(**(IN_NO_TIME | account)), faults=faults) as running:
        settings = settings_for(running, changes)
        async with Client(settings, patience_s=patience_s, sleep=fast_sleep, clock=fast_clock) as client:
            setup = AccountSetup(client, "Kiva Customer ID", "https://shop.example", "You are a customer.")
            events = Events(settings, client, sleep=fast_sleep, clock=fast_clock)
            yield World(running, running.account("shop"), client, setup, events)


# --- set-up


async def test_setup_creates_all_that_is_missing_and_nothing_the_second_time() -> None:
    async with world() as it:
        missing = await it.setup.missing()
        assert it.account.tally.requests["createList"] == 0

        assert await it.setup.set_up() == missing
        assert missing == [
            "event tracking switched on",
            "41 event names",
            "the list 'all customers'",
            "the text field 'Kiva Customer ID'",
        ]
        assert await it.setup.missing() == []
        assert await it.setup.set_up() == []

        assert it.account.settings.tracking_enabled
        assert list(it.account.event_names) == CATALOG.ac_names()
        [created] = it.account.lists.where(name="all customers")
        assert created["stringid"] == "all-customers"
        assert created["sender_url"] == "https://shop.example"
        assert created["sender_reminder"] == "You are a customer."
        [field] = it.account.fields.where(title="Kiva Customer ID", type="text")
        assert it.account.field_relations.where() == [{"id": "1", "field": field["id"], "relid": "0"}]
        assert not it.account.tally.breaches


async def test_looking_for_what_is_missing_leaves_no_trace() -> None:
    async with world() as it:
        await it.setup.missing()

        assert set(it.account.tally.requests) == {
            "getEventTracking",
            "listEventNames",
            "listLists",
            "listFields",
        }


async def test_setup_finds_what_is_there_on_later_pages() -> None:
    async with world(event_names=tuple(f"Other {number}" for number in range(150))) as it:
        for number in range(230):
            it.account.lists.add({"name": f"other {number}", "stringid": f"other-{number}"})
            it.account.fields.add({"title": f"Other {number}", "type": "text"})
        await it.setup.set_up()

        assert await it.setup.missing() == []
        assert await it.setup.ids() == AccountIds(231, 231)


async def test_setup_creates_only_what_is_missing() -> None:
    async with world() as it:
        await it.setup.set_up()
        del it.account.event_names["Customer cancelled"]
        it.account.field_relations.rows.clear()

        assert await it.setup.set_up() == [
            "the event name 'Customer cancelled'",
            "the relation of the field 'Kiva Customer ID' to all lists",
        ]


async def test_setup_takes_a_list_of_the_exact_name_only() -> None:
    async with world() as it:
        it.account.lists.add({"name": "not all customers", "stringid": "x"})
        it.account.lists.add({"name": "All Customers", "stringid": "y"})
        await it.setup.set_up()

        assert (await it.setup.ids()).list_id == 3


async def test_what_somebody_else_creates_meanwhile_is_there() -> None:
    async with world() as it:
        steps = await it.setup.missing()
        await asyncio.gather(it.setup.set_up(), it.setup.set_up(), return_exceptions=True)

        assert len(steps) == 4
        assert await it.setup.set_up() == []


async def test_a_field_of_another_type_in_the_place_of_ours_is_told() -> None:
    async with world() as it:
        it.account.fields.add({"title": "Kiva Customer ID", "type": "number"})

        with pytest.raises(SettingsError, match="the text field 'Kiva Customer ID'"):
            await it.setup.set_up()


async def test_ids_before_setup_say_what_to_run() -> None:
    async with world() as it:
        with pytest.raises(SettingsError, match="kiva-stream setup"):
            await it.setup.ids()


async def test_a_wrong_key_refuses_the_account() -> None:
    async with world(changes={"api_token": "wrong-token"}) as it:
        with pytest.raises(AccountRefused, match="api_token") as caught:
            await it.setup.missing()
        assert "wrong-token" not in str(caught.value)


async def test_an_address_where_nobody_listens_is_told_when_patience_is_over() -> None:
    async with world(changes={"api_url": "http://127.0.0.1:9"}, patience_s=0.05) as it:
        with pytest.raises(TryLater, match=r"cannot connect to 127\.0\.0\.1"):
            await it.setup.missing()


# --- contacts


async def imported(it: World, *contacts: DesiredContact) -> ImportReport:
    """Import contacts into a set-up account and return the report."""
    await it.setup.set_up()
    adapter = it.contacts(await it.setup.ids())
    accepted = await adapter.start_import(contacts, exclude_automations=True)
    return await adapter.import_report(accepted.id)


async def test_an_import_brings_names_field_and_list() -> None:
    async with world() as it:
        report = await imported(it, ANN, BOB, EVE)
        ids = await it.setup.ids()

        assert report == ImportReport(ImportState.COMPLETED)
        ann, bob, eve = (it.account.contacts.find(contact.email) for contact in (ANN, BOB, EVE))
        assert ann
        assert bob
        assert eve
        assert (ann.first_name, ann.last_name, ann.phone) == ("Ann", "Archer", "+1 555")
        assert [contact.fields[ids.customer_id_field_id] for contact in (ann, bob, eve)] == ["7", "8", "9"]
        assert [contact.lists for contact in (ann, bob, eve)] == [{ids.list_id: 1}, {ids.list_id: 2}, {}]
        assert not it.account.tally.breaches


async def test_rows_that_activecampaign_refuses_are_named_from_0() -> None:
    async with world(invalid_emails=frozenset({BOB.email})) as it:
        with pytest.raises(RowsRejected) as caught:
            await imported(it, ANN, BOB, EVE)

        assert list(caught.value.reasons) == [1]
        assert "example.org" not in str(caught.value.reasons)
        assert len(it.account.contacts) == 0


async def test_failures_of_an_import_are_reported() -> None:
    async with world(failing_emails=frozenset({EVE.email})) as it:
        assert (await imported(it, ANN, EVE)).failures == {EVE.email}


async def test_an_import_that_leaves_out_an_excluded_address_is_short_and_the_look_up_says_of_whom() -> None:
    async with world(excluded_emails=frozenset({EVE.email}), excluded_are_not_queued=True) as it:
        await it.setup.set_up()
        adapter = it.contacts(await it.setup.ids())
        accepted = await adapter.start_import([ANN, BOB, EVE], exclude_automations=True)

        assert accepted.is_short
        assert await adapter.import_report(accepted.id) == ImportReport(ImportState.COMPLETED)
        assert [await adapter.find(contact.email) for contact in (ANN, BOB, EVE)] == [True, True, False]
        assert not (await adapter.start_import([ANN, BOB], exclude_automations=True)).is_short
        assert not it.account.tally.breaches


async def test_an_import_is_running_until_it_is_completed() -> None:
    async with world(import_duration_s=1.1) as it:
        await it.setup.set_up()
        adapter = it.contacts(await it.setup.ids())
        accepted = await adapter.start_import([ANN], exclude_automations=True)
        states = [(await adapter.import_report(accepted.id)).state]
        while states[-1] is ImportState.RUNNING:
            await asyncio.sleep(0.05)
            states.append((await adapter.import_report(accepted.id)).state)

        assert states[0] is ImportState.RUNNING
        assert states[-1] is ImportState.COMPLETED


async def test_an_import_that_nobody_knows_is_lost() -> None:
    async with world() as it:
        report = await it.contacts(AccountIds(1, 1)).import_report("a/b?c")

        assert report.state is ImportState.LOST


@pytest.mark.parametrize("kind", [FaultKind.RESET_AFTER, FaultKind.ERROR_AFTER, FaultKind.HTML_200])
async def test_an_import_whose_answer_is_lost_is_sent_again(kind: FaultKind) -> None:
    async with world(faults=(Fault(path="/import/bulk_import", kind=kind, count=2),)) as it:
        report = await imported(it, ANN, BOB)

        assert report.state is ImportState.COMPLETED
        assert len(it.account.contacts) == 2


async def test_one_contact_alone_is_created_and_updated_without_its_list() -> None:
    async with world() as it:
        await it.setup.set_up()
        adapter = it.contacts(await it.setup.ids())
        await adapter.sync(ANN)
        await adapter.sync(msgspec.structs.replace(ANN, first_name="Anna", customer_id="70"))

        ann = it.account.contacts.find(ANN.email)
        assert ann
        assert (ann.first_name, ann.last_name, list(ann.fields.values())) == ("Anna", "Archer", ["70"])
        assert ann.lists == {}
        assert not it.account.tally.breaches


async def test_a_contact_that_activecampaign_refuses_is_rejected() -> None:
    async with world(invalid_emails=frozenset({ANN.email})) as it:
        with pytest.raises(Rejected) as caught:
            await it.contacts(AccountIds(1, 1)).sync(ANN)

        assert "email_invalid" in caught.value.reply


# --- events


async def test_an_event_arrives_as_it_was_sent() -> None:
    eventdata = "reason=too expensive & more; by=admin; at=2018-03-04T17:02:10Z; log=12345"
    async with world() as it:
        await imported(it, ANN)
        await it.events.send(ANN.email, "Customer cancelled", eventdata)

        [event] = it.account.events_of(ANN.email)
        assert (event.name, event.eventdata) == ("Customer cancelled", eventdata)
        assert not it.account.tally.breaches


@pytest.mark.parametrize("plain", [False, True])
async def test_an_event_name_that_was_deleted_is_registered_again(plain: bool) -> None:
    async with world(plain_event_replies=plain) as it:
        await imported(it, ANN)
        del it.account.event_names["Customer cancelled"]
        await it.events.send(ANN.email, "Customer cancelled", "log=1")

        assert len(it.account.events_of(ANN.email)) == 1


@pytest.mark.parametrize("plain", [False, True])
async def test_tracking_switched_off_refuses_the_account(plain: bool) -> None:
    async with world(plain_event_replies=plain) as it:
        await imported(it, ANN)
        it.account.change(tracking_enabled=False)

        with pytest.raises(AccountRefused, match="tracking is on"):
            await it.events.send(ANN.email, "Customer cancelled", "log=1")


async def test_a_wrong_event_key_refuses_the_account_and_is_not_told() -> None:
    async with world(changes={"event_key": "wrong-key"}, tracking_enabled=True) as it:
        with pytest.raises(AccountRefused, match="event_key") as caught:
            await it.events.send(ANN.email, "Customer cancelled", "log=1")
        assert "wrong-key" not in str(caught.value)


@pytest.mark.parametrize("kind", [FaultKind.THROTTLED, FaultKind.FORBIDDEN, FaultKind.LAPSED])
async def test_an_event_survives_throttling_and_a_blip_of_the_key(kind: FaultKind) -> None:
    async with world(faults=(Fault(path="/event", kind=kind, count=2),), retry_after_s=0) as it:
        await imported(it, ANN)
        await it.events.send(ANN.email, "Customer cancelled", "log=1")

        assert len(it.account.events_of(ANN.email)) == 1


@pytest.mark.parametrize(
    ("kind", "arrived"),
    [
        (FaultKind.ERROR_BEFORE, 0),
        (FaultKind.ERROR_AFTER, 1),
        (FaultKind.HTML_503, 0),
        (FaultKind.HTML_200, 0),
        (FaultKind.RESET_BEFORE, 0),
        (FaultKind.RESET_AFTER, 1),
        (FaultKind.HANG, 0),
    ],
)
async def test_an_event_whose_outcome_is_unknown_is_sent_once(kind: FaultKind, arrived: int) -> None:
    faults = (Fault(path="/event", kind=kind, count=1),)
    async with world(faults=faults, changes={"request_timeout_s": 0.2}) as it:
        await imported(it, ANN)
        with pytest.raises(UnknownOutcome):
            await it.events.send(ANN.email, "Customer cancelled", "log=1")

        assert len(it.account.events_of(ANN.email)) == arrived
        assert it.running.faults.drawn[kind] == 1


async def test_an_event_that_is_refused_for_good_is_rejected() -> None:
    async with world(faults=(Fault(path="/event", kind=FaultKind.REFUSED_EVENT, count=1),)) as it:
        await imported(it, ANN)
        with pytest.raises(Rejected):
            await it.events.send(ANN.email, "Customer cancelled", "log=1")


# --- connections


@asynccontextmanager
async def dribble(text: bytes) -> AsyncIterator[str]:
    """Run a server that answers one request with a byte at a time, for as long as somebody reads."""
    ended = asyncio.Event()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            for byte in chain(text, repeat(ord(" "))):
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.02)
        with suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()
        ended.set()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await ended.wait()


async def test_a_call_whose_answer_comes_to_no_end_is_given_up() -> None:
    async with (
        dribble(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{") as url,
        world(changes={"api_url": url, "request_timeout_s": 0.2}, patience_s=0) as it,
    ):
        with pytest.raises(TryLater, match=r"no whole answer within 0\.2 s"):
            await it.setup.missing()


# --- limits


async def test_a_read_whose_connection_is_cut_is_not_sent_twice_behind_the_budget() -> None:
    faults = (Fault(path="/lists", kind=FaultKind.RESET_BEFORE),)
    async with world(faults=faults, patience_s=0) as it:
        await it.contacts(AccountIds(1, 1)).import_report("x")  # leaves a connection that is kept
        with pytest.raises((TryLater, SettingsError)):
            await it.setup.ids()

        assert it.running.faults.drawn[FaultKind.RESET_BEFORE] == 1


async def test_five_requests_a_second_are_used_and_never_passed_behind_jitter() -> None:
    async with (
        sandbox(jitter_ms=60) as running,
        Client(settings_for(running, {})) as client,
    ):
        contacts: ports.Contacts = Contacts(settings_for(running, {}), client, AccountIds(1, 1))
        loop = asyncio.get_running_loop()
        await contacts.import_report("the first second belongs to the process before")
        began = loop.time()
        await asyncio.gather(*(contacts.import_report(f"id-{number}") for number in range(24)))
        account = running.account("shop")

        assert account.peak.highest <= 5
        assert account.tally.replies["429"] == 0
        assert 25 / (loop.time() - began + 1) >= 0.88 * 5
