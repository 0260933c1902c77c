"""Keys, separate accounts, and the limit of requests in the sandbox."""

from __future__ import annotations

import msgspec
import pytest

from kiva_stream.sandbox.activecampaign import Sandbox
from kiva_stream.sandbox.activecampaign.responses import Response
from kiva_stream.sandbox.activecampaign.service import Request
from tests.support.sandbox import SHOP, Caller

OTHER = msgspec.structs.replace(
    SHOP, name="other", api_token="other-token", event_actid="2", event_key="other-key"
)
TAG = {"tag": {"tag": "open order", "tagType": "contact"}}


@pytest.mark.parametrize("token", ["", "another-token"])
def test_a_bad_token_is_403_and_changes_nothing(token: str) -> None:
    caller = Caller()

    assert caller.call("POST", "/tags", TAG, token=token) == (403, {"message": "Forbidden"})
    assert len(caller.shop.tags) == 0
    assert caller.shop.tally.requests == {}
    assert caller.service.unattributed.responses == {"403": 1}


def test_accounts_share_nothing() -> None:
    caller = Caller(others=[OTHER])

    caller.call("POST", "/tags", TAG, token="other-token")

    assert len(caller.shop.tags) == 0
    assert len(caller.service.account("other").tags) == 1


def test_accounts_have_a_limit_each() -> None:
    caller = Caller(requests_per_second=5, others=[OTHER])
    for _ in range(5):
        caller.call("GET", "/tags")

    assert caller.call("GET", "/tags")[0] == 429
    assert caller.call("GET", "/tags", token="other-token")[0] == 200


@pytest.mark.parametrize("field", ["name", "api_token", "event_actid"])
def test_two_accounts_with_the_same_name_or_key_are_refused(field: str) -> None:
    twin = msgspec.structs.replace(OTHER, **{field: getattr(SHOP, field)})

    with pytest.raises(ValueError, match=f"two accounts have the same {field}"):
        Sandbox([SHOP, twin])


def test_the_sixth_request_of_a_second_is_429_and_counted_as_a_breach() -> None:
    caller = Caller(requests_per_second=5, retry_after_s=30)

    statuses = [caller.call("GET", "/tags")[0] for _ in range(6)]

    assert statuses == [200] * 5 + [429]
    assert caller.shop.tally.breaches == {"rate_limit": 1}
    assert caller.shop.peak.highest == 6


def test_a_429_has_a_retry_after_and_the_limit() -> None:
    caller = Caller(requests_per_second=1, retry_after_s=30)
    caller.call("GET", "/tags")

    reply = caller.send(Request("GET", "/api/3/tags", {}, SHOP.api_token, "", b""))

    assert isinstance(reply, Response)
    assert reply.headers == {"Retry-After": "30", "RateLimit-Limit": "1", "RateLimit-Remaining": "0"}


def test_graphql_and_imports_count_in_the_same_limit_and_events_do_not() -> None:
    caller = Caller(requests_per_second=2)
    caller.call("POST", "/ecom/graphql", {"query": "{ searchOrder { id } }"})
    caller.call("POST", "/import/bulk_import", {"contacts": [{"email": "ann@example.org"}]})

    assert caller.event()[0] == 200
    assert caller.call("GET", "/tags")[0] == 429


def test_a_request_is_admitted_again_a_second_later() -> None:
    caller = Caller(requests_per_second=1)
    caller.call("GET", "/tags")

    caller.now += 0.999
    assert caller.call("GET", "/tags")[0] == 429
    caller.now += 0.001
    assert caller.call("GET", "/tags")[0] == 200


def test_a_request_over_the_limit_is_not_processed() -> None:
    caller = Caller(requests_per_second=1)
    caller.call("GET", "/tags")

    caller.call("POST", "/tags", TAG)

    assert len(caller.shop.tags) == 0


def test_requests_and_answers_are_counted() -> None:
    caller = Caller()
    caller.call("GET", "/tags")
    caller.call("GET", "/contacts/9")
    caller.event()

    assert caller.shop.tally.requests == {"listTags": 1, "getContact": 1, "trackEvent": 1}
    assert caller.shop.tally.responses == {"200": 2, "404": 1}
