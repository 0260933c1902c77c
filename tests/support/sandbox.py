"""The local ActiveCampaign: listening (`sandbox`), or called without network and clock (`Caller`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

import msgspec
from jsonschema import Draft202012Validator

from kiva_stream.sandbox.activecampaign import Account, Fault, Running, Sandbox, SandboxAccount
from kiva_stream.sandbox.activecampaign.contract import FORM_TYPE, JSON_TYPE, contract
from kiva_stream.sandbox.activecampaign.faults import Faults
from kiva_stream.sandbox.activecampaign.responses import Response, Silence
from kiva_stream.sandbox.activecampaign.service import API_PREFIX, EVENT_PATH, Request, Service

SHOP = SandboxAccount(name="shop", api_token="shop-token", event_actid="25550001", event_key="shop-event-key")


def shop(**settings: object) -> SandboxAccount:
    """Return the account `shop` with other settings than SHOP's."""
    return msgspec.structs.replace(SHOP, **settings)


@asynccontextmanager
async def sandbox(
    *accounts: SandboxAccount,
    latency_ms: float = 0.0,
    jitter_ms: float = 0.0,
    faults: Iterable[Fault] = (),
) -> AsyncIterator[Running]:
    """Run a sandbox with these accounts, or with SHOP; `running.account("shop")` is what it holds.

    A new account is as at ActiveCampaign: tracking is off, there are no names, no list, no fields; imports
    take 3 s (`shop(import_duration_s=0)` for none).
    """
    server = Sandbox(accounts or [SHOP], latency_ms=latency_ms, jitter_ms=jitter_ms, faults=faults)
    async with server.serve() as running:
        yield running


class Caller:
    """Calls a sandbox's account `shop` at times of its own choosing: `now` is the clock, in seconds.

    Every answer is compared with what `openapi.json` says of it. The rate limit is off unless it is set.
    """

    def __init__(self, *faults: Fault, others: Iterable[SandboxAccount] = (), **settings: object) -> None:
        account = shop(**{"requests_per_second": 0, **settings})
        self.now = 1_000_000.0
        self.service = Service([account, *others], Faults(faults), clock=lambda: self.now)

    @property
    def shop(self) -> Account:
        return self.service.account("shop")

    def send(self, request: Request) -> Response | Silence:
        """Send any request."""
        return self.service.answer(request)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Mapping[str, str] | None = None,
        token: str = SHOP.api_token,
    ) -> tuple[int, Any]:
        """Call an operation with JSON; return the status and the decoded answer."""
        content_type = "" if body is None else JSON_TYPE
        sent = b"" if body is None else msgspec.json.encode(body)
        reply = self.send(Request(method, API_PREFIX + path, query or {}, token, content_type, sent))
        assert isinstance(reply, Response)
        answer = msgspec.json.decode(reply.body)
        _check_answer(method, path, reply.status, answer)
        return reply.status, answer

    def post_event(self, email: str = "ann@example.org", **changes: str) -> Response | Silence:
        """Send an event, its form changed."""
        body = urlencode(event_form(email) | changes).encode()
        return self.send(Request("POST", EVENT_PATH, {}, None, FORM_TYPE, body))

    def event(self, email: str = "ann@example.org", **changes: str) -> tuple[int, Any]:
        """Send an event, its form changed; return the status and the decoded answer."""
        reply = self.post_event(email, **changes)
        assert isinstance(reply, Response)
        return reply.status, msgspec.json.decode(reply.body)

    def contact(self, email: str = "ann@example.org") -> int:
        """Create a contact; return its id."""
        return int(self.call("POST", "/contact/sync", {"contact": {"email": email}})[1]["contact"]["id"])


def event_form(email: str) -> dict[str, str]:
    """Return the form of an event."""
    return {
        "actid": SHOP.event_actid,
        "key": SHOP.event_key,
        "event": "Customer cancelled",
        "eventdata": "reason=too expensive; at=2018-03-04T17:02:10Z; log=12345",
        "visit": msgspec.json.encode({"email": email}).decode(),
    }


def _check_answer(method: str, path: str, status: int, answer: object) -> None:
    found = contract().find(method, path)
    validator = _answers().get((found[0].id, str(status))) if found else None
    if found and status != 402:
        assert validator, f"{found[0].id} answers no {status}"
        validator.validate(answer)


@cache
def _answers() -> dict[tuple[str, str], Draft202012Validator]:
    path = files("kiva_stream.sandbox.activecampaign").joinpath("contract", "openapi.json")
    document = msgspec.json.decode(path.read_bytes())
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    return {
        (operation["operationId"], status): _validator(response, document)
        for operation in operations
        for status, response in operation["responses"].items()
    }


def _validator(response: dict[str, Any], document: dict[str, Any]) -> Draft202012Validator:
    if "$ref" in response:
        response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
    schema = response.get("content", {}).get(JSON_TYPE, {}).get("schema", {})
    return Draft202012Validator({**schema, "components": document["components"]})
