"""The adapter against the sandbox, over HTTP: what it creates, sends and survives."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from itertools import chain, repeat
from typing import Any, NamedTuple, cast

import msgspec
import pytest

from kiva_stream.activecampaign.account_ids import field_titles
from kiva_stream.activecampaign.account_setup import AccountRequirements, AccountSetup
from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.contacts import Contacts
from kiva_stream.activecampaign.events import Events
from kiva_stream.activecampaign.orders import OrderBatches
from kiva_stream.activecampaign.tags import TagLinks
from kiva_stream.activecampaign.tracking_log import TrackingLogs
from kiva_stream.errors import (
    AccountRefused,
    AddressTaken,
    ContactGone,
    OrdersRejected,
    Rejected,
    RowsRejected,
    SettingsError,
    TryLater,
    UnknownOutcome,
)
from kiva_stream.events.payload import render
from kiva_stream.model.account_ids import AccountIds
from kiva_stream.model.bulk_imports import ImportReport, ImportState
from kiva_stream.model.contacts import DesiredContact, ListStatus
from kiva_stream.model.event_catalog import CATALOG
from kiva_stream.model.ids import AcId, ContactId, CustomerId, Email, OrderId
from kiva_stream.model.orders import DesiredOrder, LineItem, OrderSource
from kiva_stream.model.tracked_events import mark_of, shows
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.observability.incidents import Incidents
from kiva_stream.ports import destination
from kiva_stream.ports.state import Links
from kiva_stream.sandbox.activecampaign import Account, Fault, FaultKind, Running
from kiva_stream.sandbox.activecampaign.contacts import Contact as SandboxContact
from kiva_stream.sandbox.activecampaign.contacts import Table
from kiva_stream.settings.sections import ActiveCampaignSettings
from kiva_stream.sync.batch_size import BatchSize
from kiva_stream.sync.order_changes import OrderChange
from kiva_stream.sync.order_kind import order_kind
from kiva_stream.sync.order_writes import OrderWrites
from tests.fakes.state_held import held_records
from tests.fakes.state_orders import FakeOrderLinks, FakeSentOrders
from tests.support.sandbox import SHOP, sandbox, shop

IN_NO_TIME: dict[str, object] = {
    "requests_per_second": 0,
    "bulk_imports_per_minute": 0,
    "single_imports_per_minute": 0,
    "import_duration_s": 0,
}
NO_IDS = AccountIds(1, {"customer_id": 1}, dict.fromkeys(WeekTag, 1), 1)  # of an account not set up
ANN = DesiredContact(Email("ann@example.org"), "Ann", "Archer", "+1 555", "7", ListStatus.SUBSCRIBE)
BOB = DesiredContact(Email("bob@example.org"), "Bob", "", "", "8", ListStatus.UNSUBSCRIBE)
SENT_AT = datetime(2018, 3, 4, 17, 2, 10, tzinfo=UTC)
DIGITS = "234567890123456789"
TAIL = f"; at=2018-03-04T17:02:10Z; log=8{DIGITS}"
EVE = DesiredContact(Email("eve@example.org"), "", "", "", "9", ListStatus.KEEP)


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


def wanted(settings: ActiveCampaignSettings) -> AccountRequirements:
    """Return what site 7 wants of its account."""
    return AccountRequirements(
        site_id=7,
        site_name="Green Box",
        titles=field_titles(settings),
        sender_url="https://shop.example",
        sender_reminder="You are a customer.",
        link_url="https://shop.example/admin",
        logo_url="https://shop.example/logo.png",
    )


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
    events: destination.Events

    def contacts(self, ids: AccountIds) -> destination.Contacts:
        return Contacts(settings_for(self.running, {}), self.client, ids, clock=fast_clock)

    def tags(self, ids: AccountIds) -> destination.WeekTags:
        return TagLinks(self.client, ids)

    def orders(self, ids: AccountIds) -> destination.OrderUploads:
        return OrderBatches(self.client, ids)

    async def set_up(self) -> AccountIds:
        await self.setup.set_up()
        return await self.setup.ids()

    def contact(self, email: str) -> SandboxContact:
        contact = self.account.contacts.find(email)
        assert contact
        return contact


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
            setup = AccountSetup(client, wanted(settings))
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
            "the text field 'Kiva Status'",
            "the text field 'Kiva Box Type'",
            "the date field 'Kiva Next Delivery'",
            "the date field 'Kiva Cancel Date'",
            "the date field 'Kiva Birthday'",
            "the tag 'open order'",
            "the tag 'closed order'",
            "the tag 'no order'",
            "the connection 'kiva_logic' of site 7",
        ]
        assert await it.setup.missing() == []
        assert await it.setup.set_up() == []

        assert it.account.settings.tracking_enabled
        assert list(it.account.event_names) == CATALOG.ac_names()
        [created] = it.account.lists.where(name="all customers")
        assert created["stringid"] == "all-customers"
        assert created["sender_url"] == "https://shop.example"
        assert created["sender_reminder"] == "You are a customer."
        assert {(field["title"], field["type"]) for field in it.account.fields.where()} == {
            ("Kiva Customer ID", "text"),
            ("Kiva Status", "text"),
            ("Kiva Box Type", "text"),
            ("Kiva Next Delivery", "date"),
            ("Kiva Cancel Date", "date"),
            ("Kiva Birthday", "date"),
        }
        assert [(row["field"], row["relid"]) for row in it.account.field_relations.where()] == [
            (field["id"], "0") for field in it.account.fields.where()
        ]
        assert [(tag["tag"], tag["tagType"]) for tag in it.account.tags.where()] == [
            ("open order", "contact"),
            ("closed order", "contact"),
            ("no order", "contact"),
        ]
        [connection] = it.account.connections.where(service="kiva_logic", externalid="7")
        assert connection["name"] == "Green Box"
        assert connection["linkUrl"] == "https://shop.example/admin"
        assert connection["logoUrl"] == "https://shop.example/logo.png"
        assert not it.account.tally.breaches


async def test_the_search_for_what_is_missing_changes_nothing() -> None:
    async with world() as it:
        await it.setup.missing()

        assert set(it.account.tally.requests) == {
            "getEventTracking",
            "listEventNames",
            "listLists",
            "listFields",
            "listTags",
            "listConnections",
        }


async def test_setup_finds_what_is_there_on_later_pages() -> None:
    async with world(event_names=tuple(f"Other {number}" for number in range(150))) as it:
        for number in range(230):
            it.account.lists.add({"name": f"other {number}", "stringid": f"other-{number}"})
            it.account.fields.add({"title": f"Other {number}", "type": "text"})
            it.account.add_tag(f"order {number}", kind="contact", description="", now=0)
            it.account.connections.add({"service": "kiva_logic", "externalid": str(1_000 + number)})
        await it.setup.set_up()
        requests = it.account.tally.requests.total()

        assert await it.setup.ids() == AccountIds(
            list_id=231,
            fields={
                "customer_id": 231,
                "status": 232,
                "box_type": 233,
                "next_delivery": 234,
                "cancel_date": 235,
                "birthday": 236,
            },
            tags={WeekTag.OPEN: 231, WeekTag.CLOSED: 232, WeekTag.NONE: 233},
            connection_id=231,
        )
        assert it.account.tally.requests.total() - requests == 3 + 3 + 3 + 1  # three pages of each listing
        assert await it.setup.missing() == []


@pytest.mark.parametrize("most_rows", [1, 7, 20, 60])
async def test_a_listing_that_is_shorter_than_asked_is_read_to_its_total(most_rows: int) -> None:
    async with world(most_rows_per_page=most_rows) as it:
        await it.set_up()
        for number in range(30):
            it.account.add_tag(f"order {number}", kind="contact", description="", now=0)
        assert await it.setup.missing() == []


async def test_setup_creates_only_what_is_missing() -> None:
    async with world() as it:
        await it.setup.set_up()
        del it.account.event_names["Customer cancelled"]
        [birthday] = it.account.fields.where(title="Kiva Birthday")
        del it.account.field_relations.rows[int(birthday["id"])]
        [status] = it.account.fields.where(title="Kiva Status")
        del it.account.fields.rows[int(status["id"])]
        [closed] = it.account.tags.where(tag="closed order")
        del it.account.tags.rows[int(closed["id"])]

        assert await it.setup.set_up() == [
            "the event name 'Customer cancelled'",
            "the text field 'Kiva Status'",
            "the relation of the field 'Kiva Birthday' to all lists",
            "the tag 'closed order'",
        ]
        assert not it.account.tally.breaches


async def test_setup_prefers_a_list_of_the_exact_name() -> None:
    async with world() as it:
        it.account.lists.add({"name": "not all customers", "stringid": "x"})
        it.account.lists.add({"name": "All Customers", "stringid": "y"})
        it.account.lists.add({"name": "all customers", "stringid": "z"})
        await it.setup.set_up()

        assert (await it.setup.ids()).list_id == 3


async def test_what_exists_in_other_letters_is_used_as_it_is() -> None:
    names = tuple(name.upper() for name in CATALOG.ac_names())
    async with world(names_ignore_case=True, event_names=names) as it:
        it.account.lists.add({"name": "All Customers", "stringid": "all-customers"})
        it.account.add_tag("Open Order", kind="contact", description="", now=0)
        it.account.add_tag("No Order ", kind="contact", description="", now=0)
        it.account.fields.add({"title": "KIVA STATUS", "type": "text"})
        missing = await it.setup.missing()
        assert await it.setup.set_up() == missing
        ids = await it.setup.ids()

        assert not {"the list 'all customers'", "41 event names", "the text field 'Kiva Status'"} & {*missing}
        assert (ids.list_id, ids.fields["status"]) == (1, 1)
        assert ids.tags == {WeekTag.OPEN: 1, WeekTag.NONE: 2, WeekTag.CLOSED: 3}
        assert ids.tag_names == {WeekTag.OPEN: "Open Order", WeekTag.NONE: "No Order "}
        assert await it.setup.missing() == []
        assert not it.account.tally.breaches


@pytest.mark.parametrize("ignores_case", [True, False])
async def test_an_import_gives_the_tag_by_the_name_that_it_has(*, ignores_case: bool) -> None:
    async with world(names_ignore_case=ignores_case) as it:
        it.account.add_tag("Open Order", kind="contact", description="", now=0)
        await imported(it, msgspec.structs.replace(ANN, tag=WeekTag.OPEN), BOB)
        contact = AcId(it.contact(ANN.email).id)

        assert (await it.tags(await it.setup.ids()).links(contact)).keys() == {WeekTag.OPEN}
        assert len(it.account.tags.where()) == len(WeekTag)


async def test_setup_accepts_what_another_client_created_meanwhile() -> None:
    async with world() as it:
        steps = await it.setup.missing()
        await asyncio.gather(it.setup.set_up(), it.setup.set_up(), return_exceptions=True)

        assert len(steps) == 13
        assert await it.setup.set_up() == []


# The status with which ActiveCampaign refuses a title that is taken is not documented.
@pytest.mark.parametrize(("status", "code"), [(422, "duplicate"), (422, ""), (400, ""), (409, "")])
async def test_a_field_of_our_title_but_another_type_is_one_sentence_whatever_the_status(
    status: int, code: str
) -> None:
    text = msgspec.json.encode({"errors": [{"title": "taken", "code": code}]}).decode()
    fault = Fault(path="/fields", method="POST", kind=FaultKind.ANSWER_BEFORE, status=status, text=text)
    async with world(faults=(fault,)) as it:
        it.account.fields.add({"title": "kiva customer ID", "type": "number"})

        with pytest.raises(SettingsError) as caught:
            await it.setup.set_up()
    assert str(caught.value) == (
        "ActiveCampaign cannot have the text field 'Kiva Customer ID', since there is the number field "
        "'kiva customer ID': rename that, or set activecampaign.field_customer_id to another title"
    )


async def test_a_list_that_has_our_string_id_is_one_sentence() -> None:
    async with world() as it:
        it.account.lists.add({"name": "Everybody", "stringid": "all-customers"})

        with pytest.raises(SettingsError, match="the list 'Everybody' has its string id: rename that list"):
            await it.setup.set_up()


@pytest.mark.parametrize("key", ["sender_url", "link_url", "logo_url"])
async def test_no_url_is_sent_empty(key: str) -> None:
    async with world() as it:
        settings = settings_for(it.running, {})
        requirements = msgspec.structs.replace(wanted(settings), **{key: ""})

        with pytest.raises(SettingsError, match=f"no admin_base_url .* set activecampaign.*_{key}"):
            await AccountSetup(it.client, requirements).set_up()
        assert not it.account.tally.breaches


@pytest.mark.parametrize("other", ["not an open order", "open orders"])
async def test_setup_accepts_a_tag_of_the_whole_name_only(other: str) -> None:
    async with world() as it:
        it.account.add_tag(other, kind="contact", description="", now=0)

        assert (await it.set_up()).tags == {WeekTag.OPEN: 2, WeekTag.CLOSED: 3, WeekTag.NONE: 4}


async def test_a_hidden_tag_of_our_name_is_an_error() -> None:
    async with world() as it:
        it.account.add_tag("open order", kind="template", description="", now=0)

        with pytest.raises(SettingsError, match="the tag 'open order', since there is one of the type"):
            await it.setup.set_up()


async def test_a_connection_belongs_to_its_site() -> None:
    async with world() as it:
        it.account.connections.add({"service": "kiva_logic", "externalid": "77"})
        it.account.connections.add({"service": "another", "externalid": "7"})

        assert (await it.set_up()).connection_id == 3


def lose_a_row(table: Table, **values: str) -> None:
    """Delete the row with these values."""
    [row] = table.where(**values)
    del table.rows[int(row["id"])]


@pytest.mark.parametrize(
    "lose",
    [
        lambda account: lose_a_row(account.lists, name="all customers"),
        lambda account: lose_a_row(account.fields, title="Kiva Birthday"),
        lambda account: lose_a_row(account.tags, tag="no order"),
        lambda account: lose_a_row(account.connections, externalid="7"),
    ],
)
async def test_there_are_no_ids_as_long_as_anything_is_missing(lose: Callable[[Account], None]) -> None:
    async with world() as it:
        await it.set_up()
        lose(it.account)

        with pytest.raises(SettingsError, match="kiva-stream setup"):
            await it.setup.ids()


async def test_the_look_up_of_ids_before_setup_says_which_command_to_run() -> None:
    async with world() as it:
        with pytest.raises(SettingsError, match="kiva-stream setup"):
            await it.setup.ids()


async def test_a_wrong_key_refuses_the_account() -> None:
    async with world(changes={"api_token": "wrong-token"}) as it:
        with pytest.raises(AccountRefused, match="api_token") as caught:
            await it.setup.missing()
        assert "wrong-token" not in str(caught.value)


async def test_an_address_without_a_server_is_an_error_once_patience_is_over() -> None:
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


async def test_the_accounts_list_says_how_many_imports_have_not_ended() -> None:
    async with world(import_duration_s=1e6) as it:
        await it.setup.set_up()
        adapter = it.contacts(await it.setup.ids())
        assert await adapter.outstanding_imports() == 0
        for _ in range(2):
            await adapter.start_import([ANN, BOB], exclude_automations=True)
        assert await adapter.outstanding_imports() == 2


async def test_an_import_writes_names_field_and_list() -> None:
    async with world() as it:
        report = await imported(it, ANN, BOB, EVE)
        ids = await it.setup.ids()

        assert report == ImportReport(ImportState.COMPLETED)
        ann, bob, eve = (it.account.contacts.find(contact.email) for contact in (ANN, BOB, EVE))
        assert ann
        assert bob
        assert eve
        assert (ann.first_name, ann.last_name, ann.phone) == ("Ann", "Archer", "+1 555")
        assert [contact.fields[ids.fields["customer_id"]] for contact in (ann, bob, eve)] == ["7", "8", "9"]
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


async def test_an_import_without_an_excluded_address_is_short_and_a_look_up_finds_which() -> None:
    async with world(excluded_emails=frozenset({EVE.email}), excluded_are_not_queued=True) as it:
        await it.setup.set_up()
        adapter = it.contacts(await it.setup.ids())
        accepted = await adapter.start_import([ANN, BOB, EVE], exclude_automations=True)

        assert accepted.is_short
        assert await adapter.import_report(accepted.id) == ImportReport(ImportState.COMPLETED)
        assert [await adapter.find(contact.email) for contact in (ANN, BOB, EVE)] == [1, 2, None]
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


async def test_an_import_of_an_unknown_id_is_reported_as_lost() -> None:
    async with world() as it:
        report = await it.contacts(NO_IDS).import_report("a/b?c")

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
        created = await adapter.upsert(ANN)
        updated = await adapter.upsert(msgspec.structs.replace(ANN, first_name="Anna", customer_id="70"))

        assert created == updated == it.contact(ANN.email).id
        ann = it.account.contacts.find(ANN.email)
        assert ann
        assert (ann.first_name, ann.last_name, ann.fields[1]) == ("Anna", "Archer", "70")
        assert ann.lists == {}
        assert not it.account.tally.breaches


async def test_a_name_and_a_phone_are_cleared_only_where_that_is_asked_for() -> None:
    bare = msgspec.structs.replace(ANN, first_name="", last_name="", phone="")
    async with world() as it:
        adapter = it.contacts(await it.set_up())
        await adapter.upsert(ANN)
        ann = it.contact(ANN.email)
        await adapter.upsert(bare)
        assert (ann.first_name, ann.last_name, ann.phone) == ("Ann", "Archer", "+1 555")
        await adapter.upsert(bare, clear={"last_name", "phone"})
        assert (ann.first_name, ann.last_name, ann.phone) == ("Ann", "", "")
        assert not it.account.tally.breaches


async def test_a_contact_that_activecampaign_refuses_is_rejected() -> None:
    async with world(invalid_emails=frozenset({ANN.email})) as it:
        with pytest.raises(Rejected) as caught:
            await it.contacts(NO_IDS).upsert(ANN)

        assert "email_invalid" in caught.value.reply


async def test_all_fields_and_the_tag_arrive_by_import_and_are_cleared_by_either_way() -> None:
    full = msgspec.structs.replace(
        ANN,
        status="active",
        next_delivery="2024-05-02",
        cancel_date="2024-06-03",
        birthday="1904-02-29",
        box_type="Medium Box",
        tag=WeekTag.CLOSED,
    )
    kept = msgspec.structs.replace(ANN, box_type=None, status="paused")
    async with world() as it:
        await imported(it, full, EVE)
        ids = await it.setup.ids()
        ann = it.contact(ANN.email)

        def shown() -> dict[str, str]:
            return {name: ann.fields[number] for name, number in ids.fields.items()}

        assert shown() == {
            "customer_id": "7",
            "status": "active",
            "box_type": "Medium Box",
            "next_delivery": "2024-05-02",
            "cancel_date": "2024-06-03",
            "birthday": "1904-02-29",
        }
        assert set(ann.tags) == {ids.tags[WeekTag.CLOSED]}
        assert not it.contact(EVE.email).tags

        await it.contacts(ids).upsert(kept)
        assert shown() == dict.fromkeys(ids.fields, "") | {
            "customer_id": "7",
            "status": "paused",
            "box_type": "Medium Box",
        }

        await it.contacts(ids).upsert(full)
        await imported(it, kept, EVE)
        assert shown()["next_delivery"] == ""
        assert shown()["box_type"] == "Medium Box"

        await imported(it, msgspec.structs.replace(kept, status="", customer_id="", box_type=""), EVE)
        assert set(shown().values()) == {""}
        assert set(ann.tags) == {ids.tags[WeekTag.CLOSED]}
        assert not it.account.tally.breaches


async def test_the_largest_contacts_that_fit_are_imported_and_one_more_byte_is_too_much() -> None:
    long = msgspec.structs.replace(EVE, first_name="ä" * 2_000, last_name="\n" * 100)
    many = [msgspec.structs.replace(long, email=Email(f"c{number:03}@example.org")) for number in range(250)]
    async with world() as it:
        ids = await it.set_up()
        adapter = it.contacts(ids)
        size = adapter.count_fitting(many)
        assert 1 < size < 250

        await adapter.start_import(many[:size], exclude_automations=False)
        assert not it.account.tally.breaches
        with pytest.raises(Rejected):
            await adapter.start_import(many[: size + 1], exclude_automations=False)
        assert "at most 399999" in it.account.tally.examples[0]


async def test_contacts_are_listed_a_hundred_at_a_time_in_the_order_of_their_ids() -> None:
    async with world() as it:
        for number in range(230):
            it.account.contacts.create(f"C{number}@Example.org", 0)
        it.account.contacts.delete(it.contact("c150@example.org"))
        adapter = it.contacts(await it.set_up())
        pages = [await adapter.page(AcId(0))]
        while pages[-1]:
            pages.append(await adapter.page(max(pages[-1].values())))

        assert [len(page) for page in pages] == [100, 100, 29, 0]
        listed = [each for page in pages for each in page.items()]
        assert listed == [(f"c{number}@example.org", number + 1) for number in range(230) if number != 150]
        assert not it.account.tally.breaches


async def test_a_contact_moves_to_another_address_with_all_it_has() -> None:
    async with world() as it:
        await imported(it, ANN, BOB)
        adapter = it.contacts(await it.setup.ids())
        ann = it.contact(ANN.email)
        await adapter.rename(AcId(ann.id), Email("ann.archer+box@example.org"))

        assert it.contact("ann.archer+box@example.org") is ann
        assert await adapter.find(Email("ann.archer+box@example.org")) == ann.id
        assert await adapter.find(ANN.email) is None
        assert (ann.first_name, ann.lists) == ("Ann", {1: 1})
        assert not it.account.tally.breaches


async def test_a_contact_does_not_move_to_an_address_that_another_has() -> None:
    async with world() as it:
        await imported(it, ANN, BOB)
        adapter = it.contacts(await it.setup.ids())
        with pytest.raises(AddressTaken):
            await adapter.rename(AcId(it.contact(ANN.email).id), BOB.email)

        assert it.contact(ANN.email).first_name == "Ann"
        assert not it.account.tally.breaches


async def test_every_call_for_a_contact_that_is_gone_raises_contact_gone() -> None:
    async with world() as it:
        ids = await it.set_up()
        nobody = AcId(99)
        with pytest.raises(ContactGone):
            await it.contacts(ids).rename(nobody, ANN.email)
        with pytest.raises(ContactGone):
            await it.contacts(ids).set_list(nobody, subscribed=False)
        with pytest.raises(ContactGone):
            await it.tags(ids).links(nobody)
        with pytest.raises(ContactGone):
            await it.tags(ids).add(nobody, WeekTag.OPEN)
        assert not it.account.tally.breaches


async def test_an_address_that_is_refused_does_not_move_a_contact() -> None:
    async with world(invalid_emails=frozenset({"no@example.org"})) as it:
        await imported(it, ANN, BOB)
        adapter = it.contacts(await it.setup.ids())
        with pytest.raises(Rejected) as caught:
            await adapter.rename(AcId(it.contact(ANN.email).id), Email("no@example.org"))

        assert type(caught.value) is Rejected


async def test_a_contact_is_unsubscribed_and_resubscribed() -> None:
    async with world() as it:
        await imported(it, ANN, BOB)
        ids = await it.setup.ids()
        ann = it.contact(ANN.email)
        await it.contacts(ids).set_list(AcId(ann.id), subscribed=False)
        assert ann.lists == {ids.list_id: 2}

        await it.contacts(ids).set_list(AcId(ann.id), subscribed=True)
        assert ann.lists == {ids.list_id: 1}
        assert not it.account.tally.breaches


async def test_disowning_a_contact_that_is_gone_does_not_create_it() -> None:
    async with world() as it:
        await imported(it, ANN, BOB)
        ids = await it.setup.ids()
        there = len(it.account.contacts)
        with pytest.raises(ContactGone):
            await it.contacts(ids).clear_customer_id(AcId(9_999))
        assert len(it.account.contacts) == there


async def test_a_disowned_contact_loses_its_customer_id_and_nothing_else() -> None:
    async with world() as it:
        await imported(it, msgspec.structs.replace(ANN, status="active"), BOB)
        ids = await it.setup.ids()
        ann = it.contact(ANN.email)
        await it.contacts(ids).clear_customer_id(AcId(ann.id))

        assert ann.fields[ids.fields["customer_id"]] == ""
        assert ann.fields[ids.fields["status"]] == "active"
        assert (ann.first_name, ann.lists) == ("Ann", {ids.list_id: 1})
        assert not it.account.tally.breaches


# --- tags


async def test_a_tag_is_added_to_a_contact_found_and_removed_by_its_link() -> None:
    async with world() as it:
        await imported(it, ANN, BOB)
        ids = await it.setup.ids()
        tags, ann = it.tags(ids), it.contact(ANN.email)
        it.account.tag(ann, it.account.tag_named("a friend's", 0), 0)
        contact = AcId(ann.id)
        link = await tags.add(contact, WeekTag.OPEN)

        assert await tags.add(contact, WeekTag.OPEN) == link
        assert await tags.links(contact) == {WeekTag.OPEN: link}

        await tags.remove(link)
        await tags.remove(link)
        assert await tags.links(contact) == {}
        assert len(ann.tags) == 1
        assert await tags.add(contact, WeekTag.NONE) != link
        assert not it.account.tally.breaches


async def test_a_tag_that_was_deleted_is_refused() -> None:
    async with world() as it:
        await imported(it, ANN, BOB)
        ids = await it.setup.ids()
        it.account.tags.rows.clear()

        with pytest.raises(Rejected):
            await it.tags(ids).add(AcId(it.contact(ANN.email).id), WeekTag.OPEN)


@pytest.mark.parametrize("kind", [FaultKind.RESET_AFTER, FaultKind.ERROR_AFTER])
async def test_a_tag_whose_removal_got_no_answer_is_removed(kind: FaultKind) -> None:
    async with world(faults=(Fault(path="/contactTags/*", kind=kind, count=1),)) as it:
        await imported(it, ANN, BOB)
        ids = await it.setup.ids()
        contact = AcId(it.contact(ANN.email).id)
        await it.tags(ids).remove(await it.tags(ids).add(contact, WeekTag.OPEN))

        assert await it.tags(ids).links(contact) == {}


# --- orders


def order(number: int, **changes: object) -> DesiredOrder:
    """Return an order of Ann's."""
    ordered = DesiredOrder(
        id=OrderId(number),
        customer_id=CustomerId(7),
        email=ANN.email,
        created_at=datetime(2024, 3, 2, 7, 0, 5, 900_000, timezone(timedelta(hours=2))),
        normalized_status="COMPLETED",
        store_status="complete",
        currency="ZAR",
        total_cents=3_150,
        discounts_cents=5,
        source=OrderSource.HISTORICAL,
        lines=(
            LineItem("1", "12", "Box M", "menu", 1, 2_900),
            LineItem("2", "", "Eggs", "addon", 3, 83),
        ),
    )
    return msgspec.structs.replace(ordered, **changes)


async def test_orders_arrive_as_they_were_sent() -> None:
    async with world(order_delay_s=0) as it:
        await imported(it, ANN, BOB)
        ids = await it.setup.ids()
        many = [order(number) for number in range(1, 60)]
        refund = order(60, normalized_status="REFUNDED", source=OrderSource.REAL_TIME, lines=())
        await it.orders(ids).upsert([*many, refund])

        written = {each["storeOrderId"]: each for each in it.running.account("shop").orders}
        assert list(written) == [str(number) for number in range(1, 61)]
        first, last = written["1"], written["60"]
        assert {key: first[key] for key in first if key not in {"id", "lineItems"}} == {
            "legacyConnectionId": ids.connection_id,
            "storeOrderId": "1",
            "orderNumber": "1",
            "storeCustomerId": "7",
            "email": "ann@example.org",
            "storeCreatedDate": "2024-03-02T05:00:05Z",
            "creationSource": "HISTORICAL",
            "normalizedStatus": "COMPLETED",
            "storeStatus": "complete",
            "currency": "ZAR",
            "finalAmount": 31.5,
            "discountsAmount": 0.05,
        }
        assert first["lineItems"] == [
            {
                "storeLineItemId": "1",
                "productStorePrimaryId": "12",
                "name": "Box M",
                "category": "menu",
                "quantity": 1,
                "priceAmount": 29,
            },
            {
                "storeLineItemId": "2",
                "name": "Eggs",
                "category": "addon",
                "quantity": 3,
                "priceAmount": 0.83,
            },
        ]
        assert (last["normalizedStatus"], last["creationSource"]) == ("REFUNDED", "REAL_TIME")
        assert last["lineItems"] == []
        assert (it.contact(ANN.email).first_name, it.contact(ANN.email).phone) == ("Ann", "+1 555")
        assert it.account.tally.requests["ecomGraphql"] == 1
        assert not it.account.tally.breaches


async def test_an_order_at_fault_is_named_and_none_of_its_batch_is_written() -> None:
    async with world(order_delay_s=0, invalid_orders=frozenset({"4", "59"})) as it:
        ids = await it.set_up()
        with pytest.raises(OrdersRejected) as caught:
            await it.orders(ids).upsert([order(number) for number in range(1, 61)])

        assert caught.value.reasons == {4: "the order is invalid", 59: "the order is invalid"}
        assert len(it.running.account("shop").orders) == 0
        assert not it.account.tally.breaches


@pytest.mark.parametrize("kind", [FaultKind.RESET_AFTER, FaultKind.ERROR_AFTER, FaultKind.HTML_200])
async def test_orders_whose_answer_is_lost_are_sent_again(kind: FaultKind) -> None:
    async with world(order_delay_s=0, faults=(Fault(path="/ecom/graphql", kind=kind, count=1),)) as it:
        ids = await it.set_up()
        await it.orders(ids).upsert([order(1), order(2)])

        assert len(it.running.account("shop").orders) == 2


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


async def test_a_wrong_event_key_refuses_the_account_and_is_masked() -> None:
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


async def test_a_call_whose_answer_does_not_end_is_tried_later_after_the_time_out() -> None:
    async with (
        dribble(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{") as url,
        world(changes={"api_url": url, "request_timeout_s": 0.2}, patience_s=0) as it,
    ):
        with pytest.raises(TryLater, match=r"no whole answer within 0\.2 s"):
            await it.setup.missing()


# --- limits


async def test_a_read_whose_connection_is_cut_is_not_repeated_without_a_slot() -> None:
    faults = (Fault(path="/lists", kind=FaultKind.RESET_BEFORE),)
    async with world(faults=faults, patience_s=0) as it:
        await it.contacts(NO_IDS).import_report("x")  # leaves a connection that is kept
        with pytest.raises((TryLater, SettingsError)):
            await it.setup.ids()

        assert it.running.faults.drawn[FaultKind.RESET_BEFORE] == 1


async def test_five_requests_a_second_are_used_and_never_passed_behind_jitter() -> None:
    async with (
        sandbox(jitter_ms=60) as running,
        Client(settings_for(running, {})) as client,
    ):
        contacts: destination.Contacts = Contacts(settings_for(running, {}), client, NO_IDS)
        loop = asyncio.get_running_loop()
        await contacts.import_report("the first second belongs to the process before")
        began = loop.time()
        await asyncio.gather(*(contacts.import_report(f"id-{number}") for number in range(24)))
        account = running.account("shop")

        assert account.peak.highest <= 5
        assert account.tally.responses["429"] == 0
        assert 25 / (loop.time() - began + 1) >= 0.88 * 5


async def test_week_tags_wait_for_all_other_calls_but_are_added_with_them() -> None:
    async with sandbox(latency_ms=20) as running, Client(settings_for(running, {})) as client:
        account = running.account("shop")
        contacts: destination.Contacts = Contacts(settings_for(running, {}), client, NO_IDS)
        tags: destination.WeekTags = TagLinks(client, NO_IDS)
        await asyncio.gather(*(contacts.import_report("no slot is left now") for _ in range(5)))
        swaps: list[asyncio.Task[object]] = [asyncio.create_task(tags.remove(number)) for number in range(14)]
        swaps.append(asyncio.create_task(tags.links(AcId(1))))
        second_half = asyncio.create_task(tags.add(AcId(1), WeekTag.OPEN))
        await asyncio.sleep(0)
        await asyncio.gather(*(contacts.import_report(f"id-{number}") for number in range(9)))
        before = account.tally.requests.copy()
        with pytest.raises(ContactGone):
            await second_half
        *_, looked_up = await asyncio.gather(*swaps, return_exceptions=True)

        assert (before["removeContactTag"], before["listContactTags"], before["addContactTag"]) == (0, 0, 1)
        assert account.tally.requests["removeContactTag"] == 14
        assert isinstance(looked_up, ContactGone)
        assert account.peak.highest == 5
        assert account.tally.responses["429"] == 0


async def test_order_batches_grow_while_accepted_and_shrink_when_they_are_too_large() -> None:
    async with world(order_delay_s=0, max_orders_per_batch=120) as it:
        ids = await it.set_up()
        sent = FakeSentOrders()
        size = BatchSize(sent, first=50, now=lambda: datetime.now(UTC))
        links = cast("Links", FakeOrderLinks())
        writes = OrderWrites(
            uploads=it.orders(ids),
            sent=sent,
            links=links,
            batch_size=size,
            kind=order_kind(Incidents(), 300),
            held=held_records(),
            retry_held_s=300,
            now=lambda: datetime.now(UTC),
        )
        await writes.write(
            [OrderChange(order(number), b"x", "", None, ContactId(1)) for number in range(1, 601)]
        )

        batches = [request.historical for request in it.account.order_requests.all]
        assert batches == [50, 100, 200, 100, 100, 100, 100, 50]
        assert len(it.running.account("shop").orders) == 600
        assert sent.limit
        assert sent.limit[:2] == (100, 100)
        assert not it.account.tally.breaches


# --- what is sent


async def test_neither_setup_nor_an_order_sends_an_empty_text_or_object() -> None:
    fault = Fault(path="*", matching=r':\s*""|\{\}', kind=FaultKind.ANSWER_BEFORE, status=400)
    async with world(order_delay_s=0, faults=(fault,)) as it:
        ids = await it.set_up()
        await it.orders(ids).upsert([order(1), order(2, store_status="", lines=())])

        assert len(it.running.account("shop").orders) == 2
        assert not it.running.faults.drawn


# --- tracking logs


@pytest.mark.parametrize("cut", [{"tracking_log_bytes": 250}, {"tracking_log_characters": 250}])
async def test_the_longest_eventdata_is_known_in_a_log_that_is_cut_at_250(cut: dict[str, Any]) -> None:
    name = CATALOG.ac_names()[0]
    async with world(**cut) as it:
        await it.set_up()
        ann = await it.contacts(NO_IDS).upsert(ANN)
        reasons = ["x" * 300, "x" * (250 - 7 - len(TAIL)), "\u00e9" * ((250 - 7 - len(TAIL)) // 2)]
        sent = [
            render({"reason": f"{text}"}, by="", at=SENT_AT, log_id=int(f"{number + 1}{DIGITS}"))[0]
            for number, text in enumerate(reasons)
        ]
        # As an earlier version sent it, with up to 255 bytes.
        sent.append(f"reason={'x' * (255 - 7 - len(TAIL))}{TAIL}")
        for eventdata in sent:
            await it.events.send(ANN.email, name, eventdata)

        logged = await TrackingLogs(it.client).events(ann)
        marks = [mark_of(each) for each in sent]
        assert max(map(len, (each.eventdata for each in logged))) <= 250
        assert [[mark is not None and shows(each.eventdata, mark) for mark in marks] for each in logged] == [
            [row == column for column in range(len(sent))] for row in range(len(sent))
        ]


async def test_a_tracking_log_with_short_pages_is_read_to_its_end() -> None:
    async with world(most_rows_per_page=7) as it:
        await it.set_up()
        ann = await it.contacts(NO_IDS).upsert(ANN)
        for number in range(30):
            await it.events.send(ANN.email, CATALOG.ac_names()[0], f"at=x; log={number}")

        assert len(await TrackingLogs(it.client).events(ann)) == 30
