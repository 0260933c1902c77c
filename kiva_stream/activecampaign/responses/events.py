"""Answers of event tracking. An event that may be recorded is an UnknownOutcome: a repeat is a duplicate."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from kiva_stream.activecampaign.responses.response import Response, mask
from kiva_stream.activecampaign.responses.statuses import (
    BAD_REQUEST,
    FORBIDDEN,
    PROXY_GAVE_UP,
    REDIRECTS,
    SERVER_ERRORS,
    SUCCESS,
    TOO_LARGE,
    UNPROCESSABLE,
    is_html,
    raise_if_account_refused,
    raise_if_throttled,
    refused_by_proxy,
)
from kiva_stream.errors import AccountRefused, DeliveryError, Rejected, UnknownOutcome

REFUSED_EVENT = frozenset({BAD_REQUEST, UNPROCESSABLE})
# No event is too large. A proxy that says so may say it of all events, so that it refuses none of them.
UNANSWERED = (REDIRECTS, PROXY_GAVE_UP, SERVER_ERRORS, {TOO_LARGE})
CHECK_EVENTS = "check event_actid, event_key and that event tracking is on"


class UnknownEventName(DeliveryError):  # noqa: N818  named by what to do about it: register it
    """The event's name is not registered; `message` is ActiveCampaign's, "" if it answered a bare 0."""

    def __init__(self, message: str) -> None:
        super().__init__(f"ActiveCampaign does not know the name of the event: {message or 'it answers 0'}")
        self.message = message


class _Tracked(msgspec.Struct):
    """The answer of trackcmp.net, success as number or text; some accounts answer the plain number."""

    success: Literal[0, 1] | Literal["0", "1"]
    message: str = ""


_tracked = msgspec.json.Decoder(_Tracked | Literal[0, 1])

# ActiveCampaign does not document the texts of refusals. These patterns are wider than the few texts that are
# public. A text about the key, the account or tracking holds for every event. A text about the event's name
# is looked for first, since "unknown event for this account" is about the name.
_ABOUT_KEY = re.compile(r"\bkey\b", re.IGNORECASE)
_UNKNOWN = (
    r"(unknown|unregistered|invalid|no such|not (be )?(found|registered|known|recogni[sz]ed|allowed)"
    r"|(doesn't|does not|did not) exist)"
)
_ABOUT_NAME = re.compile(rf"\b(event|name)\b.*{_UNKNOWN}|{_UNKNOWN}.*\b(event|name)\b", re.IGNORECASE)
_ABOUT_ACCOUNT = re.compile(r"\b(key|account|actid|tracking|authenticat\w*|authori[sz]\w*)\b", re.IGNORECASE)


def parse_event(response: Response) -> None:
    """Return if the event is recorded, raise otherwise.

    | status                      | body                              | meaning                         |
    |-----------------------------|-----------------------------------|---------------------------------|
    | 2xx                         | success 1                         | recorded                        |
    | 429, 503 with a Retry-After | any                               | TryLater, after that wait       |
    | 3xx, 408, 413, 425, 499,    | any                               | UnknownOutcome                  |
    | 5xx                         |                                   |                                 |
    | 403                         | HTML, which is a proxy's          | UnknownOutcome                  |
    | 401, 402, other 403         | any                               | AccountRefused                  |
    | any other                   | success 0 without a text          | UnknownEventName                |
    | any other                   | success 0, about the event's name | UnknownEventName                |
    | any other                   | success 0, about the account      | AccountRefused                  |
    | 2xx, 400, 422               | success 0, another text           | Rejected                        |
    | other 4xx                   | success 0, another text           | AccountRefused: check event_url |
    | 4xx                         | success 1                         | UnknownOutcome                  |
    | 2xx                         | neither                           | UnknownOutcome                  |
    | 4xx                         | HTML                              | UnknownOutcome                  |
    | 400, 422                    | neither                           | Rejected                        |
    | other 4xx                   | neither                           | AccountRefused: check event_url |
    """
    answer = _tracked_answer(response.body)
    if answer is not None and answer.success in (1, "1") and response.status in SUCCESS:
        return
    raise_if_throttled(response)
    if any(response.status in statuses for statuses in UNANSWERED):
        raise _unknown_outcome(response)
    if response.status == FORBIDDEN and is_html(response):  # the proxy may refuse this event alone
        raise UnknownOutcome(refused_by_proxy(response))
    raise_if_account_refused(response)
    if answer is not None and answer.success in (0, "0"):
        _raise_if_not_about_this_event(answer.message, response)
    elif response.status < BAD_REQUEST or is_html(response) or answer is not None:
        raise _unknown_outcome(response)
    if response.status in SUCCESS or response.status in REFUSED_EVENT:
        raise Rejected("ActiveCampaign refused the event", response.excerpt())
    raise AccountRefused(f"nobody takes events there; check event_url: {response.excerpt()}")


def _tracked_answer(body: bytes) -> _Tracked | None:
    try:
        answer = _tracked.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return answer if isinstance(answer, _Tracked) else _Tracked(answer)


def _unknown_outcome(response: Response) -> UnknownOutcome:
    return UnknownOutcome(f"no word on whether the event was recorded: {response.excerpt()}")


def _raise_if_not_about_this_event(message: str, response: Response) -> None:
    """Raise the meaning of a `success: 0` whose text holds for other events too."""
    if not message:
        raise UnknownEventName("")
    if _ABOUT_NAME.search(message) and not _ABOUT_KEY.search(message):
        raise UnknownEventName(mask(message, response.secrets))
    if _ABOUT_ACCOUNT.search(message):
        raise AccountRefused(f"ActiveCampaign takes no events; {CHECK_EVENTS}: {response.excerpt()}")


def error_after_registration(error: UnknownEventName) -> DeliveryError:
    """Return the meaning of an event's name that is still unknown after its registration.

    It is Rejected only if the text is about the name alone. A bare 0 is all that some accounts answer,
    whatever is wrong, so that it refuses the account, as a text about the account does.
    """
    if error.message and not _ABOUT_ACCOUNT.search(error.message):
        return Rejected("ActiveCampaign does not take the event's name", error.message)
    return AccountRefused(
        f"ActiveCampaign takes no events ({error.message or 'it answers 0'}); {CHECK_EVENTS}"
    )
