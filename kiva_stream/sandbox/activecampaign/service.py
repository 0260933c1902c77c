"""ActiveCampaign without the network: a request in, a response out. Nothing here blocks.

A request is checked in this order, as at ActiveCampaign: the key, the rate limit, the faults set on purpose,
the contract, the account.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from kiva_stream.sandbox.activecampaign import (
    contact_calls,
    ecom_calls,
    import_calls,
    order_calls,
    setup_calls,
    tracking_calls,
    user_calls,
    written_contacts,
)
from kiva_stream.sandbox.activecampaign.account import Account, Breach, SandboxAccount, Tally
from kiva_stream.sandbox.activecampaign.calls import Call, Handlers
from kiva_stream.sandbox.activecampaign.contract import (
    FORM_TYPE,
    JSON_TYPE,
    Operation,
    contract,
    is_event_form,
)
from kiva_stream.sandbox.activecampaign.faults import Faults
from kiva_stream.sandbox.activecampaign.responses import (
    FORBIDDEN,
    RefusedError,
    Response,
    Silence,
    breach_response,
    fault_response,
    json_response,
    malformed,
    throttled,
)

EVENT_PATH = "/event"
API_PREFIX = "/api/3"
_GRAPHQL_PATH = "/ecom/graphql"

_HANDLERS: Handlers = {
    **tracking_calls.HANDLERS,
    **contact_calls.HANDLERS,
    **import_calls.HANDLERS,
    **setup_calls.HANDLERS,
    **order_calls.HANDLERS,
    **ecom_calls.HANDLERS,
    **user_calls.HANDLERS,
}
_RECEIVED = json_response({"success": 1, "message": "Event spawned"})
_PLAIN_RECEIVED = Response(b"1", content_type="text/plain")
_PLAIN_REFUSED = Response(b"0", content_type="text/plain")


class Request(NamedTuple):
    """The parts of a request that ActiveCampaign reads."""

    method: str
    path: str
    query: Mapping[str, str]
    token: str | None
    content_type: str
    body: bytes


_EPOCH_S = time.time() - time.monotonic()


def steady_time() -> float:
    """Return seconds since 1970 on a clock that is never set back."""
    return _EPOCH_S + time.monotonic()


class Service:
    """Several accounts. A request names its account by Api-Token, an event by actid."""

    def __init__(
        self, accounts: Iterable[SandboxAccount], faults: Faults, clock: Callable[[], float] = steady_time
    ) -> None:
        self.accounts = {settings.name: Account(settings) for settings in accounts}
        self.faults = faults
        self.unattributed = Tally()  # of requests that name no account
        self._clock = clock
        self._by_token = {account.settings.api_token: account for account in self.accounts.values()}
        self._by_actid = {account.settings.event_actid: account for account in self.accounts.values()}

    def account(self, name: str) -> Account:
        """Return an account by its name, with what is due by now done. Raises KeyError."""
        account = self.accounts[name]
        account.agenda.advance(self._clock())
        return account

    @contextmanager
    def under_way(self, request: Request) -> Iterator[None]:
        """Note, while the block lasts, that a REST request which may write contacts is under way."""
        account = self._by_token.get(request.token or "") if request.method != "GET" else None
        found = contract().find(request.method, request.path.removeprefix(API_PREFIX)) if account else None
        if account is None or found is None:
            yield
            return
        operation, path_id = found
        now = self._clock()
        account.agenda.advance(now)
        begun = account.watch.begin(
            written_contacts.find(account, operation.id, path_id, body=request.body), now
        )
        try:
            yield
        finally:
            account.watch.end(begun)

    def answer(self, request: Request) -> Response | Silence:
        """Return the response to a request."""
        if request.path == EVENT_PATH:
            return self._answer_event(request)
        account = self._by_token.get(request.token or "")
        if account is None:
            return _counted(self.unattributed, FORBIDDEN)
        now = self._clock()
        account.agenda.advance(now)
        return _counted(account.tally, self._answer_call(account, request, now))

    def _answer_call(self, account: Account, request: Request, now: float) -> Response | Silence:
        path = request.path.removeprefix(API_PREFIX)
        found = contract().find(request.method, path) if path != request.path else None
        operation, path_id = found or (None, 0)
        account.tally.requests[operation.id if operation else "unknown"] += 1
        account.watch.count_request(may_change=_may_change(request))
        if not account.admit_request(now, _bucket(request.method, path)):
            account.tally.breach(Breach.RATE_LIMIT, f"{request.method} {path}")
            settings = account.settings
            return throttled(
                settings.requests_per_second,
                settings.retry_after_s,
                with_headers=settings.rate_limit_headers,
            )
        if path == _GRAPHQL_PATH:
            account.order_requests.receive(request.body, now)
        return self._with_faults(
            path, request, lambda: _process(account, operation, path_id=path_id, request=request, now=now)
        )

    def _with_faults(
        self, path: str, request: Request, process: Callable[[], Response]
    ) -> Response | Silence:
        fault = self.faults.draw(request.method, path, request.body) if self.faults else None
        if fault is None:
            return process()
        if fault.kind.processed:
            process()
        return fault_response(fault)

    def _answer_event(self, request: Request) -> Response | Silence:
        form = tracking_calls.read_form(request.body)
        account = self._by_actid.get(form.get("actid", "")) if form else None
        tally = account.tally if account else self.unattributed
        tally.requests["trackEvent"] += 1
        response = self._with_faults(
            EVENT_PATH, request, lambda: self._receive_event(account, tally, form=form or {}, request=request)
        )
        return _counted(tally, response)

    def _receive_event(
        self, account: Account | None, tally: Tally, *, form: Mapping[str, str], request: Request
    ) -> Response:
        email = tracking_calls.visitor(form) if is_event_form(form) else None
        if email is None or request.content_type != FORM_TYPE or request.method != "POST":
            return _event_breach(tally, form, request)
        now = self._clock()
        if account:
            account.agenda.advance(now)
        why = tracking_calls.receive(account, form, email, now=now)
        is_plain = account is not None and account.settings.plain_event_replies
        if not why:
            return _PLAIN_RECEIVED if is_plain else _RECEIVED
        tally.refused_events[why] += 1
        return _PLAIN_REFUSED if is_plain else json_response({"success": 0, "message": why})


def _bucket(method: str, path: str) -> str:
    """Return the kind of a request, for an account that counts its kinds apart."""
    if path == _GRAPHQL_PATH:
        return "graphql"
    return "import" if (method, path) == ("POST", "/import/bulk_import") else "rest"


def _may_change(request: Request) -> bool:
    """Return whether a request could change something. A GraphQL document does if it is a mutation."""
    is_query = request.path.endswith(_GRAPHQL_PATH) and b"mutation" not in request.body
    return request.method != "GET" and not is_query


def _counted(tally: Tally, response: Response | Silence) -> Response | Silence:
    tally.responses[response.value if isinstance(response, Silence) else str(response.status)] += 1
    return response


def _process(
    account: Account, operation: Operation | None, *, path_id: int, request: Request, now: float
) -> Response:
    handler = _HANDLERS.get(operation.id) if operation else None
    if operation is None or handler is None:
        account.tally.breach(Breach.UNKNOWN_OPERATION, f"{request.method} {request.path}")
        return json_response({"message": "Not Found"}, 404)
    try:
        body = _checked_body(account, operation, request)
        most_rows = account.settings.most_rows_per_page
        call = Call(request.path, path_id, request.query, body=body, now=now, most_rows=most_rows)
        return handler(account, call)
    except RefusedError as refused:
        return refused.response


def _checked_body(account: Account, operation: Operation, request: Request) -> dict[str, Any]:
    """Return the decoded body of a request. Raises RefusedError, and counts a breach, if it is invalid."""
    tally = account.tally
    problems = operation.query_problems(request.query)
    body: dict[str, Any] = {}
    if operation.body:
        if request.content_type != operation.content_type:
            tally.breach(Breach.CONTENT_TYPE, f"{operation.id}: {request.content_type!r}")
            raise RefusedError(malformed(operation, f"The content type must be {JSON_TYPE}."))
        body = _decoded(tally, operation, request.body)
        problems += operation.body_problems(body, len(request.body))
    if account.settings.empty_urls_accepted:
        problems = [each for each in problems if each.where[-1:] not in {("logoUrl",), ("linkUrl",)}]
    if problems:
        tally.breach(Breach.SCHEMA, f"{operation.id}: {problems[0].text}")
        raise RefusedError(breach_response(operation, problems))
    return body


def _decoded(tally: Tally, operation: Operation, body: bytes) -> Any:  # noqa: ANN401  any JSON there is
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        tally.breach(Breach.SCHEMA, f"{operation.id}: {error}")
        raise RefusedError(malformed(operation, "The body is not JSON.")) from None


def _event_breach(tally: Tally, form: Mapping[str, str], request: Request) -> Response:
    found = contract().find(request.method, EVENT_PATH)
    if found is None:
        tally.breach(Breach.UNKNOWN_OPERATION, f"{request.method} {EVENT_PATH}")
        return json_response({"message": "Not Found"}, 404)
    operation, _ = found
    if request.content_type != FORM_TYPE:
        tally.breach(Breach.CONTENT_TYPE, f"{operation.id}: {request.content_type!r}")
        return malformed(operation, f"The content type must be {FORM_TYPE}.")
    problems = operation.body_problems(form, len(request.body))
    tally.breach(Breach.SCHEMA, f"{operation.id}: {problems[0].text if problems else 'visit is no visit'}")
    return breach_response(operation, problems)
