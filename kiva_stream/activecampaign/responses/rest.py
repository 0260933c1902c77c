"""REST answers: what every call but event tracking has in common.

Those calls are upserts and reads, so that a repetition does no harm: a lost answer is a TryLater.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

import msgspec

from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.activecampaign.responses.statuses import (
    BAD_REQUEST,
    NOT_FOUND,
    PROXY_GAVE_UP,
    SERVER_ERRORS,
    SUCCESS,
    TOO_LARGE,
    UNPROCESSABLE,
    is_html,
    raise_if_account_refused,
    raise_if_throttled,
)
from kiva_stream.errors import AccountRefused, ContactGone, ForeignAnswer, Rejected, TryLater

T = TypeVar("T")

REFUSED_OBJECT = frozenset({BAD_REQUEST, 409, TOO_LARGE, UNPROCESSABLE})


class Duplicate(Rejected):
    """The object that was to be created exists already."""


class Fault(msgspec.Struct):
    """One of the errors that an answer names."""

    code: Any = ""  # of REST
    message: Any = ""  # of GraphQL, as are the extensions
    extensions: Any = None


class _Faults(msgspec.Struct):
    """The usual body of a refusal; ActiveCampaign has several."""

    errors: list[Fault] | None = None


def parse_rest(response: Response, shape: type[T], *, key: str = "", by_id: bool = False) -> T:
    """Return what the body has under `key`, or the whole body, as `shape`.

    `by_id` says that the request named an object by its id.

    | status                                | meaning                                               |
    |---------------------------------------|-------------------------------------------------------|
    | 429, 503 with a Retry-After           | TryLater, after that wait                             |
    | 401, 402, 403                         | AccountRefused                                        |
    | 2xx, body of that shape               | the result                                            |
    | 408, 425, 499, 5xx                    | TryLater                                              |
    | 3xx; 2xx or other 4xx, HTML           | ForeignAnswer: another server than the API answered   |
    | 2xx, another body                     | TryLater                                              |
    | 422 with the code `duplicate`         | Duplicate                                             |
    | 400, 409, 413, 422                    | Rejected                                              |
    | 404, `by_id`                          | Rejected                                              |
    | other 4xx, no JSON                    | ForeignAnswer                                         |
    | other 4xx, JSON                       | AccountRefused: the API has no such call there        |

    `Client.call` finds out whether a 403 is about the key, and whether a ForeignAnswer is an outage or means
    that `api_url` is wrong.
    """
    raise_if_throttled(response)
    raise_if_account_refused(response)
    status = response.status
    if status in PROXY_GAVE_UP or status in SERVER_ERRORS:
        raise TryLater(f"ActiveCampaign cannot answer now: {response.excerpt()}")
    if (status < BAD_REQUEST and status not in SUCCESS) or is_html(response):
        raise _foreign(response)
    if status in SUCCESS:
        content: T = _decoded(response, shape, key)
        return content
    if status == UNPROCESSABLE and any(fault.code == "duplicate" for fault in faults(response)):
        raise Duplicate("ActiveCampaign has it already", response.excerpt())
    if status in REFUSED_OBJECT or (by_id and status == NOT_FOUND):
        raise Rejected("ActiveCampaign refused what was asked", response.excerpt())
    if response.decode(dict[str, Any]) is None:
        raise _foreign(response)
    raise AccountRefused(f"ActiveCampaign has no such call; check api_url: {response.excerpt()}")


def parse_by_contact_id(response: Response, shape: type[T], *, key: str = "") -> T:
    """Return the body as `parse_rest` does, where the request named a contact by its id.

    Raises ContactGone on a 404, otherwise as `parse_rest`.
    """
    try:
        return parse_rest(response, shape, key=key, by_id=True)
    except Rejected as refusal:
        if response.status == NOT_FOUND:
            raise ContactGone("ActiveCampaign has no such contact", refusal.reply) from None
        raise


def parse_deleted(response: Response) -> bool:
    """Return True if the object was deleted, False if it did not exist. Raises as `parse_rest`."""
    try:
        parse_rest(response, dict[str, Any], by_id=True)
    except Rejected:
        if response.status == NOT_FOUND:
            return False
        raise
    return True


def faults(response: Response) -> Sequence[Fault]:
    """Return the errors that the answer names."""
    body = response.decode(_Faults)
    return (body and body.errors) or ()


def _foreign(response: Response) -> ForeignAnswer:
    return ForeignAnswer(f"another server than ActiveCampaign's API answered: {response.excerpt()}")


def _decoded(response: Response, shape: Any, key: str) -> Any:  # noqa: ANN401  mypy cannot follow a shape
    body = response.decode(_envelope(key, shape) if key else shape)
    if body is None:
        raise TryLater(f"ActiveCampaign gave an answer that cannot be read: {response.excerpt()}")
    return body.content if key else body


@cache
def _envelope(key: str, shape: object) -> type[Any]:
    """Return the shape of a JSON object of which only what stands under `key` is read."""
    return msgspec.defstruct("Envelope", [("content", shape, msgspec.field(name=key))])
