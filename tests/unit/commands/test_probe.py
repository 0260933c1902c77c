"""What an observation of `probe` means: pure decisions, a sentence each."""

from __future__ import annotations

import pytest

from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.commands.probe import findings
from kiva_stream.commands.probe.findings import RefusedBatch

SENT = ("p" * 600, "é" * 600)
RECEIVED = Response(200, b'{"success": 1, "message": "Event spawned"}')


def refused(text: str) -> Response:
    return Response(200, f'{{"success": 0, "message": "{text}"}}'.encode())


@pytest.mark.parametrize(
    ("plain", "accented", "found", "ok"),
    [
        (600, 600, "not cut at 600 characters", True),
        (250, 250, "cut after 250 characters", True),
        (249, 249, "cut after 249 characters", False),
        (251, 125, "cut after 251 bytes", True),
        (250, 125, "cut after 250 bytes", True),
        (250, 90, "cut after 250 plain characters, or 90 of two bytes each", False),
    ],
)
def test_eventdata_may_be_cut_by_characters_or_bytes_but_not_below_250_bytes(
    plain: int, accented: int, found: str, *, ok: bool
) -> None:
    finding = findings.eventdata_cut(SENT, ("p" * plain, "é" * accented))

    assert (finding.found, finding.ok) == (found, ok)
    assert ("lookup = false" in finding.change) == (not ok)


@pytest.mark.parametrize(
    ("delay_s", "ok", "change"),
    [
        (30.0, True, ""),
        (31.0, False, "activecampaign.lookup_settle_s = 62"),
        (None, False, "activecampaign.lookup = false"),
    ],
)
def test_a_tracking_log_that_is_late_asks_for_a_longer_wait(
    delay_s: float | None, *, ok: bool, change: str
) -> None:
    finding = findings.log_delay(delay_s, waited_s=60, settle_s=30)

    assert (finding.ok, finding.change) == (ok, change)


@pytest.mark.parametrize(
    ("reply", "is_created", "ok"),
    [
        (RECEIVED, False, True),
        (RECEIVED, True, False),
        (refused("No such contact."), False, True),
        (refused("Unknown account."), False, False),
    ],
)
def test_an_event_without_a_contact_must_neither_create_one_nor_refuse_the_account(
    reply: Response, *, is_created: bool, ok: bool
) -> None:
    assert findings.unknown_contact(reply, is_created=is_created).ok is ok


@pytest.mark.parametrize(
    ("reply", "is_shown", "ok"),
    [
        (RECEIVED, True, True),
        (RECEIVED, False, False),
        (refused("Unknown event name."), False, True),
        (Response(200, b"0"), False, True),
        (refused("Please contact support."), False, False),
    ],
)
def test_an_unknown_event_name_must_be_recognised_or_recorded(
    reply: Response, *, is_shown: bool, ok: bool
) -> None:
    finding = findings.unknown_name(reply, is_shown=is_shown)

    assert finding.ok is ok
    assert bool(finding.change) == (not ok)


@pytest.mark.parametrize(("again", "ok"), [(7, True), (8, False), (None, False)])
def test_a_repeated_tag_must_be_answered_with_its_link(again: int | None, *, ok: bool) -> None:
    assert findings.repeated_tag(7, again, Response(200, b"{}")).ok is ok


def test_a_connection_must_be_accepted_with_urls_and_may_be_without() -> None:
    accepted, refusal = Response(201, b"{}"), Response(422, b"no")

    assert findings.empty_logo(accepted, None).ok
    assert findings.empty_logo(refusal, accepted).ok
    assert findings.empty_logo(refusal, refusal).ok is False


@pytest.mark.parametrize(
    ("accepted", "refusal", "ok", "change"),
    [
        (200, None, True, ""),
        (100, RefusedBatch(200, "too large", is_for_size=True), True, ""),
        (100, RefusedBatch(200, "no", is_for_size=False), False, findings.REPORT_IT),
        (50, RefusedBatch(100, "too large", is_for_size=True), False, "activecampaign.orders_per_batch = 50"),
        (0, RefusedBatch(50, "too large", is_for_size=True), False, findings.REPORT_IT),
    ],
)
def test_a_batch_of_the_set_size_must_be_accepted_and_a_larger_one_refused_for_its_size(
    accepted: int, refusal: RefusedBatch | None, *, ok: bool, change: str
) -> None:
    finding = findings.order_batch(accepted, refusal, per_batch=75)

    assert (finding.ok, finding.change) == (ok, change)


@pytest.mark.parametrize(
    ("throttled", "ok", "found"),
    [
        ([True], True, "one bucket holds REST, GraphQL and imports"),
        ([False, True], False, "imports have their own"),
        ([False, False, True], False, "a bucket each"),
        ([False, False, False], None, "not known"),
    ],
)
def test_the_first_burst_that_is_throttled_says_which_requests_share_a_bucket(
    throttled: list[bool],
    ok: bool | None,
    found: str,
) -> None:
    finding = findings.one_bucket(throttled)

    assert finding.ok is ok
    assert found in finding.found


@pytest.mark.parametrize(
    ("headers", "ok", "found"),
    [
        ({"Retry-After": "30", "Date": "today"}, True, "429 with Retry-After: 30"),
        ({"Retry-After": "soon"}, False, "429 with Retry-After: soon"),
        ({"X-RateLimit-Limit": "5"}, False, "429 with X-RateLimit-Limit: 5"),
        ({}, False, "429 with none of them"),
    ],
)
def test_a_throttled_request_must_name_its_wait_in_seconds(
    headers: dict[str, str], *, ok: bool, found: str
) -> None:
    reply = Response(429, b"", headers.get("Retry-After"), headers=headers)

    finding = findings.rate_limit_headers(reply)

    assert (finding.found, finding.ok) == (found, ok)
    assert findings.rate_limit_headers(None).ok is None


def test_the_exclusion_of_automations_is_known_only_where_one_would_have_started() -> None:
    assert findings.exclusion(0, 0).ok is None
    assert findings.exclusion(1, 0).ok
    assert findings.exclusion(1, 1).ok is False
