"""The HTTP client of one ActiveCampaign account: one session, one request budget, one retry loop.

`exchange` translates aiohttp's exceptions into two meanings: a request that was surely not sent is a
TryLater, one that may have been sent is an UnknownOutcome. `call` is for REST and GraphQL. Their calls are
upserts and reads, so that it repeats them in either case.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, nullcontext
from functools import cached_property, partial
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
import msgspec
from yarl import URL

from kiva_stream.activecampaign.circuit_breaker import BeforeProbe, CircuitBreaker
from kiva_stream.activecampaign.own_user import (
    OWN_USER,
    AnsweredHere,
    is_ambiguous,
    meaning_of,
    parse_own_user,
)
from kiva_stream.activecampaign.pause import Clock, Pause
from kiva_stream.activecampaign.permissions import Permissions
from kiva_stream.activecampaign.rate_limits import SECOND_S, Budget, request_budget
from kiva_stream.activecampaign.requests import fenced, without_aiohttp_retry
from kiva_stream.activecampaign.responses.response import Response, mask
from kiva_stream.activecampaign.retry_policy import RetryPolicy
from kiva_stream.errors import (
    AccountRefused,
    DeliveryError,
    HeldError,
    KindRefused,
    TryLater,
    UnknownOutcome,
    WrongUrl,
)
from kiva_stream.model.incidents import IncidentKind
from kiva_stream.observability.incidents import Incidents
from kiva_stream.observability.logs import ThrottledWarning
from kiva_stream.ports.destination import Around
from kiva_stream.ports.state import AnsweredUrl, FencingCheck
from kiva_stream.primitives.clock import Sleep
from kiva_stream.settings.sections import ActiveCampaignSettings

T = TypeVar("T")

API_PATH = "/api/3"
USER_AGENT = "kiva_stream"  # Cloudflare, in front of ActiveCampaign, refuses requests without one
# Sent with each request. aiohttp adds none of its own then, which costs less than to forbid it each time.
# Compressed replies are declined: they save nothing here, and some kilobytes can become gigabytes.
COMMON_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": USER_AGENT}

_json = msgspec.json.Encoder(decimal_format="number")  # money stays exact


class Client:
    """The client of one account; `async with` closes its session at the end.

    `patience_s` bounds the waits of a call between its attempts: infinite for a pipeline that outlasts an
    outage, some seconds for a command at which a person waits. With `retry_refused_s` a call outlasts a
    refusal of the account too, by a probe every so many seconds. `answered` says whether ActiveCampaign ever
    answered at this URL. Outages and refusals are reported to `incidents`. `fencing` is checked in the step
    in which a request is written.
    """

    def __init__(
        self,
        settings: ActiveCampaignSettings,
        *,
        patience_s: float = math.inf,
        retry_refused_s: float | None = None,
        answered: AnsweredUrl | None = None,
        incidents: Incidents | None = None,
        fencing: FencingCheck | None = None,
        sleep: Sleep = asyncio.sleep,
        clock: Clock = time.monotonic,
    ) -> None:
        self._sleep = sleep
        self._clock = clock
        self.pause = self.new_pause()  # of REST and GraphQL; events and orders have another one
        self.incidents = incidents or Incidents()
        self.requests: Counter[str] = Counter()  # sent so far, by method and path
        self._fencing = fencing
        self._settings = settings
        self._timeout_s = settings.request_timeout_s
        self._retry_refused_s = retry_refused_s
        self._patience_s = patience_s
        self._breaker = self.new_breaker("REST", self.pause)
        self._permissions = Permissions(self.incidents, self.pause, retry_refused_s)
        self._warn = ThrottledWarning(clock=clock)
        self._secrets = (settings.api_token, settings.event_key)
        self._budget = request_budget(settings.requests_per_second, self.pause, clock)
        self._url = base_url(settings.api_url)
        self._answered = answered or AnsweredHere()
        self._headers = {
            **COMMON_HEADERS,
            "Api-Token": settings.api_token,
            "Content-Type": "application/json",
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    @cached_property
    def _session(self) -> aiohttp.ClientSession:
        """The session, made at the first use, since it belongs to the event loop that runs then."""
        return aiohttp.ClientSession(
            request_class=aiohttp.ClientRequest if self._fencing is None else fenced(self._fencing),
            connector=aiohttp.TCPConnector(limit=0),  # the budgets and max_in_flight bound the connections
            cookie_jar=aiohttp.DummyCookieJar(),
            # Connecting has its own time-out, since a request that it ends was surely not sent; sock_read
            # ends a silent connection. A total time-out costs 10 to 20 µs a request (measured): `call` sets
            # one, an event goes without.
            timeout=aiohttp.ClientTimeout(total=None, connect=self._timeout_s, sock_read=self._timeout_s),
        )

    def new_pause(self) -> Pause:
        """Return a pause for requests of one kind."""
        return Pause(self._sleep, self._clock)

    def new_breaker(
        self,
        name: str,
        pause: Pause,
        *,
        incident: IncidentKind | None = None,
        before_probe: BeforeProbe | None = None,
    ) -> CircuitBreaker:
        """Return a circuit breaker for requests of one host, or of one kind, which keep this pause."""
        return CircuitBreaker(
            name,
            pause,
            self.incidents,
            failures=self._settings.breaker_failures,
            max_s=self._settings.backoff_max_s,
            retry_refused_s=self._retry_refused_s,
            incident=incident,
            before_probe=before_probe,
        )

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        parse: Callable[[Response], T],
        budgets: tuple[Budget, ...] = (),
        low_priority: bool = False,
        tries: float = math.inf,
        breaker: CircuitBreaker | None = None,
        is_suspect: bool = False,
        around: Around = nullcontext,
        awaits_permission: bool = True,
    ) -> T:
        """Send a request until it is answered; return what `parse` makes of the answer.

        `path` follows /api/3 and includes the query. `body` becomes JSON, but for None. The call takes a slot
        of each of `budgets` and of the request budget; with `low_priority` only slots that no other call
        waits for. `breaker` is that of REST unless another is given; a request that `is_suspect` does not
        count there, since a record of its own may be why it gets no answer. Each attempt is made in a context
        of its own that `around` returns, which gets its error. Raises what `parse` raises: TryLater only when
        the patience is over; AccountRefused only when it was the third in a row and refusals are not
        outlasted; WrongUrl and KindRefused even then, unless it is a read that `awaits_permission`. Raises
        Unanswered after `tries` attempts if the patience is infinite, HeldError if the lease is lost, and
        what the breaker's `before_probe` raises.
        """
        breaker = breaker or self._breaker
        url, data = URL(self._url + path, encoded=True), None if body is None else _json.encode(body)

        async def attempt() -> T:
            while True:
                # The budgets keep the pause of REST only. A slot must not be held during another one.
                await breaker.wait(is_suspect=is_suspect)
                async with AsyncExitStack() as slots:
                    for budget in (*budgets, self._budget):
                        await slots.enter_async_context(budget.low_priority() if low_priority else budget)
                    if breaker.pause.is_over:
                        with breaker.suspect() if is_suspect else breaker.request():
                            async with around():
                                return await self._result(method, url, data, parse=parse)

        repeat = partial(self.retry, attempt, breaker, tries=tries)
        read = _below_api(url) if method == "GET" and tries == math.inf else None
        return await self._permissions.repeat(read, repeat, is_awaited=awaits_permission)

    async def retry(
        self, attempt: Callable[[], Awaitable[T]], breaker: CircuitBreaker, *, tries: float = math.inf
    ) -> T:
        """Repeat an attempt as the retry policy and the breaker of its host allow; return its result.

        Raises what the policy does not repeat, and HeldError if the lease is lost and not acquired again.
        """
        if self._patience_s < math.inf:  # a person waits: the patience alone ends the call
            tries = math.inf
        policy = RetryPolicy(self._settings.backoff_max_s, self._patience_s, tries=tries)
        while True:
            try:
                return await attempt()
            except DeliveryError as error:
                await _wait_after(error, policy=policy, breaker=breaker, warn=self._warn)
            except HeldError:  # the fencing check failed: nothing was written
                if self._fencing is None:
                    raise
                await self._fencing.regained()

    async def _result(
        self, method: str, url: URL, data: bytes | None, *, parse: Callable[[Response], T]
    ) -> T:
        """Send a request once, and return what `parse` makes of its answer.

        Raises what `parse` raises, and TryLater if there is no answer. A 403, and an answer of another server
        before ActiveCampaign ever answered, mean what `meaning_of` says.
        """
        response = await self._exchange_repeatable(method, url, data)
        try:
            result = parse(response)
        except DeliveryError as error:
            if not is_ambiguous(error, response.status, was_answered=self._answered.is_known):
                raise
            own_error = await self._own_user_error()
            request = f"{method} {_below_api(url)}"
            raise meaning_of(error, own_error, request=request, url=self._url) from None
        if not self._answered.is_known:
            await self._answered.record()
        return result

    async def _own_user_error(self) -> DeliveryError | None:
        """Read the key's own user; return the error that this ends with, None if it is answered.

        It uses the slot of the request that was answered before, once that has lasted its time again.
        """
        await self.pause.sleep(SECOND_S)
        try:
            parse_own_user(await self._exchange_repeatable("GET", URL(self._url + OWN_USER), None))
        except DeliveryError as error:
            return error
        await self._answered.record()
        return None

    async def _exchange_repeatable(self, method: str, url: URL, data: bytes | None) -> Response:
        """Send a request that may be repeated, and return its answer. Raises TryLater if there is none."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self.exchange(
                    method, url, data, headers=self._headers, middlewares=(without_aiohttp_retry,)
                )
        except (UnknownOutcome, TimeoutError) as error:
            raise TryLater(str(error) or f"no whole answer within {self._timeout_s:g} s") from error

    async def exchange(
        self,
        method: str,
        url: URL,
        data: bytes | None,
        *,
        headers: Mapping[str, str],
        middlewares: tuple[aiohttp.ClientMiddlewareType, ...] | None = None,
    ) -> Response:
        """Send one request, once, and return its answer.

        Raises TryLater if it was surely not sent, UnknownOutcome if it may have been sent, and HeldError if
        the fencing check stopped it.
        """
        self.requests[f"{method} {_below_api(url)}"] += 1
        try:
            async with self._session.request(
                method, url, data=data, headers=headers, allow_redirects=False, middlewares=middlewares
            ) as response:
                body = await response.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            why = f"cannot connect to {url.host}: {mask(str(error), self._secrets)}"
            raise TryLater(why, was_sent=False) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            what = f"{type(error).__name__} {mask(str(error), self._secrets)}".strip()
            raise UnknownOutcome(f"no answer from {url.host}: {what}") from error
        return Response(
            status=response.status,
            body=body,
            retry_after=response.headers.get("Retry-After"),
            secrets=self._secrets,
            location=response.headers.get("Location"),
            headers=response.headers,
        )


async def _wait_after(
    error: DeliveryError, *, policy: RetryPolicy, breaker: CircuitBreaker, warn: ThrottledWarning
) -> None:
    """Wait before the next attempt. Waits that hold all requests to the host are left to its pause.

    | error                                    | wait                                                |
    |------------------------------------------|-----------------------------------------------------|
    | one that the policy does not repeat      | none: it is raised                                  |
    | third WrongUrl in a row, a KindRefused   | none: it is raised                                  |
    | third refusal in a row, to be outlasted  | the open breaker's, for all requests to the host    |
    | throttling                               | the policy's, for all requests to the host          |
    | any other, while the breaker is open     | the open breaker's                                  |
    | any other                                | the policy's, for this call alone                   |
    """
    try:
        wait_s = policy.wait_s(error)
    except AccountRefused as refusal:
        if breaker.retry_refused_s is None or isinstance(refusal, WrongUrl | KindRefused):
            raise
        breaker.trip(refusal)
        return
    if is_throttled := isinstance(error, TryLater) and error.after_s is not None:
        breaker.pause.extend(wait_s)
    if not breaker.is_open:
        warn("ActiveCampaign: trying again", why=str(error), in_s=round(wait_s, 1))
        await breaker.pause.sleep(0.0 if is_throttled else wait_s)


def _below_api(url: URL) -> str:
    return url.path.removeprefix(API_PATH)


def base_url(api_url: str) -> str:
    """Return the URL below which all calls are, by the setting `api_url` in any spelling."""
    return str(URL(api_url)).rstrip("/").removesuffix(API_PATH) + API_PATH
