"""When a call is tried again, and after how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiva_stream.activecampaign.retry_policy import RetryPolicy
from kiva_stream.errors import AccountRefused, DeliveryError, Rejected, RowsRejected, TryLater, UnknownOutcome
from kiva_stream.primitives.backoff import ceiling_s

LATER = TryLater("down")
REFUSED = AccountRefused("no")


def longest() -> float:
    return 1.0


def test_ceilings_double_up_to_the_setting() -> None:
    assert [ceiling_s(attempt, 60) for attempt in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert ceiling_s(100_000, 60) == 60


@given(chance=st.floats(min_value=0, max_value=1), attempts=st.integers(min_value=1, max_value=40))
def test_a_wait_is_anything_up_to_its_ceiling(chance: float, attempts: int) -> None:
    policy = RetryPolicy(60, chance=lambda: chance)
    waits = [policy.wait_s(LATER) for _ in range(attempts)]

    assert waits == [chance * ceiling_s(attempt, 60) for attempt in range(1, attempts + 1)]


def test_waits_differ_from_call_to_call() -> None:
    assert len({RetryPolicy(60).wait_s(LATER) for _ in range(20)}) > 1


def test_a_wait_is_no_shorter_than_activecampaign_asked_for() -> None:
    policy = RetryPolicy(60, chance=lambda: 0.0)

    assert policy.wait_s(TryLater("throttled", after_s=30)) == 30
    assert policy.wait_s(TryLater("throttled", after_s=300)) == 300


def test_a_retry_after_of_0_still_backs_off() -> None:
    assert RetryPolicy(60, chance=longest).wait_s(TryLater("throttled", after_s=0)) == 1


def test_without_a_bound_on_patience_a_call_is_repeated_for_ever() -> None:
    policy = RetryPolicy(60)

    assert all(policy.wait_s(LATER) <= 60 for _ in range(1_000))


def test_a_refused_account_is_raised_the_third_time_in_a_row() -> None:
    policy = RetryPolicy(60, chance=longest)

    assert [policy.wait_s(REFUSED), policy.wait_s(REFUSED)] == [1, 2]
    with pytest.raises(AccountRefused):
        policy.wait_s(REFUSED)


def test_refusals_are_counted_in_a_row() -> None:
    policy = RetryPolicy(60)
    for error in [REFUSED, REFUSED, LATER, REFUSED, REFUSED]:
        policy.wait_s(error)

    with pytest.raises(AccountRefused):
        policy.wait_s(REFUSED)


@pytest.mark.parametrize(
    "error", [Rejected("no"), RowsRejected("no", {}), UnknownOutcome("?"), DeliveryError("other")]
)
def test_any_other_error_is_raised_at_once(error: DeliveryError) -> None:
    with pytest.raises(type(error)):
        RetryPolicy(60).wait_s(error)


def test_patience_bounds_the_waits_together() -> None:
    policy = RetryPolicy(60, patience_s=8, chance=longest)

    assert [policy.wait_s(LATER) for _ in range(3)] == [1, 2, 4]
    with pytest.raises(TryLater):
        policy.wait_s(LATER)
