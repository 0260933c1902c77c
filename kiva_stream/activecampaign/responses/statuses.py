"""What a status means whatever was asked for: throttled, account refused, not from ActiveCampaign itself.

The statuses and their bodies are those of ActiveCampaign's API reference ("Rate limits", "Errors") and those
that public clients of the API report; none was measured on a live account.
"""

from __future__ import annotations

from codecs import BOM_UTF8

from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.errors import AccountRefused, TryLater

SUCCESS = range(200, 300)
REDIRECTS = range(300, 400)  # never followed: ActiveCampaign documents none
BAD_REQUEST = 400
FORBIDDEN = 403
NOT_FOUND = 404
TOO_LARGE = 413
UNPROCESSABLE = 422
PROXY_GAVE_UP = frozenset({408, 425, 499})  # a proxy waited no longer, for the answer or for the request
SERVER_ERRORS = range(500, 600)  # Cloudflare's 520 to 526 among them
_ACCOUNT_REFUSALS = frozenset({401, 402, FORBIDDEN})  # 403: wrong key; 402: the account lapsed; 401 is rare
_TOO_MANY_REQUESTS = 429
_UNAVAILABLE = 503
_USUAL_WAIT_S = 30.0  # the Retry-After in ActiveCampaign's own example


def raise_if_throttled(response: Response) -> None:
    """Raise TryLater with the wait that is asked for, if ActiveCampaign is throttling.

    A 503 counts only with a Retry-After: some clients get it in the place of a 429.
    """
    names_wait = response.retry_after is not None
    if response.status == _TOO_MANY_REQUESTS or (response.status == _UNAVAILABLE and names_wait):
        raise TryLater(f"ActiveCampaign is throttling: {response.excerpt()}", retry_after_s(response))


def retry_after_s(response: Response) -> float:
    """Return the Retry-After in seconds; anything else than digits means ActiveCampaign's usual wait."""
    text = (response.retry_after or "").strip()
    return float(text) if text.isdecimal() else _USUAL_WAIT_S


def raise_if_account_refused(response: Response) -> None:
    """Raise AccountRefused if the key or the account is refused, whatever was asked for.

    ActiveCampaign refuses in JSON. A page of HTML is that of a proxy before it, Cloudflare's challenge say.
    """
    if response.status not in _ACCOUNT_REFUSALS:
        return
    if is_html(response):
        raise AccountRefused(refused_by_proxy(response))
    raise AccountRefused(
        f"ActiveCampaign refuses the key or the account; check api_token and the plan: {response.excerpt()}"
    )


def refused_by_proxy(response: Response) -> str:
    """Return the sentence about a refusal that is a page of HTML."""
    return (
        "A proxy before ActiveCampaign refuses this machine with a page of its own, and the key may be "
        f"right; ask who runs the proxy to let it through: {response.excerpt()}"
    )


def is_html(response: Response) -> bool:
    """Return whether the body is a page of HTML: another server than ActiveCampaign's API answered."""
    return response.body.removeprefix(BOM_UTF8).lstrip()[:1] == b"<"
