"""Events: the form that is sent, what is tried again and what is left to the caller. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote_plus, urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.events import Events, quoted
from kiva_stream.errors import AccountRefused, Rejected, UnknownOutcome
from kiva_stream.model.ids import Email
from kiva_stream.ports import destination
from kiva_stream.settings.sections import ActiveCampaignSettings
from tests.support.http_answers import CANNOT_CONNECT, Answers
from tests.support.virtual_time import now, run

T = TypeVar("T")

SETTINGS = ActiveCampaignSettings(
    api_url="https://account.example",
    api_token="the-token",
    event_actid="25550001",
    event_key="the&key",
    event_url="https://events.example/event",
)
NAMES = "https://account.example/api/3/eventTrackingEvents"
ANN = Email("ann@example.org")
DONE = {"success": 1, "message": "Event spawned"}
REGISTERED = {"eventTrackingEvent": {"name": "Name"}}
UNKNOWN = {"success": 0, "message": "Unknown event name."}


def tell(
    story: Callable[[destination.Events, Answers], Awaitable[T]], settings: ActiveCampaignSettings = SETTINGS
) -> T:
    async def with_events() -> T:
        with Answers() as answers:
            async with Client(settings, clock=now) as client:
                return await story(Events(settings, client, clock=now), answers)

    return run(with_events())


def forms(answers: Answers) -> list[bytes]:
    return [call.kwargs["data"] for call in answers.requests.get(("POST", URL(SETTINGS.event_url)), [])]


def registered(answers: Answers) -> list[Any]:
    calls = answers.requests.get(("POST", URL(NAMES)), [])
    return [msgspec.json.decode(call.kwargs["data"])["eventTrackingEvent"]["name"] for call in calls]


@given(st.text())
def test_eventdata_is_form_encoded(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()

    assert quoted(text) == quote_plus(text)


@pytest.mark.parametrize("email", ["ann@example.org", 'o"dd\\+x@example.org', "ä&=@example.org"])
def test_an_event_is_one_form(email: str) -> None:
    async def story(events: destination.Events, answers: Answers) -> dict[str, Any]:
        answers.add(SETTINGS.event_url, "POST", payload=DONE)
        await events.send(Email(email), "Customer signed up", "a=1 & 2; by=admin; at=2018-03-04T17:02:10Z")
        [call] = answers.requests["POST", URL(SETTINGS.event_url)]
        return dict(call.kwargs)

    request = tell(story)
    form = dict(parse_qsl(request["data"].decode("ascii"), strict_parsing=True))

    assert form.pop("visit") == msgspec.json.encode({"email": email}).decode()
    assert form == {
        "actid": "25550001",
        "key": "the&key",
        "event": "Customer signed up",
        "eventdata": "a=1 & 2; by=admin; at=2018-03-04T17:02:10Z",
    }
    assert request["headers"]["Content-Type"] == "application/x-www-form-urlencoded"
    assert "Api-Token" not in request["headers"]
    assert request["data"].decode() == urlencode(
        {**form, "visit": msgspec.json.encode({"email": email}).decode()}
    )


def test_an_event_surely_not_sent_or_throttled_is_sent_again() -> None:
    async def story(events: destination.Events, answers: Answers) -> int:
        answers.add(SETTINGS.event_url, "POST", exception=CANNOT_CONNECT)
        answers.add(SETTINGS.event_url, "POST", status=429)
        answers.add(SETTINGS.event_url, "POST", status=403)
        answers.add(SETTINGS.event_url, "POST", payload=DONE)
        await events.send(ANN, "Name", "at=x; log=1")
        return len(forms(answers))

    assert tell(story) == 4


@pytest.mark.parametrize("fault", [{"status": 500}, {"body": "<html>"}, {"timeout": True}])
def test_an_unknown_outcome_is_left_to_the_caller(fault: dict[str, Any]) -> None:
    async def story(events: destination.Events, answers: Answers) -> int:
        answers.add(SETTINGS.event_url, "POST", **fault)
        with pytest.raises(UnknownOutcome):
            await events.send(ANN, "Name", "at=x; log=1")
        return len(forms(answers))

    assert tell(story) == 1


def test_a_refused_event_is_left_to_the_caller() -> None:
    async def story(events: destination.Events, answers: Answers) -> None:
        answers.add(SETTINGS.event_url, "POST", payload={"success": 0, "message": "could not be saved"})
        with pytest.raises(Rejected, match="refused the event"):
            await events.send(ANN, "Name", "at=x; log=1")

    tell(story)


def test_throttling_makes_all_events_wait() -> None:
    async def story(events: destination.Events, answers: Answers) -> float:
        answers.add(SETTINGS.event_url, "POST", status=503, headers={"Retry-After": "40"})
        answers.add(SETTINGS.event_url, "POST", payload=DONE, repeat=True)
        began = now()
        throttled = asyncio.create_task(events.send(ANN, "Name", "log=1"))
        await asyncio.sleep(1)
        await events.send(ANN, "Name", "log=2")
        ended = now()
        await throttled
        return ended - began

    assert tell(story) >= 40


@pytest.mark.parametrize("answer", [UNKNOWN, 0])
@pytest.mark.parametrize(
    "registration", [{"payload": REGISTERED}, {"status": 422, "payload": {"errors": [{"code": "duplicate"}]}}]
)
def test_an_unknown_name_is_registered_and_the_event_sent_once_more(
    answer: object, registration: dict[str, Any]
) -> None:
    async def story(events: destination.Events, answers: Answers) -> tuple[int, list[Any]]:
        answers.add(SETTINGS.event_url, "POST", payload=answer)
        answers.add(NAMES, "POST", **registration)
        answers.add(SETTINGS.event_url, "POST", payload=DONE)
        await events.send(ANN, "Name", "log=1")
        return len(forms(answers)), registered(answers)

    assert tell(story) == (2, ["Name"])


def test_many_events_of_an_unknown_name_register_it_once() -> None:
    async def story(events: destination.Events, answers: Answers) -> tuple[int, list[Any]]:
        for _ in range(30):
            answers.add(SETTINGS.event_url, "POST", payload=UNKNOWN)
        answers.add(NAMES, "POST", payload=REGISTERED, repeat=True)
        answers.add(SETTINGS.event_url, "POST", payload=DONE, repeat=True)
        await asyncio.gather(*(events.send(ANN, "Name", f"log={number}") for number in range(30)))
        return len(forms(answers)), registered(answers)

    assert tell(story, msgspec.structs.replace(SETTINGS, events_per_second=0)) == (60, ["Name"])


@pytest.mark.parametrize(("answer", "meaning", "times"), [(UNKNOWN, Rejected, 2), (0, AccountRefused, 4)])
def test_a_name_that_stays_unknown_is_not_tried_for_ever(
    answer: object, meaning: type[Exception], times: int
) -> None:
    async def story(events: destination.Events, answers: Answers) -> int:
        answers.add(SETTINGS.event_url, "POST", payload=answer, repeat=True)
        answers.add(NAMES, "POST", payload=REGISTERED, repeat=True)
        with pytest.raises(meaning):
            await events.send(ANN, "Name", "log=1")
        return len(forms(answers))

    assert tell(story) == times


def test_tracking_switched_off_refuses_the_account() -> None:
    async def story(events: destination.Events, answers: Answers) -> int:
        payload = {"success": 0, "message": "Event tracking is not enabled. the&key the%26key"}
        answers.add(SETTINGS.event_url, "POST", payload=payload, repeat=True)
        with pytest.raises(AccountRefused) as caught:
            await events.send(ANN, "Name", "log=1")
        assert "the&key" not in str(caught.value)
        assert "the%26key" not in str(caught.value)
        return len(forms(answers))

    assert tell(story) == 3


def test_events_keep_to_their_pace() -> None:
    async def story(events: destination.Events, answers: Answers) -> float:
        answers.add(SETTINGS.event_url, "POST", payload=DONE, repeat=True)
        began = now()
        await asyncio.gather(*(events.send(ANN, "Name", f"log={number}") for number in range(120)))
        return now() - began

    assert 2.0 <= tell(story) < 2.3
