"""About how many requests work takes, and how long, at the limits in the settings."""

from __future__ import annotations

import pytest

from kiva_stream.commands.estimates import MINUTE_S, Work, request_s, requests, seconds, swaps_s
from tests.support.settings import activecampaign_settings

LIMITS = activecampaign_settings()  # as documented: 5 requests a second, 100 imports a minute


def test_requests_are_counted_by_phase_and_endpoint() -> None:
    assert requests(Work(contacts=1_001, orders=101, events=7, tags=3), LIMITS) == {
        "contacts": {"POST /import/bulk_import": 5, "GET /import/info": 10, "GET /contacts": 13},
        "orders": {"POST /ecom/graphql": 2},
        "events": {"POST /event": 7},
        "tags": {"GET /contacts/ID/contactTags": 3, "DELETE /contactTags": 3, "POST /contactTags": 3},
    }


def test_the_sizes_of_imports_and_batches_are_those_of_the_settings() -> None:
    small = activecampaign_settings(contacts_per_import=10, orders_per_batch=1)
    wanted = requests(Work(contacts=1_001, orders=101), small)
    assert wanted["contacts"]["POST /import/bulk_import"] == 101
    assert wanted["orders"] == {"POST /ecom/graphql": 7}  # of 1, 2, 4, …, 64 orders


def test_nothing_to_send_takes_only_the_listings_of_contacts() -> None:
    wanted = requests(Work(), LIMITS)
    assert {name: count for phase in wanted.values() for name, count in phase.items() if count} == {
        "GET /contacts": 2
    }
    assert seconds(Work(), LIMITS) == {
        "contacts": pytest.approx(2 * request_s(LIMITS)),
        "orders": 0,
        "events": 0,
        "tags": 0,
    }


def test_a_request_keeps_its_slot_until_a_second_after_its_answer() -> None:
    assert request_s(LIMITS) == pytest.approx(1.1 / 5)
    assert request_s(activecampaign_settings(requests_per_second=1)) == pytest.approx(1.1)


def test_orders_take_the_requests_of_their_batches() -> None:
    # of 50, of 100, and 25 of at most 200 orders
    assert seconds(Work(orders=5_000), LIMITS)["orders"] == pytest.approx(27 * 1.1 / 5)


def test_contacts_take_the_longer_of_their_requests_and_their_imports() -> None:
    work = Work(contacts=2_500)  # 10 imports, 20 looks at them, 27 pages of ids
    assert seconds(work, LIMITS)["contacts"] == pytest.approx(57 * 1.1 / 5)
    few_imports = activecampaign_settings(bulk_imports_per_minute=1)
    assert seconds(work, few_imports)["contacts"] == pytest.approx(10 * MINUTE_S)


def test_events_have_a_rate_of_their_own() -> None:
    assert seconds(Work(events=7_200), LIMITS)["events"] == 120
    slow = activecampaign_settings(requests_per_second=1)
    assert seconds(Work(events=7_200), slow)["events"] == 120


def test_events_without_a_rate_take_little_and_not_nothing() -> None:
    unpaced = activecampaign_settings(events_per_second=0)
    assert 0 < seconds(Work(events=7_200), unpaced)["events"] < 120


def test_half_the_requests_a_second_take_week_tags_twice_as_long() -> None:
    whole, half = (activecampaign_settings(requests_per_second=rate) for rate in (4, 2))
    assert swaps_s(7_400, half) == pytest.approx(2 * swaps_s(7_400, whole))


def test_a_week_tag_takes_the_requests_that_are_counted_for_it() -> None:
    work = Work(tags=7_400)
    counted = sum(requests(work, LIMITS)["tags"].values())
    assert swaps_s(7_400, LIMITS) == seconds(work, LIMITS)["tags"] == pytest.approx(counted * 1.1 / 5)
