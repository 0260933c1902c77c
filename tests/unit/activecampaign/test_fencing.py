"""The fencing check of a client: no byte of a request that it stops is received. Over real connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from yarl import URL

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.events import Events
from kiva_stream.activecampaign.responses.rest import parse_rest
from kiva_stream.errors import HeldError
from kiva_stream.model.ids import Email
from kiva_stream.settings.sections import ActiveCampaignSettings

LOST = HeldError("lost")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
Ask = Callable[[Client], Awaitable[object]]


class Receiver:
    """A server that keeps what reaches it, and answers each request with an empty object."""

    def __init__(self) -> None:
        self.port = 0
        self.received = b""
        self._connections: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        async with await asyncio.start_server(self._accept, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield

    async def ended(self) -> bytes:
        """Return all that came, once the other end has closed every connection."""
        with anyio.fail_after(10):
            await asyncio.gather(*self._connections)
        return self.received

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.append(asyncio.create_task(self._receive(reader, writer)))

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.received += data
            writer.write(ANSWER)
        writer.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    it = Receiver()
    async with it.listening():
        yield it


def settings(receiver: Receiver) -> ActiveCampaignSettings:
    url = f"http://127.0.0.1:{receiver.port}"
    return ActiveCampaignSettings(
        api_url=url,
        api_token="t",
        event_actid="1",
        event_key="k",
        event_url=f"{url}/event",
    )


class ScriptedFencing:
    """Implements the port FencingCheck: passes for each None, then raises for ever.

    `regained` counts, and raises unless the lease can be regained.
    """

    def __init__(self, verdicts: Iterable[HeldError | None], *, can_regain: bool = False) -> None:
        self.regained_times = 0
        self._left = iter(verdicts)
        self._can_regain = can_regain

    def require(self) -> None:
        if (error := next(self._left, LOST)) is not None:
            raise error

    async def regained(self) -> None:
        if not self._can_regain:
            raise LOST
        self.regained_times += 1


async def held_back(receiver: Receiver, ask: Ask, verdicts: Iterable[HeldError | None]) -> bytes:
    """Ask something of a client whose fencing check gives these verdicts; return what was received."""
    async with Client(settings(receiver), fencing=ScriptedFencing(verdicts)) as client:
        with anyio.fail_after(10), pytest.raises(HeldError, match=r"^lost$"):
            await ask(client)
    return await receiver.ended()


def exchange(receiver: Receiver, method: str, body: bytes | None) -> Ask:
    url = URL(f"http://127.0.0.1:{receiver.port}/api/3/tags")
    return lambda client: client.exchange(method, url, body, headers={})


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("DELETE", None), ("POST", b"{}")])
async def test_a_request_that_the_fencing_check_stops_is_not_written(
    receiver: Receiver, method: str, body: bytes | None
) -> None:
    assert await held_back(receiver, exchange(receiver, method, body), []) == b""


@pytest.mark.parametrize("body", [b"{}", b"x" * 500_000])
async def test_a_body_is_checked_in_the_step_in_which_it_is_written(receiver: Receiver, body: bytes) -> None:
    assert await held_back(receiver, exchange(receiver, "POST", body), [None]) == b""


async def test_a_request_on_an_open_connection_is_checked_too(receiver: Receiver) -> None:
    ask = exchange(receiver, "POST", b"{}")

    async def twice(client: Client) -> None:
        await ask(client)
        await ask(client)

    assert (await held_back(receiver, twice, [None, None])).count(b"POST ") == 1


async def test_a_call_is_not_repeated_once_the_lease_is_lost(receiver: Receiver) -> None:
    parse = partial(parse_rest, shape=dict[str, Any])
    assert await held_back(receiver, lambda client: client.call("POST", "/tags", {}, parse=parse), []) == b""


async def test_an_event_is_not_repeated_once_the_lease_is_lost(receiver: Receiver) -> None:
    async def send(client: Client) -> None:
        await Events(settings(receiver), client).send(Email("ann@example.com"), "Logged In", "at=1; log=1")

    assert await held_back(receiver, send, []) == b""


@pytest.mark.parametrize("verdicts", [[LOST], [None, LOST]])
async def test_a_stopped_request_is_sent_once_when_the_lease_is_regained(
    receiver: Receiver, verdicts: list[HeldError | None]
) -> None:
    fencing = ScriptedFencing([*verdicts, None, None], can_regain=True)
    async with Client(settings(receiver), fencing=fencing) as client:
        await client.call("POST", "/tags", {}, parse=partial(parse_rest, shape=dict[str, Any]))
    assert ((await receiver.ended()).count(b"POST "), fencing.regained_times) == (1, 1)
