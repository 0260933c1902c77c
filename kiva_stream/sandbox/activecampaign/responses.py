"""ActiveCampaign's responses: bodies, statuses and error envelopes, as its documentation has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import NamedTuple

import msgspec

from kiva_stream.sandbox.activecampaign.contract import JSON_TYPE, Operation, Problem
from kiva_stream.sandbox.activecampaign.faults import Fault, FaultKind

HTML_TYPE = "text/html"
_NO_HEADERS: Mapping[str, str] = {}


class Response(NamedTuple):
    """A response, ready to be sent."""

    body: bytes
    status: int = 200
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = _NO_HEADERS


class Silence(Enum):
    """What a client gets instead of a response."""

    HANG = "hang"
    RESET = "reset"


class RefusedError(Exception):
    """A request that ActiveCampaign refuses with `response`."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.body.decode())
        self.response = response


def iso_time(at: float) -> str:
    """Return seconds since 1970 as ActiveCampaign writes a time."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def json_response(body: object, status: int = 200) -> Response:
    """Return a response with `body` as JSON."""
    return Response(msgspec.json.encode(body), status)


FORBIDDEN = json_response({"message": "Forbidden"}, 403)
LAPSED = Response(b"", 402)
SERVER_ERROR = json_response({"message": "Internal Server Error"}, 500)
CONTACT_LIMIT = "You have reached your contact limit."
_HAVING_ISSUES = b"<div>We are currently having some issues. Please check back soon.</div>"
_UNAVAILABLE = b"<html><body><h1>503 Service Unavailable</h1></body></html>"


def throttled(limit: int, retry_after_s: int, *, with_headers: bool = True) -> Response:
    """Return the 429 of an account with `limit` requests a second."""
    headers = {
        "Retry-After": str(retry_after_s),
        "RateLimit-Limit": str(limit),
        "RateLimit-Remaining": "0",
    }
    told = headers if with_headers else _NO_HEADERS
    return json_response({"message": "Too Many Requests"}, 429)._replace(headers=told)


def not_found(kind: str, number: int | str) -> RefusedError:
    """Return the 404 for a missing object; `kind` is ActiveCampaign's own word for it."""
    return RefusedError(json_response({"message": f"No Result found for {kind} with id {number}"}, 404))


def unprocessable(title: str, code: str, pointer: str, **more: str) -> RefusedError:
    """Return the 422 for one attribute."""
    item = {"title": title, "detail": "", "code": code, **more, "source": {"pointer": pointer}}
    return RefusedError(json_response({"errors": [item]}, 422))


def contact_limit_reached() -> RefusedError:
    """Return the 422 of an account that may have no more contacts. It points to no attribute."""
    return RefusedError(json_response({"errors": [{"title": CONTACT_LIMIT, "detail": ""}]}, 422))


def import_refused(message: str, reasons: Sequence[str] | Sequence[Mapping[str, object]]) -> Response:
    """Return the 400 that refuses a whole bulk import."""
    return json_response({"success": 0, "message": message, "failureReasons": reasons}, 400)


_FAULT_RESPONSES: Mapping[FaultKind, Response | Silence] = {
    FaultKind.ERROR_BEFORE: SERVER_ERROR,
    FaultKind.ERROR_AFTER: SERVER_ERROR,
    FaultKind.HTML_503: Response(_UNAVAILABLE, 503, HTML_TYPE),
    FaultKind.HTML_200: Response(_HAVING_ISSUES, 200, HTML_TYPE),
    FaultKind.THROTTLED: throttled(5, 1),
    FaultKind.FORBIDDEN: FORBIDDEN,
    FaultKind.LAPSED: LAPSED,
    FaultKind.REFUSED_EVENT: json_response({"success": 0, "message": "Event could not be saved."}),
    FaultKind.HANG: Silence.HANG,
    FaultKind.HANG_AFTER: Silence.HANG,
    FaultKind.RESET_BEFORE: Silence.RESET,
    FaultKind.RESET_AFTER: Silence.RESET,
}


def fault_response(fault: Fault) -> Response | Silence:
    """Return what a client gets for a fault."""
    if fault.kind in _FAULT_RESPONSES:
        return _FAULT_RESPONSES[fault.kind]
    return Response(fault.text.encode(), fault.status, headers=fault.headers)


def breach_response(operation: Operation, problems: Sequence[Problem]) -> Response:
    """Return the response to a request that breaks the contract, in the envelope of its operation."""
    if operation.id == "trackEvent":
        return _event_breach(problems)
    if operation.id == "bulkImport":
        return _import_breach(problems)
    if operation.id == "bulkImportInfo":
        return json_response({"success": 0, "message": "'batchId' is a required field."}, 400)
    if (
        operation.id == "syncContact"
        and Problem(("contact",), "required", "'email' is a required property") in problems
    ):
        return _bad_request("Contact email must be provided for sync")
    return json_response({"errors": [_item(problem) for problem in problems[:10]]}, 422)


def malformed(operation: Operation, detail: str) -> Response:
    """Return the response to a body that cannot be decoded."""
    return Response(b"{}", 400) if operation.id == "trackEvent" else _bad_request(detail)


def _bad_request(detail: str) -> Response:
    return json_response({"errors": [{"status": 400, "title": "Bad Request", "detail": detail}]}, 400)


def _item(problem: Problem) -> dict[str, object]:
    item: dict[str, object] = {
        "title": problem.text,
        "detail": "",
        "source": {"pointer": _pointer(problem.where)},
    }
    if problem.where[-1:] == ("email",):
        item |= {"code": "email_invalid", "error": "must_be_valid_email_address"}
    return item


def _pointer(where: Iterable[str | int]) -> str:
    return "/".join(("/data/attributes", *(str(step) for step in where)))


def _event_breach(problems: Sequence[Problem]) -> Response:
    if any(problem.rule == "required" and "'actid'" in problem.text for problem in problems):
        return json_response({"success": 0, "message": "An account ID must be provided."})
    return Response(b"{}", 400)


def _import_breach(problems: Sequence[Problem]) -> Response:
    rows = [
        {"contact": where[1] + 1, "failureReason": text}
        for where, _, text in problems
        if len(where) > 1 and where[0] == "contacts" and isinstance(where[1], int)
    ]
    if len(rows) == len(problems):
        return import_refused("Some contacts are invalid.", rows)
    return import_refused("The import is invalid.", [problem.text for problem in problems[:10]])
