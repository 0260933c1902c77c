"""The outcome equation adds up."""

from __future__ import annotations

from kiva_stream.commands.outcome_equation import Equation
from kiva_stream.model.outcomes import Outcome

COUNTS = {
    Outcome("delivered"): 500,
    Outcome("synced"): 200,
    Outcome("skipped", "noise"): 290,
    Outcome("skipped", "test"): 4,
    Outcome("dead", "no_email"): 6,
}
EQUATION = Equation.of(COUNTS, pending=10)


def test_the_equation_adds_up() -> None:
    parts = (
        EQUATION.delivered + EQUATION.synced + sum(EQUATION.skipped.values()) + sum(EQUATION.dead.values())
    )
    assert EQUATION.entries_read == parts + EQUATION.pending + EQUATION.parked == 1010
