"""The requests that are sent for contacts, to the letter. In virtual time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.contacts import Contacts, import_body, import_row
from kiva_stream.activecampaign.slow_imports import SLOW_S
from kiva_stream.model.account_ids import AccountIds
from kiva_stream.model.bulk_imports import AcceptedImport
from kiva_stream.model.contacts import DesiredContact, ListStatus
from kiva_stream.model.ids import AcId, Email
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.ports import destination
from kiva_stream.settings.sections import ActiveCampaignSettings
from tests.support.http_answers import Answers
from tests.support.virtual_time import now, run

T = TypeVar("T")

API = "https://account.example/api/3"
SETTINGS = ActiveCampaignSettings(
    api_url="https://account.example", api_token="the-token", event_actid="25550001", event_key="the-key"
)
IDS = AccountIds(
    list_id=3,
    fields={
        "customer_id": 5,
        "status": 6,
        "box_type": 7,
        "next_delivery": 8,
        "cancel_date": 9,
        "birthday": 10,
    },
    tags={WeekTag.OPEN: 11, WeekTag.CLOSED: 12, WeekTag.NONE: 13},
    connection_id=2,
)
ANN = DesiredContact(Email("ann@example.org"), "Ann", "Archer", "+1 555", "7", ListStatus.SUBSCRIBE)
BOB = DesiredContact(Email("bob@example.org"), "Bob", "", "", "8", ListStatus.UNSUBSCRIBE)
EVE = DesiredContact(Email("eve@example.org"), "", "", "", "9", ListStatus.KEEP)
QUEUED = {"success": 1, "queued_contacts": 1, "batchId": "b"}


def tell(story: Callable[[Client, destination.Contacts, Answers], Awaitable[T]]) -> T:
    async def with_contacts() -> T:
        with Answers() as answers:
            async with Client(SETTINGS, clock=now) as client:
                contacts = Contacts(SETTINGS, client, IDS, clock=now)
                return await story(client, contacts, answers)

    return run(with_contacts())


def body_of(answers: Answers, path: str, method: str = "POST") -> Any:  # noqa: ANN401  any JSON
    [call] = answers.requests[method, URL(API + path)]
    return msgspec.json.decode(call.kwargs["data"])


@pytest.mark.parametrize(("status", "is_answered"), [(200, True), (500, False)])
def test_a_read_is_tried_once(*, status: int, is_answered: bool) -> None:
    async def story(client: Client, contacts: destination.Contacts, answers: Answers) -> tuple[bool, int]:
        answers.add(API + "/users/me", "GET", status=status, payload={"user": {}})
        return await contacts.answers(), sum(client.requests.values())

    assert tell(story) == (is_answered, 1)


def test_a_rename_names_the_contact_by_its_id() -> None:
    async def story(client: Client, contacts: destination.Contacts, answers: Answers) -> object:
        answers.add(API + "/contacts/7", "PUT", payload={"contact": {"id": "7"}})
        await contacts.rename(AcId(7), Email("new@example.org"))
        return body_of(answers, "/contacts/7", "PUT")

    assert tell(story) == {"contact": {"email": "new@example.org"}}


@pytest.mark.parametrize("exclude_automations", [True, False])
def test_an_import_says_whether_it_starts_automations(*, exclude_automations: bool) -> None:
    async def story(client: Client, contacts: destination.Contacts, answers: Answers) -> object:
        answers.add(API + "/import/bulk_import", "POST", payload=QUEUED)
        await contacts.start_import([ANN, BOB], exclude_automations=exclude_automations)
        return body_of(answers, "/import/bulk_import")["exclude_automations"]

    assert tell(story) is exclude_automations


CLEARED = [{"id": number, "value": ""} for number in range(6, 11)]


def test_an_import_leaves_empty_names_out_and_clears_empty_fields() -> None:
    async def story(client: Client, contacts: destination.Contacts, answers: Answers) -> object:
        answers.add(API + "/import/bulk_import", "POST", payload=QUEUED)
        accepted = await contacts.start_import([ANN, BOB, EVE], exclude_automations=True)
        assert accepted == AcceptedImport("b", is_short=True)
        return body_of(answers, "/import/bulk_import")

    assert tell(story) == {
        "contacts": [
            {
                "email": "ann@example.org",
                "first_name": "Ann",
                "last_name": "Archer",
                "phone": "+1 555",
                "fields": [{"id": 5, "value": "7"}, *CLEARED],
                "subscribe": [{"listid": 3}],
            },
            {
                "email": "bob@example.org",
                "first_name": "Bob",
                "fields": [{"id": 5, "value": "8"}, *CLEARED],
                "unsubscribe": [{"listid": 3}],
            },
            {"email": "eve@example.org", "fields": [{"id": 5, "value": "9"}, *CLEARED]},
        ],
        "exclude_automations": True,
    }


FULL = msgspec.structs.replace(
    ANN,
    status="cancelled",
    next_delivery="2024-05-02",
    cancel_date="2024-06-03",
    birthday="1904-02-29",
    box_type=None,
    tag=WeekTag.OPEN,
    notes=("odd",),
)


def test_an_imported_contact_has_its_fields_and_its_tag_but_not_an_unknown_box() -> None:
    async def story(client: Client, contacts: destination.Contacts, answers: Answers) -> object:
        answers.add(API + "/import/bulk_import", "POST", payload=QUEUED)
        await contacts.start_import([FULL], exclude_automations=True)
        return body_of(answers, "/import/bulk_import")["contacts"]

    assert tell(story) == [
        {
            "email": "ann@example.org",
            "first_name": "Ann",
            "last_name": "Archer",
            "phone": "+1 555",
            "fields": [
                {"id": 5, "value": "7"},
                {"id": 6, "value": "cancelled"},
                {"id": 8, "value": "2024-05-02"},
                {"id": 9, "value": "2024-06-03"},
                {"id": 10, "value": "1904-02-29"},
            ],
            "subscribe": [{"listid": 3}],
            "tags": ["open order"],
        }
    ]


def test_one_contact_alone_is_sent_in_the_words_of_contact_sync() -> None:
    async def story(client: Client, contacts: destination.Contacts, answers: Answers) -> object:
        answers.add(API + "/contact/sync", "POST", payload={"contact": {"id": "115"}})
        assert await contacts.upsert(FULL) == 115
        return body_of(answers, "/contact/sync")

    assert tell(story) == {
        "contact": {
            "email": "ann@example.org",
            "firstName": "Ann",
            "lastName": "Archer",
            "phone": "+1 555",
            "fieldValues": [
                {"field": "5", "value": "7"},
                {"field": "6", "value": "cancelled"},
                {"field": "8", "value": "2024-05-02"},
                {"field": "9", "value": "2024-06-03"},
                {"field": "10", "value": "1904-02-29"},
            ],
        }
    }


def test_disowning_a_contact_sends_its_empty_customer_id_alone() -> None:
    async def story(client: Client, contacts: destination.Contacts, answers: Answers) -> object:
        answers.add(API + "/contacts/9", "PUT", payload={"contact": {"id": "9"}})
        await contacts.clear_customer_id(AcId(9))
        return body_of(answers, "/contacts/9", "PUT")

    assert tell(story) == {"contact": {"fieldValues": [{"field": "5", "value": ""}]}}


@pytest.mark.parametrize(
    ("subscribed", "status"), [(True, {"status": 1, "sourceid": 4}), (False, {"status": 2})]
)
def test_the_status_on_the_list_is_set_by_ids(*, subscribed: bool, status: dict[str, int]) -> None:
    async def story(client: Client, contacts: destination.Contacts, answers: Answers) -> object:
        answers.add(API + "/contactLists", "POST", payload={"contactList": {"id": "1"}})
        await contacts.set_list(AcId(9), subscribed=subscribed)
        return body_of(answers, "/contactLists")

    assert tell(story) == {"contactList": {"list": 3, "contact": 9, **status}}


@pytest.mark.parametrize(("status", "place"), [(1, True), (2, False), (0, None)])
def test_the_place_on_the_list_is_that_of_the_contact_on_this_list(status: int, place: bool | None) -> None:
    async def story(_client: Client, contacts: destination.Contacts, answers: Answers) -> object:
        rows = [{"id": "1", "contact": "9", "list": 3, "status": status}]
        body = {"contactLists": rows, "meta": {"total": "1"}}
        answers.add(re.compile(f"{API}/contacts/9/contactLists.*"), "GET", payload=body)
        return await contacts.list_place(AcId(9))

    assert tell(story) is place


FOREIGN = {"errors": [{"message": "Internal server error"}], "data": None}


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_change_that_is_answered_by_another_body_was_not_made(method: str) -> None:
    async def story(client: Client, contacts: destination.Contacts, answers: Answers) -> int:
        path, key = ("/contactLists", "contactList") if method == "POST" else ("/contacts/9", "contact")
        answers.add(API + path, method, payload=FOREIGN)
        answers.add(API + path, method, payload={key: {"id": "9"}})
        if method == "POST":
            await contacts.set_list(AcId(9), subscribed=False)
        else:
            await contacts.clear_customer_id(AcId(9))
        return len(answers.requests[(method, URL(API + path))])

    assert tell(story) == 2


def test_a_read_that_is_answered_by_another_body_is_no_answer() -> None:
    async def story(client: Client, contacts: destination.Contacts, answers: Answers) -> list[bool]:
        for payload in (FOREIGN, {"user": {"id": "1"}}):
            answers.add(API + "/users/me", payload=payload)
        return [await contacts.answers() for _ in range(2)]

    assert tell(story) == [False, True]


def test_a_page_of_contacts_is_asked_for_by_the_last_id() -> None:
    async def story(client: Client, contacts: destination.Contacts, answers: Answers) -> list[URL]:
        url = API + "/contacts?orders%5Bid%5D=ASC&id_greater=17&limit=100"
        answers.add(url, payload={"contacts": [{"id": "18", "email": "Ann@Example.org"}]})
        assert await contacts.page(AcId(17)) == {"ann@example.org": 18}
        return [url for _, url in answers.requests]

    [url] = tell(story)

    assert dict(url.query) == {"orders[id]": "ASC", "id_greater": "17", "limit": "100"}


def test_an_address_is_quoted_in_a_look_up() -> None:
    async def story(client: Client, contacts: destination.Contacts, answers: Answers) -> list[URL]:
        url = API + "/contacts?email=ann%2Bbox%26more%40example.org"
        answers.add(url, payload={"contacts": []})
        assert await contacts.find(Email("ann+box&more@example.org")) is None
        return [url for _, url in answers.requests]

    [url] = tell(story)

    assert url.query["email"] == "ann+box&more@example.org"


# --- how many fit into one import


def fitting(many: Sequence[DesiredContact], settings: ActiveCampaignSettings = SETTINGS) -> int:
    return Contacts(settings, Client(settings), IDS).count_fitting(many)


def body_bytes(many: Sequence[DesiredContact]) -> int:
    rows = [import_row(contact, IDS) for contact in many]
    return len(msgspec.json.encode(import_body(rows, exclude_automations=False)))


def test_as_many_contacts_fit_as_the_setting_says() -> None:
    assert fitting([EVE] * 251) == 250
    assert fitting([EVE] * 250) == 250
    assert fitting([EVE] * 3) == 3
    assert fitting([]) == 0
    assert fitting([EVE] * 30, msgspec.structs.replace(SETTINGS, contacts_per_import=20)) == 20


@given(lengths=st.lists(st.integers(min_value=0, max_value=20_000), min_size=1, max_size=60))
def test_a_body_of_those_that_fit_is_short_enough_and_of_one_more_too_long(lengths: list[int]) -> None:
    many = [msgspec.structs.replace(EVE, first_name="ü" * length) for length in lengths]
    size = fitting(many)

    assert body_bytes(many[:size]) <= 399_999
    assert size == len(many) or body_bytes(many[: size + 1]) > 399_999


def test_a_body_may_have_399_999_bytes_and_not_one_more() -> None:
    rest = 399_999 - body_bytes([EVE, EVE]) - len('"first_name":"",')
    just = msgspec.structs.replace(EVE, first_name="x" * rest)
    assert body_bytes([EVE, just]) == 399_999

    assert fitting([EVE, just]) == 2
    assert fitting([EVE, msgspec.structs.replace(just, first_name="x" * (rest + 1))]) == 1


def test_one_contact_that_is_too_long_is_imported_alone() -> None:
    assert fitting([msgspec.structs.replace(EVE, first_name="x" * 400_000), EVE]) == 1


def test_the_id_of_an_import_is_quoted_in_the_address() -> None:
    async def story(client: Client, contacts: destination.Contacts, answers: Answers) -> list[URL]:
        answers.add(API + "/import/info?batchId=a%2Fb%26c", payload={"status": False})
        await contacts.import_report("a/b&c")
        return [url for _, url in answers.requests]

    [url] = tell(story)

    assert url.query["batchId"] == "a/b&c"


def imports_in_a_minute(contacts_each: int) -> int:
    async def story(client: Client, contacts: destination.Contacts, answers: Answers) -> int:
        answers.add(API + "/import/bulk_import", "POST", payload=QUEUED, repeat=True)
        start = partial(contacts.start_import, [ANN] * contacts_each, exclude_automations=True)
        imports = [asyncio.create_task(start()) for _ in range(150)]
        await asyncio.sleep(60)
        for task in imports:
            task.cancel()
        return len(answers.requests["POST", URL(API + "/import/bulk_import")])

    return tell(story)


def test_imports_keep_to_their_minute_and_those_of_one_contact_to_a_smaller_one() -> None:
    assert 90 <= imports_in_a_minute(contacts_each=2) <= 100
    assert 18 <= imports_in_a_minute(contacts_each=1) <= 20


@pytest.mark.parametrize("status", ["waiting", "active", False])
@pytest.mark.parametrize("end", ["completed", "failed", "interrupted"])
def test_an_import_that_runs_for_15_minutes_is_an_incident_until_it_ends(status: object, end: str) -> None:
    async def story(client: Client, contacts: destination.Contacts, answers: Answers) -> None:
        for each in (status, status, status, end):
            answers.add(API + "/import/info?batchId=b", payload={"status": each})
        await contacts.import_report("b")
        await asyncio.sleep(SLOW_S - 60)
        await contacts.import_report("b")
        assert client.incidents.all() == []
        await asyncio.sleep(60)
        await contacts.import_report("b")
        [incident] = client.incidents.all()
        assert incident.kind == "imports"
        assert "the import b for 15 minutes" in incident.why
        await contacts.import_report("b")
        assert client.incidents.all() == []

    tell(story)
