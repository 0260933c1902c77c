"""TLS is always verified: a server whose certificate nobody vouches for gets no request, and no key in it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import trustme
from aiohttp import web

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.events import Events
from kiva_stream.activecampaign.responses.rest import parse_rest
from kiva_stream.errors import TryLater
from kiva_stream.model.ids import Email
from kiva_stream.settings.sections import ActiveCampaignSettings


class Impostor(NamedTuple):
    """A server that answers anything, and the requests that it read."""

    url: str
    requests: list[str]


@asynccontextmanager
async def impostor() -> AsyncIterator[Impostor]:
    requests: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        requests.append(request.path)
        return web.json_response({"tags": [], "success": 1, "message": "Event spawned"})

    identity = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # The certificate is valid for this host and this day: only trust in its authority is missing.
    trustme.CA().issue_cert("localhost", "127.0.0.1").configure_cert(identity)
    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=identity).start()
        yield Impostor(f"https://localhost:{runner.addresses[0][1]}", requests)
    finally:
        await runner.cleanup()


def account(server: Impostor) -> ActiveCampaignSettings:
    return ActiveCampaignSettings(
        api_url=server.url,
        event_url=f"{server.url}/event",
        api_token="the-token",
        event_actid="25550001",
        event_key="the-key",
    )


async def test_a_certificate_that_nobody_vouches_for_is_refused_before_the_key_is_sent() -> None:
    async with impostor() as server, Client(account(server), patience_s=0) as client:
        with pytest.raises(TryLater, match="certificate verify failed"):
            await client.call("GET", "/tags", parse=lambda response: parse_rest(response, dict[str, Any]))
        assert server.requests == []


async def test_events_are_not_sent_there_either() -> None:
    async with impostor() as server, Client(account(server), patience_s=0) as client:
        with pytest.raises(TryLater, match="certificate verify failed"):
            await Events(account(server), client).send(
                Email("ann@example.org"), "Customer cancelled", "log=1"
            )
        assert server.requests == []
