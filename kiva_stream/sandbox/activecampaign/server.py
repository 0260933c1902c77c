"""The sandbox on the network: HTTP on a loopback port, with latency and jitter.

A request waits for half of the latency and all of the jitter, its response for the other half.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial

from aiohttp import web

from kiva_stream.sandbox.activecampaign import control
from kiva_stream.sandbox.activecampaign.account import Account, SandboxAccount
from kiva_stream.sandbox.activecampaign.faults import Fault, Faults
from kiva_stream.sandbox.activecampaign.responses import Response, Silence
from kiva_stream.sandbox.activecampaign.service import EVENT_PATH, Request, Service, steady_time

_MAX_BODY_BYTES = 32 * 2**20  # above all limits of the contract, so that the sandbox refuses and not aiohttp
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Sandbox:
    """A local ActiveCampaign. Its accounts outlive a `serve`, so that it can be stopped and served again.

    `accounts` must differ in name, token and actid. `latency_ms` is the round-trip time; up to `jitter_ms` is
    added to it. Raises ValueError for two accounts with the same name, token or actid.
    """

    def __init__(
        self,
        accounts: Sequence[SandboxAccount],
        *,
        latency_ms: float = 0.0,
        jitter_ms: float = 0.0,
        faults: Iterable[Fault] = (),
        seed: int = 0,
        clock: Callable[[], float] = steady_time,
    ) -> None:
        _check_distinct(accounts)
        self.service = Service(accounts, Faults(faults, seed), clock)
        self.latency_ms = latency_ms
        self.jitter_ms = jitter_ms
        self._random = random.Random(seed)  # noqa: S311  chance, not secrets

    @asynccontextmanager
    async def serve(self, port: int = 0, host: str = "127.0.0.1") -> AsyncIterator[Running]:
        """Listen on a port (0: any) while the context lasts. Raises ValueError for a host beyond loopback."""
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"the sandbox listens on loopback only, not on {host}")
        closing = asyncio.Event()
        request_factory = partial(
            web.BaseRequest, loop=asyncio.get_running_loop(), client_max_size=_MAX_BODY_BYTES
        )
        server = web.Server(_Front(self, closing).handle, request_factory=request_factory, access_log=None)
        runner = web.ServerRunner(server)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, backlog=1024).start()
            yield Running(self, f"http://{host}:{runner.addresses[0][1]}")
        finally:
            closing.set()
            await runner.cleanup()

    def request_delay_s(self) -> float:
        """Return how long the next request waits before it is answered."""
        jitter_ms = self._random.uniform(0.0, self.jitter_ms) if self.jitter_ms else 0.0
        return (self.latency_ms / 2 + jitter_ms) / 1000

    def response_delay_s(self) -> float:
        """Return how long a response waits before it is sent."""
        return self.latency_ms / 2 / 1000


class Running:
    """A sandbox that listens: its addresses and its state."""

    def __init__(self, sandbox: Sandbox, url: str) -> None:
        self.sandbox = sandbox
        self.api_url = url  # the client adds /api/3
        self.event_url = url + EVENT_PATH

    @property
    def faults(self) -> Faults:
        """The faults in force; `faults.set([...])` replaces them."""
        return self.sandbox.service.faults

    def account(self, name: str) -> Account:
        """Return an account by its name, with what is due by now done. Raises KeyError."""
        return self.sandbox.service.account(name)


def _check_distinct(accounts: Sequence[SandboxAccount]) -> None:
    for field in ("name", "api_token", "event_actid"):
        if len({getattr(account, field) for account in accounts}) < len(accounts):
            raise ValueError(f"two accounts have the same {field}")


class _Front:
    """Reads requests, and sends the service's responses or keeps silent."""

    def __init__(self, sandbox: Sandbox, closing: asyncio.Event) -> None:
        self._sandbox = sandbox
        self._closing = closing

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        path = request.raw_path.partition("?")[0]
        if path.startswith(control.PREFIX):
            return await control.answer(self._sandbox.service, request, path=path, body=body)
        response = await self._answer(_read(request, path, body))
        if isinstance(response, Silence):
            await self._keep_silent(request, response)
            return web.Response()  # is not sent: the connection is closed
        sent = web.Response(
            body=response.body, status=response.status, headers={"Content-Type": response.content_type}
        )
        sent.headers.update(response.headers)
        return sent

    async def _answer(self, request: Request) -> Response | Silence:
        service = self._sandbox.service
        with service.under_way(request):
            await _wait(self._sandbox.request_delay_s())
            response = service.answer(request)
            await _wait(self._sandbox.response_delay_s())
        return response

    async def _keep_silent(self, request: web.BaseRequest, silence: Silence) -> None:
        if silence is Silence.HANG:
            await self._closing.wait()
        if request.transport:
            request.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE
            )
            request.transport.abort()


async def _wait(seconds: float) -> None:
    if seconds:
        await asyncio.sleep(seconds)


def _read(request: web.BaseRequest, path: str, body: bytes) -> Request:
    headers = request.headers
    return Request(
        request.method,
        path,
        request.query if "?" in request.raw_path else {},
        headers.get("Api-Token"),
        headers.get("Content-Type", "").partition(";")[0].strip().lower(),
        body,
    )
