"""The outcome equation: entries read = the outcomes + pending + parked."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kiva_stream.model.outcomes import Outcome
from kiva_stream.state.status import SiteStatus


class Equation(msgspec.Struct, frozen=True):
    """Entries read = the outcomes + pending + parked."""

    entries_read: int
    delivered: int
    synced: int
    skipped: dict[str, int]  # by reason
    dead: dict[str, int]  # by reason
    pending: int
    parked: int = 0

    @classmethod
    def of(cls, counts: Mapping[Outcome, int], pending: int, parked: int = 0) -> Equation:
        """Add up the counts of each outcome."""
        return cls(
            entries_read=sum(counts.values()) + pending + parked,
            delivered=counts.get(Outcome("delivered"), 0),
            synced=counts.get(Outcome("synced"), 0),
            skipped={outcome.why: count for outcome, count in counts.items() if outcome.kind == "skipped"},
            dead={outcome.why: count for outcome, count in counts.items() if outcome.kind == "dead"},
            pending=pending,
            parked=parked,
        )

    def __str__(self) -> str:
        parts = {
            "delivered": self.delivered,
            "synced": self.synced,
            "skipped": sum(self.skipped.values()),
            "dead": sum(self.dead.values()),
            "pending": self.pending,
            "parked": self.parked,
        }
        words = " + ".join(f"{count:,} {name}" for name, count in parts.items())
        return f"{self.entries_read:,} entries read = {words}"


def equation_of(status: SiteStatus) -> Equation:
    """Return the outcome equation of a site."""
    return Equation.of(status.outcomes, status.pending, status.parked)
