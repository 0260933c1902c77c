"""What a 403 and an answer of another server mean, found by reading the key's own user. In virtual time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import pytest
from yarl import URL

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.own_user import AnsweredHere, is_ambiguous, meaning_of
from kiva_stream.activecampaign.responses.rest import parse_rest
from kiva_stream.activecampaign.retry_policy import REFUSALS
from kiva_stream.errors import (
    AccountRefused,
    DeliveryError,
    ForeignAnswer,
    PermissionRefused,
    TryLater,
    WrongUrl,
)
from kiva_stream.settings.sections import ActiveCampaignSettings
from tests.support.http_answers import CANNOT_CONNECT, Answers
from tests.support.virtual_time import now, run

T = TypeVar("T")

SETTINGS = ActiveCampaignSettings(
    api_url="https://account.example", api_token="the-token", event_actid="25550001", event_key="the-key"
)
TAGS = "https://account.example/api/3/tags"
OWN_USER = "https://account.example/api/3/users/me"
THERE = "https://www.example/login"
CHALLENGE = "<!DOCTYPE html><title>Just a moment...</title>"
USER = {"payload": {"user": {"id": "1"}}}
FORBIDDEN = {"status": 403, "payload": {"message": "Forbidden"}}
FOREIGN: list[dict[str, Any]] = [
    *({"status": status, "headers": {"Location": THERE}} for status in (301, 302, 307, 308)),
    {"status": 404, "body": "<html>not here</html>"},
    {"status": 404, "body": "404 page not found"},
    {"status": 200, "body": "<html>log in</html>"},
]
parse = partial(parse_rest, shape=dict[str, Any])


def tell(story: Callable[[Client, Answers], Awaitable[T]], **kwargs: Any) -> T:  # noqa: ANN401  as they come
    """Run a story with a client whose requests get the story's answers."""

    async def with_client() -> T:
        with Answers() as answers:
            async with Client(SETTINGS, sleep=asyncio.sleep, clock=now, **kwargs) as client:
                return await story(client, answers)

    return run(with_client())


RETRY_S = 300.0


def sent(answers: Answers, url: str, method: str = "GET") -> int:
    return len(answers.requests.get((method, URL(url)), []))


ERRORS = [ForeignAnswer("foreign"), TryLater("down"), AccountRefused("403"), None]


@pytest.mark.parametrize("own_error", ERRORS)
def test_what_the_own_users_read_makes_of_an_answer_of_another_server(
    own_error: DeliveryError | None,
) -> None:
    error = ForeignAnswer("301 to there")
    meaning = meaning_of(error, own_error, request="GET /tags", url="https://account.example/api/3")
    assert type(meaning) is (WrongUrl if isinstance(own_error, ForeignAnswer) else ForeignAnswer)


@pytest.mark.parametrize("own_error", ERRORS)
def test_what_the_own_users_read_makes_of_a_403(own_error: DeliveryError | None) -> None:
    error = AccountRefused("403 Forbidden")
    meaning = meaning_of(error, own_error, request="GET /tags", url="https://account.example/api/3")
    assert type(meaning) is (PermissionRefused if own_error is None else AccountRefused)


def test_an_answer_of_another_server_is_clear_where_activecampaign_ever_answered() -> None:
    assert is_ambiguous(ForeignAnswer("page"), 404, was_answered=False)
    assert not is_ambiguous(ForeignAnswer("page"), 404, was_answered=True)


@pytest.mark.parametrize("was_answered", [False, True])
def test_a_403_alone_of_all_refusals_is_ambiguous(was_answered: bool) -> None:
    meanings = {
        status: is_ambiguous(AccountRefused("no"), status, was_answered=was_answered)
        for status in (200, 400, 401, 402, 403, 422)
    }
    assert [status for status, ambiguous in meanings.items() if ambiguous] == [403]
    assert not is_ambiguous(TryLater("down"), 500, was_answered=was_answered)


@pytest.mark.parametrize("retry_refused_s", [None, 300.0])
@pytest.mark.parametrize("answer", FOREIGN)
def test_a_wrong_api_url_is_raised_after_a_few_attempts_naming_what_came(
    answer: dict[str, Any], retry_refused_s: float | None
) -> None:
    async def story(client: Client, answers: Answers) -> tuple[str, int, float, list[str]]:
        answers.add(TAGS, repeat=True, **answer)
        answers.add(OWN_USER, repeat=True, **answer)
        began = now()
        async with asyncio.timeout(60):
            with pytest.raises(WrongUrl) as caught:
                await client.call("GET", "/tags", parse=parse)
        kinds = [str(each.kind) for each in client.incidents.all()]
        return str(caught.value), sent(answers, TAGS), now() - began, kinds

    said, count, lasted_s, kinds = tell(story, retry_refused_s=retry_refused_s)

    assert "activecampaign.api_url is wrong: https://account.example/api/3 is" in said
    assert said.endswith(f"{answer['status']} to {THERE}" if "headers" in answer else answer["body"])
    assert count == REFUSALS
    assert lasted_s < 15
    assert kinds == ["activecampaign"]


@pytest.mark.parametrize("answer", FOREIGN)
def test_no_redirect_is_followed(answer: dict[str, Any]) -> None:
    async def story(client: Client, answers: Answers) -> set[str]:
        for url in (TAGS, OWN_USER):
            answers.add(url, repeat=True, **answer)
        with pytest.raises(WrongUrl):
            await client.call("GET", "/tags", parse=parse)
        return {str(url) for _, url in answers.requests}

    assert tell(story) == {TAGS, OWN_USER}


@pytest.mark.parametrize("answer", FOREIGN)
@pytest.mark.parametrize("own", [USER, {"status": 500}, {"exception": CANNOT_CONNECT}, FORBIDDEN])
def test_an_answer_of_another_server_is_an_outage_unless_the_own_users_read_gets_one_too(
    answer: dict[str, Any], own: dict[str, Any]
) -> None:
    async def story(client: Client, answers: Answers) -> tuple[object, int]:
        for _ in range(12):
            answers.add(TAGS, **answer)
        answers.add(TAGS, payload={"done": 1})
        answers.add(OWN_USER, repeat=True, **own)
        return await client.call("GET", "/tags", parse=parse), sent(answers, TAGS)

    assert tell(story) == ({"done": 1}, 13)


@pytest.mark.parametrize("answer", FOREIGN)
def test_an_answer_of_another_server_is_an_outage_at_a_url_that_was_ever_answered(
    answer: dict[str, Any],
) -> None:
    async def story(client: Client, answers: Answers) -> tuple[int, int]:
        for _ in range(12):
            answers.add(TAGS, **answer)
        answers.add(TAGS, payload={})
        answers.add(OWN_USER, repeat=True, **answer)
        await client.call("GET", "/tags", parse=parse)
        return sent(answers, TAGS), sent(answers, OWN_USER)

    assert tell(story, answered=AnsweredHere(is_known=True)) == (13, 0)


@pytest.mark.parametrize("answer", FOREIGN)
def test_the_first_answer_makes_a_later_one_of_another_server_an_outage(answer: dict[str, Any]) -> None:
    async def story(client: Client, answers: Answers) -> int:
        answers.add(TAGS, payload={})
        for _ in range(5):
            answers.add(TAGS, **answer)
        answers.add(TAGS, payload={})
        for _ in range(2):
            await client.call("GET", "/tags", parse=parse)
        return sent(answers, OWN_USER)

    assert tell(story) == 0


class CountingUrl(AnsweredHere):
    """Counts how often an answer is recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.recorded = 0

    async def record(self) -> None:
        await super().record()
        self.recorded += 1


def test_the_first_answer_is_recorded_and_no_failure_is() -> None:
    async def story(client: Client, answers: Answers) -> list[int]:
        recorded = []
        for status in (500, 422, 200, 200):
            answers.add(TAGS, status=status, payload={})
        for _ in range(3):
            with suppress(DeliveryError):
                await client.call("GET", "/tags", parse=parse)
            recorded.append(url.recorded)
        return recorded

    url = CountingUrl()
    assert tell(story, answered=url) == [0, 1, 1]


@pytest.mark.parametrize(
    ("refusal", "words"),
    [(FORBIDDEN, "Forbidden"), ({"status": 403, "body": CHALLENGE}, "A proxy before ActiveCampaign")],
)
def test_a_403_while_the_key_is_accepted_says_so_and_names_the_request(
    refusal: dict[str, Any], words: str
) -> None:
    async def story(client: Client, answers: Answers) -> tuple[str, int]:
        answers.add(TAGS + "?search=ann@example.org", "POST", repeat=True, **refusal)
        answers.add(OWN_USER, repeat=True, **USER)
        with pytest.raises(PermissionRefused) as caught:
            await client.call("POST", "/tags?search=ann@example.org", parse=parse)
        return str(caught.value), sum(len(calls) for calls in answers.requests.values())

    said, count = tell(story)

    assert "accepts the key for GET /users/me and refuses POST /tags:" in said
    assert words in said
    assert "ann@" not in said
    assert count == 2 * REFUSALS


def test_a_read_without_permission_waits_alone_and_all_other_calls_go_on() -> None:
    async def story(client: Client, answers: Answers) -> list[object]:
        for _ in range(2 * REFUSALS):
            answers.add(TAGS, **FORBIDDEN)
        answers.add(TAGS, payload={})
        answers.add(TAGS, "POST", payload={}, repeat=True)
        answers.add(OWN_USER, repeat=True, **USER)
        seen: list[object] = []
        async with asyncio.TaskGroup() as group:
            read = group.create_task(client.call("GET", "/tags", parse=parse))
            await asyncio.sleep(RETRY_S / 2)
            seen.append([str(each.kind) for each in client.incidents.all()])
            began = now()
            await client.call("POST", "/tags", parse=parse)
            seen.append((now() - began < 5, read.done()))
        return [*seen, client.incidents.all(), sent(answers, TAGS)]

    assert tell(story, retry_refused_s=RETRY_S) == [["permission"], (True, False), [], 2 * REFUSALS + 1]


@pytest.mark.parametrize(
    ("tries", "awaits_permission", "kinds"), [(2, True, []), (math.inf, False, ["permission"])]
)
def test_a_read_about_one_record_that_is_refused_is_left_to_its_caller(
    tries: float, *, awaits_permission: bool, kinds: list[str]
) -> None:
    async def story(client: Client, answers: Answers) -> tuple[bool, list[str], list[str]]:
        paths = [f"/contacts/{number}/trackingLogs" for number in (7, 8)]
        urls = [f"https://account.example/api/3{path}" for path in paths]
        answers.add(urls[0], repeat=True, **FORBIDDEN)
        answers.add(urls[1], payload={})
        answers.add(OWN_USER, repeat=True, **USER)
        began = now()
        with pytest.raises(PermissionRefused):
            async with asyncio.timeout(RETRY_S):
                await client.call(
                    "GET", paths[0], parse=parse, tries=tries, awaits_permission=awaits_permission
                )
        was_soon = now() - began < 60
        open_then = [str(each.kind) for each in client.incidents.all()]
        await client.call("GET", paths[1], parse=parse)
        return was_soon, open_then, [str(each.kind) for each in client.incidents.all()]

    assert tell(story, retry_refused_s=RETRY_S) == (True, kinds, [])


@pytest.mark.parametrize(("tries", "count"), [(1, 1), (2, 2), (math.inf, REFUSALS)])
def test_a_write_without_permission_is_raised_after_as_many_attempts_as_its_caller_makes(
    tries: float, count: int
) -> None:
    async def story(client: Client, answers: Answers) -> int:
        answers.add(TAGS, "POST", repeat=True, **FORBIDDEN)
        answers.add(OWN_USER, repeat=True, **USER)
        with pytest.raises(PermissionRefused):
            await client.call("POST", "/tags", parse=parse, tries=tries)
        assert client.incidents.all() == []
        return sent(answers, TAGS, "POST")

    assert tell(story, retry_refused_s=RETRY_S) == count


def test_reads_of_the_own_user_keep_to_the_requests_per_second() -> None:
    arrived: list[float] = []

    class Watched(Client):
        async def exchange(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  passed on as they come
            arrived.append(now())
            return await super().exchange(*args, **kwargs)

    async def story() -> None:
        with Answers() as answers:
            answers.add(TAGS, repeat=True, **FORBIDDEN)
            answers.add(OWN_USER, repeat=True, **USER)
            async with Watched(SETTINGS, clock=now) as client:
                calls = [client.call("GET", "/tags", parse=parse) for _ in range(20)]
                await asyncio.gather(*calls, return_exceptions=True)

    run(story())

    per_second = SETTINGS.requests_per_second
    assert len(arrived) == 2 * REFUSALS * 20
    assert all(later - earlier > 1 for earlier, later in zip(arrived, arrived[per_second:], strict=False))
