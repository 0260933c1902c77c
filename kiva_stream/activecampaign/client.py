"""The HTTP client of one ActiveCampaign account: one lean session, one budget, one way of trying again.

`exchange` is the border: below it are aiohttp's exceptions, above it the two meanings they can have. What
was surely not sent is a TryLater, what may have been is an UnknownOutcome. `call` is for REST and GraphQL,
whose calls are upserts and reads: it tries again either way.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
import msgspec
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection
from yarl import URL

from kiva_stream.activecampaign.circuit_breaker import CircuitBreaker
from kiva_stream.activecampaign.rate_limits import Budget, Clock, Pause, request_budget
from kiva_stream.activecampaign.responses.response import Response, mask
from kiva_stream.activecampaign.retry_policy import RetryPolicy
from kiva_stream.errors import AccountRefused, DeliveryError, HeldError, TryLater, UnknownOutcome
from kiva_stream.observability.incidents import Incidents
from kiva_stream.observability.logs import ThrottledWarning
from kiva_stream.ports import stages
from kiva_stream.ports.state import FencingCheck
from kiva_stream.primitives.clock import Sleep
from kiva_stream.settings.sections import ActiveCampaignSettings

T = TypeVar("T")

API_PATH = "/api/3"
USER_AGENT = "kiva_stream"  # Cloudflare, before ActiveCampaign, turns away requests that name none
AUTO_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")

_json = msgspec.json.Encoder(decimal_format="number")  # money is a number there, and as exact as it was


class Client:
    """Talks to one account; `async with` it.

    `patience_s` bounds the waits of a call between its attempts: for ever where work waits for
    ActiveCampaign to come back, some seconds where a person waits for an answer. With `retry_refused_s` a
    call outlasts a refusal of the account too, by trying again that often. `troubles` hears of both.
    `fencing` is checked in the step in which a request is written.
    """

    def __init__(
        self,
        settings: ActiveCampaignSettings,
        *,
        patience_s: float = math.inf,
        retry_refused_s: float | None = None,
        troubles: stages.Incidents | None = None,
        fencing: FencingCheck | None = None,
        sleep: Sleep = asyncio.sleep,
        clock: Clock = time.monotonic,
    ) -> None:
        self.pause = Pause(sleep, clock)  # of REST and GraphQL; events have their own
        self.troubles = troubles or Incidents()
        self.requests: Counter[str] = Counter()  # sent so far, by method and path
        self._fencing = fencing
        self._timeout_s = settings.request_timeout_s
        self._backoff_max_s = settings.backoff_max_s
        self._breaker_failures = settings.breaker_failures
        self._retry_refused_s = retry_refused_s
        self._patience_s = patience_s
        self._breaker = self.breaker("REST", self.pause)
        self._warn = ThrottledWarning(clock=clock)
        self._secrets = (settings.api_token, settings.event_key)
        self._budget = request_budget(settings.requests_per_second, self.pause, clock)
        self._url = settings.api_url.rstrip("/").removesuffix(API_PATH) + API_PATH
        self._headers = {
            "Api-Token": settings.api_token,
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
        }
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            request_class=ClientRequest if self._fencing is None else _fenced(self._fencing),
            connector=aiohttp.TCPConnector(limit=0),  # the budgets and max_in_flight bound the connections
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=AUTO_HEADERS,
            # Connecting has a time-out of its own, since what it ends was surely not sent; sock_read ends
            # silence. A total costs 10 to 20 µs a request, which `call` can afford and an event cannot.
            timeout=aiohttp.ClientTimeout(total=None, connect=self._timeout_s, sock_read=self._timeout_s),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    def breaker(self, name: str, pause: Pause) -> CircuitBreaker:
        """Return a breaker for a host of the account, whose requests keep this pause."""
        return CircuitBreaker(
            name,
            pause,
            self.troubles,
            failures=self._breaker_failures,
            max_s=self._backoff_max_s,
            retry_refused_s=self._retry_refused_s,
        )

    async def call(
        self,
        method: str,
        path: str,
        body: object,
        read: Callable[[Response], T],
        budgets: tuple[Budget, ...] = (),
        *,
        yields: bool = False,
    ) -> T:
        """Ask until there is an answer; return what `read` makes of it.

        `path` follows /api/3 and has its query; `body` becomes JSON, None is none, a Decimal is a number;
        `budgets` are kept besides that of all requests, behind all other calls when it `yields`. Raises what
        `read` raises, but TryLater only when patience is over, and AccountRefused when it came three times in
        a row, unless refusals are outlasted.
        """
        url = URL(self._url + path, encoded=True)
        data = None if body is None else _json.encode(body)
        kept = (*budgets, self._budget)

        async def attempt() -> T:
            return await self._ask(method, url, data, read, kept, yields=yields)

        return await self.persist(attempt, self._breaker)

    async def persist(self, attempt: Callable[[], Awaitable[T]], breaker: CircuitBreaker) -> T:
        """Repeat an attempt as `Backoff` decides, and as the breaker of its host lets it."""
        backoff = RetryPolicy(self._backoff_max_s, self._patience_s)
        while True:
            try:
                return await attempt()
            except DeliveryError as error:
                await self._wait_after(error, backoff, breaker)
            except HeldError:  # the fencing check failed: nothing was written
                if self._fencing is None:
                    raise
                await self._fencing.regained()

    async def _wait_after(self, error: DeliveryError, backoff: RetryPolicy, breaker: CircuitBreaker) -> None:
        """Wait before another attempt; what all calls to the host wait for is left to the pause."""
        try:
            wait_s = backoff.wait_s(error)
        except AccountRefused as refusal:
            if self._retry_refused_s is None:
                raise
            breaker.refuse(refusal)
            return
        if breaker.is_open:
            return
        self._warn("ActiveCampaign: trying again", why=str(error), in_s=round(wait_s, 1))
        if isinstance(error, TryLater) and error.after_s is not None:
            breaker.pause.ask(wait_s)
        else:
            await breaker.pause.back_off(wait_s)

    async def _ask(
        self,
        method: str,
        url: URL,
        data: bytes | None,
        read: Callable[[Response], T],
        budgets: tuple[Budget, ...],
        *,
        yields: bool,
    ) -> T:
        async with AsyncExitStack() as slots:
            for budget in budgets:
                await slots.enter_async_context(budget.behind() if yields else budget)
            with self._breaker.attempt():
                return read(await self._answer(method, url, data))

    async def _answer(self, method: str, url: URL, data: bytes | None) -> Response:
        """Send a request that may be repeated, and return its answer. Raises TryLater when there is none."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self.exchange(method, url, data, self._headers, (_once,))
        except (UnknownOutcome, TimeoutError) as error:
            raise TryLater(str(error) or f"no whole answer within {self._timeout_s:g} s") from error

    async def exchange(
        self,
        method: str,
        url: URL,
        data: bytes | None,
        headers: Mapping[str, str],
        middlewares: tuple[aiohttp.ClientMiddlewareType, ...] | None = None,
    ) -> Response:
        """Send one request, once, and return its answer.

        Raises TryLater when it was surely not sent, UnknownOutcome when it may have been.
        """
        self.requests[f"{method} {url.path.removeprefix(API_PATH)}"] += 1
        try:
            async with self._session.request(
                method, url, data=data, headers=headers, allow_redirects=False, middlewares=middlewares
            ) as response:
                body = await response.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise TryLater(f"cannot connect to {url.host}: {mask(str(error), self._secrets)}") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            what = f"{type(error).__name__} {mask(str(error), self._secrets)}".strip()
            raise UnknownOutcome(f"no answer from {url.host}: {what}") from error
        return Response(response.status, body, response.headers.get("Retry-After"), self._secrets)


def _fenced(fencing: FencingCheck) -> type[ClientRequest]:
    """Return requests that check the lease in the step in which they are written.

    `ClientSession.request` raises what the check raises, and nothing was written.
    """

    class FencedRequest(ClientRequest):
        async def send(self, conn: Connection) -> ClientResponse:
            fencing.require()  # without a body it is written here, else by a task of its own, in a later step
            return await super().send(conn)

        async def write_bytes(
            self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
        ) -> None:
            try:
                fencing.require()
            except HeldError as error:
                if conn.protocol is not None:
                    conn.protocol.set_exception(error)  # for who waits for the answer, and closes then
            else:
                await super().write_bytes(writer, conn, content_length)

    return FencedRequest


class ConnectionLostError(aiohttp.ClientError):
    """The connection ended before the answer."""


async def _once(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Keep aiohttp from sending a GET or PUT a second time by itself, which no budget would see."""
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise ConnectionLostError(str(error)) from error
