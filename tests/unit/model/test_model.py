"""The words of the domain that do something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiva_stream.model.outcomes import Outcome, Reason
from kiva_stream.model.positions import Position


@given(st.integers(0, 2**63 - 1), st.integers(1 - 2**63, 2**63 - 1))
def test_a_position_is_read_as_it_is_printed(txid: int, log_id: int) -> None:
    assert Position.parse(str(Position(txid, log_id))) == Position(txid, log_id)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "7:",
        ":7",
        "7:8:9",
        "-1:2",
        "a:b",
        "7 : 8",
        "1.5:2",
        f"{2**63}:1",
        f"1:{2**63}",
        f"{'9' * 5000}:1",
    ],
)
def test_a_text_that_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a position"):
        Position.parse(text)


def test_positions_are_ordered_by_transaction_before_id() -> None:
    assert Position(1, 9) < Position(2, 1) < Position(2, 2)


@pytest.mark.parametrize(
    ("outcome", "text"),
    [(Outcome("delivered"), "delivered"), (Outcome("dead", Reason.NO_EMAIL), "dead no_email")],
)
def test_an_outcome_says_its_why_where_it_has_one(outcome: Outcome, text: str) -> None:
    assert str(outcome) == text
