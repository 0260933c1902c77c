"""Event tracking: one form-encoded POST an event, its success read from the body."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import lru_cache, partial
from typing import Any
from urllib.parse import quote_plus

import msgspec
from yarl import URL

from kiva_stream.activecampaign.client import USER_AGENT, Client
from kiva_stream.activecampaign.rate_limits import Clock, Pace, Pause
from kiva_stream.activecampaign.responses.events import (
    UnknownEventName,
    error_after_registration,
    parse_event,
)
from kiva_stream.activecampaign.responses.rest import Duplicate, parse_rest
from kiva_stream.errors import TryLater
from kiva_stream.model.ids import Email
from kiva_stream.primitives.clock import Sleep
from kiva_stream.settings.sections import ActiveCampaignSettings

HEADERS = {"Content-Type": "application/x-www-form-urlencoded", "User-Agent": USER_AGENT}


class Events:
    """Implements `ports.Events` for one account.

    `sleep` and the blocks of `unless_drained` raise DrainedError when a drain begins before it is sent.
    """

    def __init__(
        self,
        settings: ActiveCampaignSettings,
        client: Client,
        *,
        sleep: Sleep = asyncio.sleep,
        unless_drained: Callable[[], AbstractContextManager[None]] = nullcontext,
        clock: Clock = time.monotonic,
    ) -> None:
        self._client = client
        self._unless_drained = unless_drained
        pause = Pause(sleep, clock)
        self._breaker = client.breaker("events", pause)
        client.troubles.end("events")  # which a pace before this one told
        self._pace = Pace(
            settings.events_per_second, pause, settings.events_per_second_min, clock, self._tell_pace
        )
        self._url = URL(settings.event_url)
        self._account = f"actid={quote_plus(settings.event_actid)}&key={quote_plus(settings.event_key)}"
        self._prefixes: dict[str, str] = {}  # of the form, by event name
        self._registering = asyncio.Lock()
        self._registered: set[str] = set()  # names that this process registered

    async def send(self, email: Email, name: str, eventdata: str) -> None:
        """Record one event for the contact of `email`: see `ports.Events`.

        A name that ActiveCampaign does not know is registered, and the event sent once more.
        """
        form = self._form(email, name, eventdata)
        try:
            await self._client.persist(partial(self._post, form), self._breaker)
        except UnknownEventName:
            with self._unless_drained():  # it was not recorded
                await self._register(name)
            await self._client.persist(partial(self._post_again, form), self._breaker)

    def _form(self, email: Email, name: str, eventdata: str) -> bytes:
        prefix = self._prefixes.get(name)
        if prefix is None:
            prefix = self._prefixes[name] = f"{self._account}&event={quote_plus(name)}&eventdata="
        return f"{prefix}{quoted(eventdata)}&visit={visit(email)}".encode()

    async def _post(self, form: bytes) -> None:
        await self._pace.turn()
        with self._breaker.attempt():
            try:
                parse_event(await self._client.exchange("POST", self._url, form, HEADERS))
            except TryLater as error:
                if error.after_s is not None:
                    self._pace.throttled(error.after_s)
                raise

    async def _post_again(self, form: bytes) -> None:
        """Send an event whose name is registered by now."""
        try:
            await self._post(form)
        except UnknownEventName as error:
            raise error_after_registration(error) from None

    def _tell_pace(self, per_second: float, ceiling: float) -> None:
        if per_second < ceiling:
            why = f"throttled lately: {per_second:.3g} events a second instead of {ceiling:.3g}"
            self._client.troubles.begin("events", why)
        else:
            self._client.troubles.end("events")

    async def _register(self, name: str) -> None:
        async with self._registering:  # many in flight learn of it at once; one registers it
            if name in self._registered:
                return
            await register(self._client, name)
            self._registered.add(name)


async def register(client: Client, name: str) -> None:
    """Make an event's name known to the account; one that is known stays. Raises Rejected, AccountRefused."""
    body = {"eventTrackingEvent": {"name": name}}
    with suppress(Duplicate):
        await client.call("POST", "/eventTrackingEvents", body, partial(parse_rest, shape=dict[str, Any]))


def quoted(eventdata: str) -> str:
    """Form-encode eventdata: what `quote_plus` does, five times faster when there is nothing odd in it."""
    text = quote_plus(eventdata, safe=";=:")  # its separators: without them it has nothing to look up
    return text.replace(";", "%3B").replace("=", "%3D").replace(":", "%3A")


@lru_cache(maxsize=4096)  # consecutive events are often of one contact
def visit(email: Email) -> str:
    """Form-encode `{"email": …}`."""
    return quote_plus(msgspec.json.encode({"email": email}))
