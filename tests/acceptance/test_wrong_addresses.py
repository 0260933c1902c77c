"""A mistyped address of ActiveCampaign: the run says which setting it is, and nothing dies of it.

What a wrong address answers is an outage at one where ActiveCampaign ever answered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import msgspec
import pytest
from aiohttp import web

from tests.acceptance.live_shop import FOLLOW, LiveShop, arrived, following, live_shop
from tests.acceptance.stages import Stage, until
from tests.support.postgres import connected

THERE = "https://www.example/login"
PAGE = "<!DOCTYPE html><title>Log in</title>"
FOREIGN: list[tuple[dict[str, Any], str]] = [
    ({"status": 301, "headers": {"Location": THERE}}, f"301 to {THERE}"),
    ({"status": 308, "headers": {"Location": THERE}}, f"308 to {THERE}"),
    ({"status": 404, "text": PAGE, "content_type": "text/html"}, f"404 {PAGE}"),
    ({"status": 200, "text": PAGE, "content_type": "text/html"}, f"200 {PAGE}"),
]
API_URL, EVENT_URL = "KIVA_STREAM__ACTIVECAMPAIGN__API_URL", "KIVA_STREAM__ACTIVECAMPAIGN__EVENT_URL"
NOWHERE = "/_sandbox/nowhere"  # a plain 404, before anybody looks at a key
DAY1 = ("backfill", "--since", "day1", "--yes")


class Way:
    """The way to the API of ActiveCampaign; while `answer` is set another server gives it instead."""

    def __init__(self, api_url: str) -> None:
        self.answer: dict[str, Any] | None = None
        self.answered = 0  # by the other server
        self.environ: dict[str, str] = {}
        self._api_url = api_url

    @classmethod
    @asynccontextmanager
    async def to(cls, api_url: str) -> AsyncIterator[Way]:
        """Serve on a port of this machine during the block."""
        way = cls(api_url)
        runner = web.ServerRunner(web.Server(way._pass, access_log=None))
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            way.environ = {API_URL: f"http://127.0.0.1:{runner.addresses[0][1]}"}
            yield way
        finally:
            await runner.cleanup()

    async def _pass(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        if self.answer is not None:
            self.answered += 1
            return web.Response(**self.answer)
        kept = {name: request.headers[name] for name in ("Api-Token", "Content-Type")}
        async with (
            aiohttp.ClientSession(self._api_url) as session,
            session.request(request.method, request.path_qs, data=body, headers=kept) as reply,
        ):
            return web.Response(status=reply.status, body=await reply.read(), content_type="application/json")


async def run(stage: Stage | LiveShop, *arguments: str, **environ: str) -> tuple[int, str]:
    """Run a command to its end; return its exit code, and what it printed."""
    ended = await anyio.to_thread.run_sync(lambda: stage.ended(*arguments, **environ))
    return ended.code, ended.out + ended.err


async def status_of(stage: Stage | LiveShop) -> dict[str, Any]:
    """Return what `status --json` prints, {} before it has anything to say."""
    code, said = await run(stage, "status", "--json")
    return msgspec.json.decode(said) if code == 0 else {}


def last_line(said: str) -> str:
    return said.strip().splitlines()[-1]


async def test_a_mistyped_event_url_is_exit_4_and_dead_letters_no_event(ready: Stage) -> None:
    nowhere = ready.environ[API_URL] + NOWHERE
    said = ready.run("backfill", "--since", "day1", code=4, **{EVENT_URL: nowhere})
    assert "event_url" in last_line(said)
    assert (await ready.activecampaign.state())["events"] == 0
    ready.run("backfill")
    assert (await ready.compare()).is_exact
    ready.assert_equation()


@pytest.mark.parametrize("command", [("setup",), ("backfill", "--since", "day1")])
def test_a_mistyped_api_url_is_exit_4(ready: Stage, command: tuple[str, ...]) -> None:
    said = ready.run(*command, code=4, **{API_URL: ready.environ[API_URL] + NOWHERE})
    assert "api_url" in last_line(said)


@pytest.mark.parametrize(("answer", "words"), FOREIGN)
async def test_a_backfill_at_a_wrong_url_is_exit_4_and_names_what_came(
    ready: Stage, answer: dict[str, Any], words: str
) -> None:
    async with Way.to(ready.activecampaign.api_url) as way:
        way.answer = answer
        code, said = await run(ready, *DAY1, **way.environ)
        shown = await status_of(ready)
    assert (code, "Traceback" in said) == (4, False), said
    assert "activecampaign.api_url is wrong" in said
    assert words in said
    assert (shown["phase"], shown["held_by"]) == ("start", None)
    [trouble] = shown["troubles"]
    assert trouble["kind"] == "activecampaign"
    assert words in trouble["why"]


@pytest.mark.parametrize("command", [FOLLOW, ("setup",), ("check",)])
async def test_every_command_says_that_the_url_is_wrong(ready: Stage, command: tuple[str, ...]) -> None:
    async with Way.to(ready.activecampaign.api_url) as way:
        way.answer = FOREIGN[0][0]
        code, said = await run(ready, *command, **way.environ)
    assert (code, "Traceback" in said) == (7 if command == ("check",) else 4, False), said
    assert "api_url is wrong" in " ".join(said.split())


@pytest.mark.parametrize(("answer", "words"), FOREIGN[::3])  # a redirect, a page
async def test_the_same_answers_at_a_url_that_was_ever_answered_are_waited_out(
    database: str, tmp_path: Path, answer: dict[str, Any], words: str
) -> None:
    async with (
        live_shop(database, tmp_path, 2) as shop,
        Way.to(shop.activecampaign.api_url) as way,
        connected(shop.dsn) as writer,
    ):
        assert (await run(shop, "setup", **way.environ))[0] == 0  # it was answered there
        await shop.write(writer, 1)
        way.answer = answer
        quick = {"KIVA_STREAM__ACTIVECAMPAIGN__BACKOFF_MAX_S": "0.5"}
        async with following(shop, **way.environ, **quick):

            async def is_told() -> bool:
                kinds = [each["kind"] for each in (await status_of(shop)).get("troubles", [])]
                return way.answered > 10 and kinds == ["activecampaign"]

            await until(is_told)
            assert words in (await status_of(shop))["troubles"][0]["why"]
            way.answer = None
            await arrived(shop, 1)


@pytest.mark.parametrize("kind", ["answer-before", "answer-after"])
async def test_an_event_answered_by_a_redirect_or_a_page_is_looked_up_and_arrives_once(
    ready: Stage, kind: str
) -> None:
    answers: list[dict[str, Any]] = [
        {"status": 301, "headers": {"Location": THERE}},
        {"status": 404, "text": PAGE},
        {"status": 200, "text": PAGE},
    ]
    await ready.activecampaign.fail(
        *({"path": "/event", "kind": kind, "count": 5, **answer} for answer in answers)
    )
    code, said = await run(ready, *DAY1)
    assert code == 0, said
    assert (await ready.activecampaign.state())["faults"] == {kind: 15}
    assert (await ready.compare()).is_exact
    ready.assert_equation()


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ({"kind": "403"}, "Forbidden"),
        ({"kind": "answer-before", "status": 403, "text": PAGE}, "A proxy before ActiveCampaign"),
    ],
)
async def test_a_403_of_one_call_while_the_key_is_accepted_is_not_told_as_the_keys(
    ready: Stage, refusal: dict[str, Any], words: str
) -> None:
    await ready.activecampaign.fail({"path": "/import/bulk_import", **refusal})
    code, said = await run(ready, *DAY1)
    assert (code, "Traceback" in said) == (4, False), said
    assert "accepts the key for GET /users/me and refuses POST /import/bulk_import" in said
    assert words in said
    await ready.activecampaign.fail()
    assert (await run(ready, "backfill"))[0] == 0
    assert (await ready.compare()).is_exact


async def test_a_challenge_page_for_every_call_is_told_as_a_proxys(ready: Stage) -> None:
    await ready.activecampaign.fail({"path": "*", "kind": "answer-before", "status": 403, "text": PAGE})
    code, said = await run(ready, *DAY1)
    assert code == 4
    assert "A proxy before ActiveCampaign refuses this machine" in last_line(said)


async def test_status_tells_the_incident_and_the_holder_from_the_first_request_on(
    ready: Stage,
) -> None:
    async with Way.to(ready.activecampaign.api_url) as way:
        way.answer = {"status": 500}
        slow = {"KIVA_STREAM__ACTIVECAMPAIGN__BREAKER_FAILURES": "1000"}
        with ready.start(*DAY1, **way.environ, **slow) as process:
            try:
                shown: dict[str, Any] = {}

                async def is_told() -> bool:
                    shown.update(await status_of(ready))
                    return bool(shown.get("troubles"))

                await until(is_told)
                assert shown["phase"] == "start"
                assert shown["held_by"].endswith(f"pid {process.pid}")
                assert "500" in shown["troubles"][0]["why"]
            finally:
                process.kill()
