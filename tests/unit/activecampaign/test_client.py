"""The client: what it sends, when it repeats a call, and what aiohttp's errors mean. All in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar

import aiohttp
import msgspec
import pytest
from structlog.testing import capture_logs
from yarl import URL

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.responses.rest import parse_rest
from kiva_stream.errors import AccountRefused, DeliveryError, Rejected, TryLater, UnknownOutcome
from kiva_stream.settings.sections import ActiveCampaignSettings
from tests.support.http_answers import CANNOT_CONNECT, CONNECTION, Answers
from tests.support.virtual_time import now, run

T = TypeVar("T")

SETTINGS = ActiveCampaignSettings(
    api_url="https://account.example", api_token="the-token", event_actid="25550001", event_key="the-key"
)
TAGS = "https://account.example/api/3/tags"
parse = partial(parse_rest, shape=dict[str, Any])


def tell(
    story: Callable[[Client, Answers], Awaitable[T]],
    settings: ActiveCampaignSettings = SETTINGS,
    **kwargs: Any,  # noqa: ANN401  passed on as they come
) -> T:
    """Run a story with a client whose requests get the story's answers."""

    async def with_client() -> T:
        with Answers() as answers:
            async with Client(settings, sleep=asyncio.sleep, clock=now, **kwargs) as client:
                return await story(client, answers)

    return run(with_client())


def sent(answers: Answers, method: str = "GET", url: str = TAGS) -> list[dict[str, Any]]:
    """Return what the requests to an address were made with."""
    return [call.kwargs for call in answers.requests.get((method, URL(url)), [])]


@pytest.mark.parametrize(
    "api_url", ["https://account.example", "https://account.example/", "https://account.example/api/3"]
)
def test_a_call_carries_the_token_and_json_to_api_3(api_url: str) -> None:
    async def story(client: Client, answers: Answers) -> tuple[object, list[dict[str, Any]]]:
        answers.add(TAGS, "POST", payload={"tag": 1})
        return await client.call("POST", "/tags", {"tag": "ä"}, parse=parse), sent(answers, "POST")

    result, [request] = tell(story, msgspec.structs.replace(SETTINGS, api_url=api_url))

    assert result == {"tag": 1}
    assert request["headers"]["Api-Token"] == "the-token"
    assert request["headers"]["Content-Type"] == "application/json"
    assert request["data"] == '{"tag":"ä"}'.encode()
    assert request["allow_redirects"] is False


def test_a_query_is_sent_as_it_stands() -> None:
    async def story(client: Client, answers: Answers) -> list[dict[str, Any]]:
        answers.add(TAGS + "?limit=100&offset=0", payload={})
        await client.call("GET", "/tags?limit=100&offset=0", parse=parse)
        return sent(answers, url=TAGS + "?limit=100&offset=0")

    [request] = tell(story)

    assert request["data"] is None


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 503, "body": "<html>"},
        {"body": "<html>"},
        {"exception": CANNOT_CONNECT},
        {"exception": aiohttp.ConnectionTimeoutError()},
        {"exception": aiohttp.ServerDisconnectedError()},
        {"exception": aiohttp.ClientOSError(104, "reset")},
        {"exception": aiohttp.ClientPayloadError()},
        {"exception": aiohttp.SocketTimeoutError()},
        {"exception": ConnectionResetError()},
        {"timeout": True},
    ],
)
def test_a_call_is_repeated_until_there_is_an_answer(fault: dict[str, Any]) -> None:
    async def story(client: Client, answers: Answers) -> tuple[object, int]:
        for _ in range(12):
            answers.add(TAGS, **fault)
        answers.add(TAGS, payload={"done": 1})
        return await client.call("GET", "/tags", parse=parse), len(sent(answers))

    assert tell(story) == ({"done": 1}, 13)


def test_an_outage_is_logged_once_in_a_while() -> None:
    async def story(client: Client, answers: Answers) -> float:
        for _ in range(12):
            answers.add(TAGS, exception=CANNOT_CONNECT)
        answers.add(TAGS, payload={})
        started_at = now()
        await client.call("GET", "/tags", parse=parse)
        return now() - started_at

    with capture_logs() as lines:
        lasted_s = tell(story)
    assert 1 <= len(lines) <= 1 + lasted_s / 10
    assert "cannot connect" in lines[0]["why"]


def test_a_refusal_of_one_object_is_raised_at_once() -> None:
    async def story(client: Client, answers: Answers) -> int:
        answers.add(TAGS, status=422, payload={"errors": [{"title": "no"}]}, repeat=True)
        with pytest.raises(Rejected):
            await client.call("GET", "/tags", parse=parse)
        return len(sent(answers))

    assert tell(story) == 1


def test_a_blip_of_the_key_is_survived() -> None:
    async def story(client: Client, answers: Answers) -> object:
        for status in (403, 401, 500, 403, 402):
            answers.add(TAGS, status=status)
        answers.add(TAGS, payload={"done": 1})
        return await client.call("GET", "/tags", parse=parse)

    assert tell(story) == {"done": 1}


def test_a_key_refused_three_times_in_a_row_refuses_the_account() -> None:
    async def story(client: Client, answers: Answers) -> int:
        answers.add(TAGS, status=403, payload={"message": "Forbidden: the-token"}, repeat=True)
        with pytest.raises(AccountRefused) as caught:
            await client.call("GET", "/tags", parse=parse)
        assert "the-token" not in str(caught.value)
        return len(sent(answers))

    assert tell(story) == 3


def test_throttling_makes_every_call_of_the_account_wait() -> None:
    async def story(client: Client, answers: Answers) -> list[float]:
        answers.add(TAGS, status=429, headers={"Retry-After": "30"})
        answers.add(TAGS, payload={}, repeat=True)
        began = now()
        throttled = asyncio.create_task(client.call("GET", "/tags", parse=parse))
        await asyncio.sleep(2)  # by now it was throttled
        await client.call("GET", "/tags", parse=parse)
        ended = now()
        await throttled
        return [ended - began]

    [waited_s] = tell(story)

    assert waited_s >= 30


def test_a_back_off_holds_only_the_call_that_failed() -> None:
    async def story(client: Client, answers: Answers) -> float:
        answers.add(TAGS + "/1", status=500, repeat=True)
        answers.add(TAGS, payload={}, repeat=True)
        failing = asyncio.create_task(client.call("GET", "/tags/1", parse=parse))
        for _ in range(100):
            await client.call("GET", "/tags", parse=parse)
            await asyncio.sleep(1)
        began = now()
        await client.call("GET", "/tags", parse=parse)
        failing.cancel()
        return now() - began

    assert tell(story) < 1.1


def test_calls_keep_to_the_requests_per_second() -> None:
    async def story(client: Client, answers: Answers) -> float:
        answers.add(TAGS, payload={}, repeat=True)
        began = now()
        await asyncio.gather(*(client.call("GET", "/tags", parse=parse) for _ in range(25)))
        return now() - began

    assert 5 <= tell(story) < 5.1


def test_a_call_of_low_priority_is_made_behind_all_others_and_so_are_its_attempts() -> None:
    async def story(client: Client, answers: Answers) -> list[str]:
        fails = asyncio.Event()
        answers.add(TAGS + "/1", status=500, callback=lambda _url, **_kwargs: fails.set())
        answers.add(TAGS + "/1", payload={}, repeat=True)
        answers.add(TAGS, payload={}, repeat=True)
        ended: list[str] = []

        async def call(path: str, *, low_priority: bool = False) -> None:
            await client.call("GET", path, parse=parse, low_priority=low_priority)
            ended.append(path)

        async with asyncio.TaskGroup() as calls:

            def begin_others() -> None:
                for _ in range(50):
                    calls.create_task(call("/tags"))

            calls.create_task(call("/tags/1", low_priority=True))
            begin_others()
            await fails.wait()
            assert ended == ["/tags"] * 50
            begin_others()
            await asyncio.sleep(5)  # half of them are done, and its next attempt waits behind the others
            begin_others()
        return ended

    assert tell(story) == ["/tags"] * 150 + ["/tags/1"]


def test_money_is_sent_as_an_exact_number() -> None:
    async def story(client: Client, answers: Answers) -> object:
        answers.add(TAGS, "POST", payload={})
        await client.call("POST", "/tags", {"amount": Decimal("1234567890123456.78")}, parse=parse)
        [request] = sent(answers, "POST")
        return request["data"]

    assert tell(story) == b'{"amount":1234567890123456.78}'


def test_a_call_raises_once_its_patience_is_over() -> None:
    async def story(client: Client, answers: Answers) -> float:
        answers.add(TAGS, exception=CANNOT_CONNECT, repeat=True)
        began = now()
        with pytest.raises(TryLater, match=r"account\.example"):
            await client.call("GET", "/tags", parse=parse)
        return now() - began

    assert tell(story, patience_s=10) < 20


@pytest.mark.parametrize(
    ("foreign", "meaning"),
    [
        (CANNOT_CONNECT, TryLater),
        (aiohttp.ClientConnectorDNSError(CONNECTION, OSError("no such host")), TryLater),
        (aiohttp.ClientConnectorCertificateError(CONNECTION, ValueError("expired")), TryLater),
        (aiohttp.ClientConnectorSSLError(CONNECTION, OSError("no TLS")), TryLater),
        (aiohttp.ConnectionTimeoutError("connecting took too long"), TryLater),
        (aiohttp.ServerDisconnectedError(), UnknownOutcome),
        (aiohttp.ClientOSError(104, "reset"), UnknownOutcome),
        (aiohttp.ClientConnectionResetError("closing"), UnknownOutcome),
        (aiohttp.ClientPayloadError("cut off"), UnknownOutcome),
        (aiohttp.SocketTimeoutError("no answer"), UnknownOutcome),
        (ConnectionResetError(104, "reset"), UnknownOutcome),
        (TimeoutError(), UnknownOutcome),
    ],
)
def test_an_error_of_aiohttp_means_surely_not_sent_or_perhaps_sent(
    foreign: Exception, meaning: type[DeliveryError]
) -> None:
    async def story(client: Client, answers: Answers) -> None:
        answers.add(TAGS, "POST", exception=foreign)
        with pytest.raises(meaning):
            await client.exchange("POST", URL(TAGS), b"", headers={})

    tell(story)


def test_an_error_of_aiohttp_is_quoted_without_secrets() -> None:
    async def story(client: Client, answers: Answers) -> str:
        answers.add(TAGS, "POST", exception=aiohttp.ClientPayloadError("the-token and ann@example.org"))
        with pytest.raises(UnknownOutcome) as caught:
            await client.exchange("POST", URL(TAGS), b"", headers={})
        return str(caught.value)

    assert tell(story) == "no answer from account.example: ClientPayloadError [secret] and [address]"
