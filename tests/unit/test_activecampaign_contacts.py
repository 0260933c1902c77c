"""What is asked of ActiveCampaign for contacts and set-up, to the letter. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import msgspec
import pytest
from yarl import URL

from kiva_stream import ports
from kiva_stream.activecampaign.account import AccountIds, AccountSetup
from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.contacts import Contacts
from kiva_stream.catalog import CATALOG
from kiva_stream.errors import AccountRefused
from kiva_stream.model import AcceptedImport, DesiredContact, Email, ListStatus
from kiva_stream.settings import ActiveCampaignSettings
from tests.aio import Answers
from tests.virtual_time import now, run

T = TypeVar("T")

API = "https://account.example/api/3"
SETTINGS = ActiveCampaignSettings(
    api_url="https://account.example", api_token="the-token", event_actid="25550001", event_key="the-key"
)
ANN = DesiredContact(Email("ann@example.org"), "Ann", "Archer", "+1 555", "7", ListStatus.SUBSCRIBE)
BOB = DesiredContact(Email("bob@example.org"), "Bob", "", "", "8", ListStatus.UNSUBSCRIBE)
EVE = DesiredContact(Email("eve@example.org"), "", "", "", "9", ListStatus.LEAVE)
QUEUED = {"success": 1, "queued_contacts": 1, "batchId": "b"}


def tell(story: Callable[[Client, ports.Contacts, Answers], Awaitable[T]]) -> T:
    async def with_contacts() -> T:
        with Answers() as answers:
            async with Client(SETTINGS, clock=now) as client:
                contacts = Contacts(SETTINGS, client, AccountIds(3, 5), clock=now)
                return await story(client, contacts, answers)

    return run(with_contacts())


def body_of(answers: Answers, path: str) -> Any:  # noqa: ANN401  any JSON
    [call] = answers.requests["POST", URL(API + path)]
    return msgspec.json.decode(call.kwargs["data"])


@pytest.mark.parametrize("exclude_automations", [True, False])
def test_an_import_says_whether_it_starts_automations(*, exclude_automations: bool) -> None:
    async def story(client: Client, contacts: ports.Contacts, answers: Answers) -> object:
        answers.add(API + "/import/bulk_import", "POST", payload=QUEUED)
        await contacts.start_import([ANN, BOB], exclude_automations=exclude_automations)
        return body_of(answers, "/import/bulk_import")["exclude_automations"]

    assert tell(story) is exclude_automations


def test_an_import_leaves_empty_names_out() -> None:
    async def story(client: Client, contacts: ports.Contacts, answers: Answers) -> object:
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
                "fields": [{"id": 5, "value": "7"}],
                "subscribe": [{"listid": 3}],
            },
            {
                "email": "bob@example.org",
                "first_name": "Bob",
                "fields": [{"id": 5, "value": "8"}],
                "unsubscribe": [{"listid": 3}],
            },
            {"email": "eve@example.org", "fields": [{"id": 5, "value": "9"}]},
        ],
        "exclude_automations": True,
    }


def test_one_contact_alone_is_sent_in_the_words_of_contact_sync() -> None:
    async def story(client: Client, contacts: ports.Contacts, answers: Answers) -> object:
        answers.add(API + "/contact/sync", "POST", payload={"contact": {"id": "1"}})
        await contacts.sync(ANN)
        return body_of(answers, "/contact/sync")

    assert tell(story) == {
        "contact": {
            "email": "ann@example.org",
            "firstName": "Ann",
            "lastName": "Archer",
            "phone": "+1 555",
            "fieldValues": [{"field": "5", "value": "7"}],
        }
    }


def test_the_id_of_an_import_is_quoted_in_the_address() -> None:
    async def story(client: Client, contacts: ports.Contacts, answers: Answers) -> list[URL]:
        answers.add(API + "/import/info?batchId=a%2Fb%26c", payload={"status": False})
        await contacts.import_report("a/b&c")
        return [url for _, url in answers.requests]

    [url] = tell(story)

    assert url.query["batchId"] == "a/b&c"


def imports_in_a_minute(contacts_each: int) -> int:
    async def story(client: Client, contacts: ports.Contacts, answers: Answers) -> int:
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


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/eventTrackingEvents", f"the event name '{CATALOG.ac_names()[0]}'"),
        ("/lists", "the list 'all customers'"),
    ],
)
def test_what_activecampaign_does_not_let_be_created_is_named_with_what_it_said(path: str, what: str) -> None:
    async def story(client: Client, contacts: ports.Contacts, answers: Answers) -> str:
        known = [] if path == "/eventTrackingEvents" else [{"name": name} for name in CATALOG.ac_names()]
        answers.add(API + "/eventTracking", payload={"eventTracking": {"enabled": True}})
        answers.add(API + "/eventTrackingEvents?limit=100&offset=0", payload={"eventTrackingEvents": known})
        answers.add(API + "/lists?limit=100&offset=0", payload={"lists": []})
        answers.add(API + "/fields?limit=100&offset=0", payload={"fields": []})
        fault = {"errors": [{"title": "No more of them, the-token, boss@example.org."}]}
        answers.add(API + path, "POST", status=422, payload=fault)
        with pytest.raises(AccountRefused) as caught:
            await AccountSetup(client, "Kiva Customer ID", "https://shop.example", "why").set_up()
        return str(caught.value)

    said = tell(story)
    assert what in said
    assert "No more of them, [secret], [address]" in said


def test_a_listing_that_is_never_paged_ends() -> None:
    async def story(client: Client, contacts: ports.Contacts, answers: Answers) -> list[str]:
        names = [{"name": name} for name in CATALOG.ac_names()]
        names += [{"name": f"Other {number}"} for number in range(100 - len(names))]
        answers.add(API + "/eventTracking", payload={"eventTracking": {"enabled": True}})
        for offset in (0, 100):
            url = f"{API}/eventTrackingEvents?limit=100&offset={offset}"
            answers.add(url, payload={"eventTrackingEvents": names})
        answers.add(API + "/lists?limit=100&offset=0", payload={"lists": []})
        answers.add(API + "/fields?limit=100&offset=0", payload={"fields": []})
        return await AccountSetup(client, "Kiva Customer ID", "https://shop.example", "why").missing()

    assert tell(story) == ["the list 'all customers'", "the text field 'Kiva Customer ID'"]
