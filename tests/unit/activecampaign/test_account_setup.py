"""The requests that find and create what an account lacks, to the letter. In virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from kiva_stream.activecampaign.account_ids import FIELD_TYPES, TAG_WORD, field_titles
from kiva_stream.activecampaign.account_setup import AccountRequirements, AccountSetup
from kiva_stream.activecampaign.client import Client
from kiva_stream.errors import AccountRefused
from kiva_stream.model.account_ids import AccountIds
from kiva_stream.model.event_catalog import CATALOG
from kiva_stream.model.week_tags import WeekTag
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
REQUIREMENTS = AccountRequirements(
    site_id=7,
    site_name="Green Box",
    titles=field_titles(SETTINGS),
    sender_url="https://shop.example",
    sender_reminder="why",
    link_url="https://shop.example",
    logo_url="https://shop.example/favicon.ico",
)


def tell(story: Callable[[Client, Answers], Awaitable[T]]) -> T:
    async def with_client() -> T:
        with Answers() as answers:
            async with Client(SETTINGS, clock=now) as client:
                return await story(client, answers)

    return run(with_client())


NO_FIELDS: dict[str, object] = {"fields": []}
CONNECTIONS = (
    f"{API}/connections?filters%5Bservice%5D=kiva_logic&filters%5Bexternalid%5D=7&limit=100&offset=0"
)


def furnish(answers: Answers, fields: object = NO_FIELDS) -> None:
    """Answer requests for fields, tags and connections: all tags exist, and the connection."""
    tags = [{"id": str(number), "tag": tag.value} for tag, number in IDS.tags.items()]
    answers.add(API + "/fields?limit=100&offset=0", payload=fields)
    answers.add(API + "/tags?search=order&limit=100&offset=0", payload={"tags": tags})
    connection = {"id": "2", "service": "kiva_logic", "externalid": "7"}
    answers.add(CONNECTIONS, payload={"connections": [connection]})


def test_every_week_tag_is_found_by_the_one_search() -> None:
    assert all(TAG_WORD in tag for tag in WeekTag)


def test_the_title_of_each_field_is_a_setting() -> None:
    assert field_titles(SETTINGS) == {
        "customer_id": "Kiva Customer ID",
        "status": "Kiva Status",
        "box_type": "Kiva Box Type",
        "next_delivery": "Kiva Next Delivery",
        "cancel_date": "Kiva Cancel Date",
        "birthday": "Kiva Birthday",
    }


@pytest.mark.parametrize("is_there", [True, False])
def test_a_connection_that_is_refused_is_looked_up(*, is_there: bool) -> None:
    async def story(client: Client, answers: Answers) -> list[str]:
        known = [{"name": name} for name in CATALOG.ac_names()]
        titles = field_titles(SETTINGS).items()
        fields = [
            {"id": IDS.fields[name], "title": title, "type": FIELD_TYPES[name]} for name, title in titles
        ]
        relations = [{"field": number, "relid": 0} for number in IDS.fields.values()]
        mine = {"id": "2", "service": "kiva_logic", "externalid": "7"}
        for found in ([], [mine] if is_there else []):
            answers.add(CONNECTIONS, payload={"connections": found})
        for _ in range(2):
            answers.add(API + "/eventTracking", payload={"eventTracking": {"enabled": True}})
            names = {"eventTrackingEvents": known}
            answers.add(API + "/eventTrackingEvents?limit=100&offset=0", payload=names)
            lists = {"lists": [{"id": "3", "name": "all customers"}]}
            answers.add(API + "/lists?limit=100&offset=0", payload=lists)
            furnish(answers, {"fields": fields, "fieldRels": relations})
        fault = {"errors": [{"title": "The integration already exists in the system."}]}
        answers.add(API + "/connections", "POST", status=422, payload=fault)
        return await AccountSetup(client, REQUIREMENTS).set_up()

    if is_there:
        assert tell(story) == ["the connection 'kiva_logic' of site 7"]
    else:
        with pytest.raises(AccountRefused, match="already exists"):
            tell(story)


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/eventTrackingEvents", f"the event name '{CATALOG.ac_names()[0]}'"),
        ("/lists", "the list 'all customers'"),
    ],
)
def test_a_refused_creation_refuses_the_account_and_quotes_the_answer(path: str, what: str) -> None:
    async def story(client: Client, answers: Answers) -> str:
        known = [] if path == "/eventTrackingEvents" else [{"name": name} for name in CATALOG.ac_names()]
        answers.add(API + "/eventTracking", payload={"eventTracking": {"enabled": True}})
        answers.add(API + "/eventTrackingEvents?limit=100&offset=0", payload={"eventTrackingEvents": known})
        answers.add(API + "/lists?limit=100&offset=0", payload={"lists": []})
        furnish(answers)
        fault = {"errors": [{"title": "No more of them, the-token, boss@example.org."}]}
        answers.add(API + path, "POST", status=422, payload=fault)
        with pytest.raises(AccountRefused) as caught:
            await AccountSetup(client, REQUIREMENTS).set_up()
        return str(caught.value)

    text = tell(story)
    assert what in text
    assert "No more of them, [secret], [address]" in text


def test_a_listing_without_pages_is_read_once() -> None:
    async def story(client: Client, answers: Answers) -> list[str]:
        names = [{"name": name} for name in CATALOG.ac_names()]
        names += [{"name": f"Other {number}"} for number in range(100 - len(names))]
        answers.add(API + "/eventTracking", payload={"eventTracking": {"enabled": True}})
        for offset in (0, 100):
            url = f"{API}/eventTrackingEvents?limit=100&offset={offset}"
            answers.add(url, payload={"eventTrackingEvents": names})
        answers.add(API + "/lists?limit=100&offset=0", payload={"lists": []})
        furnish(answers)
        return await AccountSetup(client, REQUIREMENTS).missing()

    missing = tell(story)
    assert missing[:2] == ["the list 'all customers'", "the text field 'Kiva Customer ID'"]
    assert len(missing) == 7
