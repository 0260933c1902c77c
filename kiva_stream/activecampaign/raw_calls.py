"""Calls whose answers are looked at as they came: whatever their status, and with their headers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
from msgspec.structs import replace
from yarl import URL

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.events import HEADERS
from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.activecampaign.responses.statuses import (
    SERVER_ERRORS,
    raise_if_account_refused,
    raise_if_throttled,
)
from kiva_stream.errors import KivaStreamError, TryLater
from kiva_stream.model.ids import Email
from kiva_stream.settings.sections import ActiveCampaignSettings

GRAPHQL = "/ecom/graphql"


class CallsUsedUpError(KivaStreamError):
    """No more calls may be made."""


class Request(NamedTuple):
    """One request below /api/3."""

    method: str
    path: str
    body: object = None


class RawCalls:
    """Calls of one account, at most `limit` of them. Raises CallsUsedUpError beyond it.

    `call`, `graphql` and `event` wait for the account's limits, and `call` and `graphql` are repeated while
    ActiveCampaign does not answer; they raise TryLater when it stays so, and AccountRefused.
    """

    def __init__(self, settings: ActiveCampaignSettings, client: Client, *, limit: int) -> None:
        self.limit = limit
        self._settings = settings
        self._client = client
        self._in_bursts = 0

    @property
    def count(self) -> int:
        """How many requests were sent so far."""
        return self._client.requests.total() + self._in_bursts

    async def call(self, method: str, path: str, body: object = None) -> Response:
        """Return the answer to a request."""
        self._require(1)
        return await self._client.call(method, path, body, parse=_answered)

    async def graphql(self, document: str, variables: Mapping[str, Any]) -> Response:
        """Return the answer to a GraphQL document."""
        return await self.call("POST", GRAPHQL, {"query": document, "variables": variables})

    async def event(self, email: Email, name: str, eventdata: str) -> Response:
        """Send an event once and return the answer. Raises UnknownOutcome when there is none."""
        self._require(1)
        settings = self._settings
        form = {
            "actid": settings.event_actid,
            "key": settings.event_key,
            "event": name,
            "eventdata": eventdata,
            "visit": msgspec.json.encode({"email": email}).decode(),
        }
        url = URL(settings.event_url)
        return await self._client.exchange("POST", url, urlencode(form).encode(), headers=HEADERS)

    async def burst(self, requests: Sequence[Request]) -> list[Response]:
        """Send requests at once, beyond the account's limit if they are more; return their answers.

        It waits before until earlier requests no longer count.
        """
        self._require(len(requests))
        at_once = replace(self._settings, requests_per_second=len(requests))
        async with Client(at_once, patience_s=self._settings.request_timeout_s) as client:
            try:
                return await asyncio.gather(*(client.call(*each, parse=_as_it_came) for each in requests))
            finally:
                self._in_bursts += client.requests.total()

    def _require(self, calls: int) -> None:
        if self.count + calls > self.limit:
            raise CallsUsedUpError(f"{self.limit} calls are the limit")


def _as_it_came(response: Response) -> Response:
    return response


def _answered(response: Response) -> Response:
    raise_if_throttled(response)
    raise_if_account_refused(response)
    if response.status in SERVER_ERRORS:
        raise TryLater(f"ActiveCampaign cannot answer now: {response.excerpt()}")
    return response
