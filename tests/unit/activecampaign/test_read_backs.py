"""What is read back of contacts and orders: what is asked for, and how an answer is taken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
import pytest
from graphql import parse, validate
from yarl import URL

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.read_backs import ORDERS_AT_ONCE, ReadBacks, query
from kiva_stream.errors import ContactGone
from kiva_stream.model.account_ids import AccountIds
from kiva_stream.model.contacts import ShownContact
from kiva_stream.model.ids import AcId, OrderId
from kiva_stream.model.orders import ShownOrder
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.ports import destination
from kiva_stream.sandbox.activecampaign.order_calls import MAX_TOKENS, schema
from kiva_stream.settings.sections import ActiveCampaignSettings
from tests.support.http_answers import Answers
from tests.support.virtual_time import now, run

T = TypeVar("T")

API = "https://account.example/api/3"
GRAPHQL = f"{API}/ecom/graphql"
SETTINGS = ActiveCampaignSettings(
    api_url="https://account.example", api_token="the-token", event_actid="25550001", event_key="the-key"
)
IDS = AccountIds(list_id=3, fields={"status": 6, "birthday": 10}, tags={WeekTag.OPEN: 11}, connection_id=2)


def tell(story: Callable[[destination.ReadBacks, Answers], Awaitable[T]]) -> T:
    async def with_answers() -> T:
        with Answers() as answers:
            async with Client(SETTINGS, clock=now) as client:
                return await story(ReadBacks(client, IDS), answers)

    return run(with_answers())


def add(answers: Answers, part: str, **payload: object) -> None:
    answers.add(f"{API}/contacts/4{part}", "GET", payload=payload)


def contact(who: dict[str, Any], values: list[object], places: list[object]) -> ShownContact:
    async def story(read_backs: destination.ReadBacks, answers: Answers) -> ShownContact:
        add(answers, "", contact={"id": "4", **who})
        add(answers, "/fieldValues", fieldValues=values)
        add(answers, "/contactLists", contactLists=places)
        return await read_backs.contact(AcId(4))

    return tell(story)


def test_a_contact_is_read_with_its_fields_by_our_names_and_its_place_on_our_list() -> None:
    assert contact(
        {"email": "Ann@Example.org", "firstName": "Ann", "lastName": "Archer", "phone": "+1 555"},
        [{"field": "6", "value": "active"}, {"field": 10, "value": None}, {"field": "99", "value": "other"}],
        [{"list": "3", "status": "1"}, {"list": "8", "status": "2"}],
    ) == ShownContact(
        email="ann@example.org",  # type: ignore[arg-type]
        first_name="Ann",
        last_name="Archer",
        phone="+1 555",
        fields={"status": "active", "birthday": ""},
        is_subscribed=True,
    )


@pytest.mark.parametrize("places", [[], [{"list": "3", "status": "2"}], [{"list": "8", "status": "1"}]])
def test_only_a_contact_subscribed_to_our_list_is_on_it(places: list[object]) -> None:
    assert not contact({"email": None}, [], places).is_subscribed


def test_fields_and_lists_that_come_in_pages_are_read_to_their_total() -> None:
    async def story(read_backs: destination.ReadBacks, answers: Answers) -> ShownContact:
        add(answers, "", contact={"id": "4", "email": "ann@example.org"})
        total = {"meta": {"total": "3"}}
        values = [{"field": "1", "value": "a"}, {"field": "6", "value": "b"}, {"field": "10", "value": "c"}]
        add(answers, "/fieldValues", fieldValues=values[:1], **total)
        add(answers, "/fieldValues?limit=100&offset=1", fieldValues=values[1:2], **total)
        add(answers, "/fieldValues?limit=100&offset=2", fieldValues=values[2:], **total)
        places = [{"list": "8", "status": "1"}, {"list": "3", "status": "1"}]
        add(answers, "/contactLists", contactLists=places[:1], meta={"total": 2})
        add(answers, "/contactLists?limit=100&offset=1", contactLists=places[1:], meta={"total": 2})
        return await read_backs.contact(AcId(4))

    shown = tell(story)
    assert shown.fields == {"status": "b", "birthday": "c"}
    assert shown.is_subscribed


def test_reading_a_contact_that_is_gone_raises_contact_gone() -> None:
    async def story(read_backs: destination.ReadBacks, answers: Answers) -> None:
        answers.add(f"{API}/contacts/4", "GET", status=404, payload={})
        with pytest.raises(ContactGone):
            await read_backs.contact(AcId(4))

    tell(story)


ROW = {
    "storeCustomerId": "7",
    "storeCreatedDate": "2026-11-26T12:00:00Z",
    "normalizedStatus": "COMPLETED",
    "currency": "usd",
    "finalAmount": 31.15,
    "discountsAmount": None,
    "creationSource": "HISTORICAL",
    "lineItems": [{"storeLineItemId": "1", "name": "Kale", "quantity": 2, "priceAmount": "3.5"}],
}


def test_orders_are_asked_for_by_their_ids_many_at_once_and_those_that_are_there_returned() -> None:
    async def story(read_backs: destination.ReadBacks, answers: Answers) -> dict[OrderId, ShownOrder]:
        answers.add(GRAPHQL, "POST", payload={"data": {"o0": ROW, "o1": None}})
        found = await read_backs.orders([OrderId(41), OrderId(42)])
        [call] = answers.requests["POST", URL(GRAPHQL)]
        sent = msgspec.json.decode(call.kwargs["data"])
        assert sent["variables"] == {"connection": 2, "o0": "41", "o1": "42"}
        return found

    assert tell(story) == {
        OrderId(41): ShownOrder(
            "7",
            "2026-11-26T12:00:00Z",
            "COMPLETED",
            "",
            "usd",
            Decimal(3115),
            Decimal(0),
            "HISTORICAL",
            (("1", "", "Kale", "", 2, Decimal(350)),),
        )
    }


def test_more_orders_than_go_into_a_document_are_asked_for_in_several() -> None:
    async def story(read_backs: destination.ReadBacks, answers: Answers) -> int:
        answers.add(GRAPHQL, "POST", payload={"data": {}}, repeat=True)
        await read_backs.orders([OrderId(number) for number in range(2 * ORDERS_AT_ONCE + 1)])
        return len(answers.requests["POST", URL(GRAPHQL)])

    assert tell(story) == 3


def test_reading_no_orders_sends_no_request() -> None:
    async def story(read_backs: destination.ReadBacks, answers: Answers) -> dict[OrderId, ShownOrder]:
        return await read_backs.orders([])

    assert tell(story) == {}


def test_the_document_fits_the_schema_and_is_far_below_its_bound() -> None:
    document = parse(query(ORDERS_AT_ONCE), max_tokens=MAX_TOKENS // 10)
    assert validate(schema(), document) == []
