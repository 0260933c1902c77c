"""The read of the key's own user, which tells what a refusal or an answer of another server means.

`Client` reads it beside a request that was refused with a 403, and beside one that another server than
ActiveCampaign answered at a URL where ActiveCampaign never did.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from kiva_stream.activecampaign.responses.rest import parse_rest
from kiva_stream.activecampaign.responses.statuses import FORBIDDEN
from kiva_stream.errors import DeliveryError, ForeignAnswer, PermissionRefused, WrongUrl

OWN_USER = "/users/me"  # "Retrieve logged-in user": every key may read it

parse_own_user = partial(parse_rest, shape=dict[str, Any], key="user")


class AnsweredHere:
    """Implements the port AnsweredUrl for a client without a state: it forgets with the process."""

    def __init__(self, *, is_known: bool = False) -> None:
        self.is_known = is_known

    async def record(self) -> None:
        """Note that ActiveCampaign answered."""
        self.is_known = True


def is_ambiguous(error: DeliveryError, status: int, *, was_answered: bool) -> bool:
    """Return whether the own user tells more about an error than the answer with this status alone.

    `was_answered`: ActiveCampaign answered at this URL before, so that it is the right one.
    """
    return not was_answered if isinstance(error, ForeignAnswer) else status == FORBIDDEN


def meaning_of(
    error: DeliveryError, own_error: DeliveryError | None, *, request: str, url: str
) -> DeliveryError:
    """Return what an ambiguous error of a request means.

    `own_error` is how the read of the own user ended beside it, None: it was answered.

    | the request gets              | the read gets                 | meaning                     |
    |-------------------------------|-------------------------------|-----------------------------|
    | a 403                         | an answer                     | PermissionRefused           |
    | an answer of another server   | an answer of another server   | WrongUrl                    |
    | any other two                 |                               | the error: it is left so    |
    """
    is_foreign = isinstance(error, ForeignAnswer)
    if own_error is None and not is_foreign:
        return PermissionRefused(
            f"ActiveCampaign accepts the key for GET {OWN_USER} and refuses {request}: not the key is at "
            f"fault, but a permission of its user, the plan, or a proxy on the way: {error}"
        )
    if is_foreign and isinstance(own_error, ForeignAnswer):
        return WrongUrl(
            f"activecampaign.api_url is wrong: {url} is not ActiveCampaign's API; copy the URL from the "
            f"account's Developer page. GET {OWN_USER}: {own_error}"
        )
    return error
