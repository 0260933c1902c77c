"""When a row of a drill's report is ok."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.sandbox.drill_rows import WHOLE, but


@pytest.mark.parametrize(
    "changes",
    [
        {"lost": 1},
        {"repeated": 1},
        {"repeats_allowed": 20, "repeated": 21},
        {"out_of_order": 1},
        {"kept": 1},
        {"dead_letters": 1},
        {"wrong": {"contacts_wrong": 1}},
        {"trouble": "it was not done"},
        {"times": 0},
    ],
)
def test_a_row_is_ok_only_when_nothing_is_lost_repeated_kept_dead_or_wrong_and_the_fault_struck(
    changes: dict[str, Any],
) -> None:
    assert WHOLE.ok
    assert not but(**changes).ok


def test_repeats_are_ok_up_to_the_allowed_number() -> None:
    assert but(repeated=20, repeats_allowed=20).ok
