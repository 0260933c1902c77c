"""Planted secrets and a planted person are found nowhere they do not belong.

The tests of this module look at one story: a shop is carried through an ActiveCampaign that repeats in its
refusals what it was sent, by processes that log all they have to say.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import aiohttp
import anyio
import msgspec
import pytest
from aiohttp import web
from anyio.from_thread import start_blocking_portal

from kiva_stream.sandbox.postgres import Server
from tests.acceptance.live_shop import LONG_PAID, LiveShop, email, live_shop
from tests.acceptance.stages import PATIENCE_S, until
from tests.support.postgres import connected

PASSWORD = "pass-word-planted-51x"
PERSON = "zoe.planted+box"  # the name in the address: the domain says nothing about anybody
ADDRESS = f"{PERSON}@example.com"
REFUSED_PERSON = "max.planted+box"
REFUSED = f"{REFUSED_PERSON}@example.com"
ALL_OF_IT = {"KIVA_STREAM__LOG__LEVEL": "debug"}
NAMES_CONTACTS = ("contact", "email")  # the one column where an address belongs


class Echo:
    """Stands before ActiveCampaign, and refuses with what it was sent: headers, bodies, addresses."""

    def __init__(self, shop: LiveShop) -> None:
        self._shop = shop
        self.refusals = 0
        self._first: set[str] = set()  # paths that were answered before

    async def answer(self, session: aiohttp.ClientSession, request: web.BaseRequest) -> web.Response:
        """Refuse what is to be refused, pass on the rest."""
        body = await request.read()
        if refusal := self._refusal(request, body.decode()):
            self.refusals += 1
            return refusal
        url = self._shop.activecampaign.event_url if request.path == "/event" else self._there(request)
        kept = {
            name: request.headers[name] for name in ("Api-Token", "Content-Type") if name in request.headers
        }
        async with session.request(request.method, url, data=body, headers=kept) as reply:
            return web.json_response(body=await reply.read(), status=reply.status)

    def _there(self, request: web.BaseRequest) -> str:
        return self._shop.activecampaign.api_url + request.path_qs

    def _refusal(self, request: web.BaseRequest, body: str) -> web.Response | None:
        said = f"{request.headers.get('Api-Token')} {request.path_qs} {ADDRESS} {body}"
        if request.path not in self._first:
            self._first.add(request.path)
            return web.Response(text=f"<html>{said}</html>", content_type="text/html", status=503)
        if request.path.endswith("/contact/sync") and REFUSED_PERSON in body:
            return web.json_response({"errors": [{"title": said, "detail": REFUSED}]}, status=422)
        if request.path.endswith("/graphql") and "mutation" in body and '"7001"' in body:
            fault = {"message": "Validation errors", "extensions": {"order-storeOrderId-7001": said}}
            return web.json_response({"errors": [fault], "data": None})
        if request.path == "/event" and "Customer" in parse_qs(body)["event"][0]:
            return web.json_response({"success": 0, "message": f"no room for {ADDRESS} {self._key}"})
        return None

    @property
    def _key(self) -> str:
        return self._shop.activecampaign.accounts[0].event_key


@asynccontextmanager
async def echoing(shop: LiveShop) -> AsyncIterator[tuple[Echo, Mapping[str, str]]]:
    """Give an echo, and the settings that lead by it."""
    echo = Echo(shop)
    async with aiohttp.ClientSession() as session:
        runner = web.ServerRunner(web.Server(partial(echo.answer, session), access_log=None))
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            names = {"API_URL": url, "EVENT_URL": f"{url}/event"}
            yield echo, {f"KIVA_STREAM__ACTIVECAMPAIGN__{name}": value for name, value in names.items()}
        finally:
            await runner.cleanup()


class Story(msgspec.Struct):
    """What was said to anybody, what processes are called, and what the state keeps."""

    secrets: dict[str, str]  # by what they are
    said: dict[str, str] = {}  # by the command
    shown: dict[str, str] = {}  # process listings, by the command
    kept: dict[str, list[str]] = {}  # rows by table, without contact.email
    emails: list[str] = []  # contact.email
    refusals: int = 0

    def found_in(self, texts: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return which secret or person was found where."""
        planted = {**self.secrets, "person": PERSON, "refused person": REFUSED_PERSON}
        return [
            (name, where)
            for name, secret in planted.items()
            for where, text in texts.items()
            if any(form in text for form in (secret, quote(secret, safe=""), secret.encode().hex()))
        ]


def with_password(dsn: str) -> str:
    """Return a DSN with the planted password; the tests' server asks for none."""
    parts = urlsplit(dsn)
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}:{PASSWORD}@{host}").geturl()


def listing(process: subprocess.Popen[str]) -> str:
    """Return what a listing of processes shows of one."""
    shown = Path(f"/proc/{process.pid}/cmdline").read_text("utf-8")
    return (
        shown
        + subprocess.run(
            ["ps", "-o", "args=", "-p", str(process.pid)], capture_output=True, text=True, check=True
        ).stdout
    )


async def fill(shop: LiveShop) -> None:
    """Plant a person whom ActiveCampaign takes and one whom it refuses, with orders and entries."""
    write = shop.rows.connection.execute
    for customer, address in ((1, ADDRESS), (2, REFUSED)):
        await write("UPDATE kiva.customers SET email = $2 WHERE id = $1", customer, address)
    await shop.order(7001, 1, **LONG_PAID)
    await shop.order(7002, 1, **LONG_PAID)
    for customer in shop.customers:
        for action in ("login.password", "customer.cancel"):
            await shop.write(shop.rows.connection, customer, action)
    await write("UPDATE kiva.system_log SET message = message || $1", f" of {ADDRESS}")
    await shop.activecampaign.change(failing_emails=[REFUSED])


async def tell(shop: LiveShop) -> Story:
    """Run it all."""
    keys = shop.activecampaign.accounts[0]
    story = Story({"token": keys.api_token, "event key": keys.event_key, "password": PASSWORD})
    await fill(shop)
    async with echoing(shop) as (echo, lead_by_it):
        environ = {**ALL_OF_IT, **lead_by_it}

        async def run(name: str, *arguments: str, **more: str) -> None:
            story.said[name] = await anyio.to_thread.run_sync(
                lambda: said(shop, story, name, *arguments, **{**environ, **more})
            )

        await run("check", "check", "--json")
        await run("plan", "plan", "--since", "day1", "--json")
        await run("backfill", "backfill", "--since", "day1", "--yes")
        await follow_a_moment(shop, story, environ)
        await run("status", "status", "--json")
        await run("letters", "dead-letters", "list", "--json")
        await run("verify", "verify", "--json")
        await run("sync", "sync", "--customer", "1", "--json")
        await run("sync, refused", "sync", "--customer", "2")
        nowhere = with_password(shop.dsn).replace(urlsplit(shop.dsn).path, "/nowhere")
        await run("no source", "check", KIVA_STREAM__SOURCE__DSN=nowhere)
        await run("no state", "status", KIVA_STREAM__STATE__DSN=nowhere)
        story.refusals = echo.refusals
    story.kept, story.emails = await kept(shop.dsn)
    return story


def said(shop: LiveShop, story: Story, name: str, *arguments: str, **environ: str) -> str:
    """Run a command; return all that it said."""
    with shop.start(*arguments, **environ) as process:
        story.shown[name] = listing(process)
        return "".join(process.communicate(timeout=PATIENCE_S))


async def follow_a_moment(shop: LiveShop, story: Story, environ: Mapping[str, str]) -> None:
    before = len(await shop.arrivals())
    await shop.write(shop.rows.connection, 1)

    async def has_arrived() -> bool:
        return len(await shop.arrivals()) > before

    with shop.start("follow", **environ) as process:
        await until(has_arrived)
        story.shown["follow"] = listing(process)
        process.send_signal(signal.SIGTERM)
        out, err = await anyio.to_thread.run_sync(partial(process.communicate, timeout=PATIENCE_S))
    story.said["follow"] = out + err


async def kept(dsn: str) -> tuple[dict[str, list[str]], list[str]]:
    """Return all rows of the state schema as text, and apart from them the addresses of its contacts."""
    async with connected(dsn) as connection:
        tables = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'kiva_stream'::regnamespace AND relkind = 'r'"
        )
        rows: dict[str, list[str]] = {}
        for (table,) in tables:
            left_out = NAMES_CONTACTS[1] if table == NAMES_CONTACTS[0] else ""
            query = f"SELECT (to_jsonb(t) - $1)::text FROM kiva_stream.{table} t"
            rows[table] = [row[0] for row in await connection.fetch(query, left_out)]
        emails = await connection.fetch("SELECT email FROM kiva_stream.contact")
        return rows, [row[0] for row in emails]


@pytest.fixture(scope="module")
def story(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    async def told(dsn: str, folder: Path) -> Story:
        async with live_shop(dsn, folder, 3) as shop:
            for name in ("SOURCE", "STATE"):
                shop.environ[f"KIVA_STREAM__{name}__DSN"] = with_password(dsn)
            return await tell(shop)

    with start_blocking_portal() as portal:
        dsn: str = portal.call(postgres.create_database, "kiva_secrets")
        yield portal.call(told, dsn, tmp_path_factory.mktemp("secrets"))
        portal.call(postgres.drop_database, "kiva_secrets")


def test_the_commands_meet_every_answer_that_could_leak_secrets(story: Story) -> None:
    replies = [msgspec.json.decode(row)["reply"] for row in story.kept["dead_letter"]]
    orders = [msgspec.json.decode(row)["refused"] for row in story.kept["sent_order"]]
    assert story.refusals >= 5
    assert any("no room for" in reply for reply in replies)
    assert any(orders)
    assert ADDRESS in story.emails
    assert "trying again" in story.said["backfill"]
    assert '"equation"' in story.said["status"]


def test_no_command_prints_a_secret_or_a_person(story: Story) -> None:
    assert story.found_in(story.said) == []


def test_no_process_listing_shows_a_secret_or_a_person(story: Story) -> None:
    assert all("kiva_stream" in shown for shown in story.shown.values())
    assert story.found_in(story.shown) == []


def test_the_state_holds_no_secret_and_of_people_the_addresses_of_contacts_alone(story: Story) -> None:
    assert story.found_in({table: "\n".join(rows) for table, rows in story.kept.items()}) == []
    assert story.found_in({"contact.email": "\n".join(story.emails)}) == [
        ("person", "contact.email"),
        ("refused person", "contact.email"),
    ]


def test_people_who_were_not_planted_are_masked_as_well(story: Story) -> None:
    assert not [name for name, text in story.said.items() if email(3) in text]
