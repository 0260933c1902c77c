"""What a backfill is asked to do, and the summary of what it did."""

from __future__ import annotations

from datetime import date

import msgspec

from kiva_stream.commands.outcome_equation import Equation
from kiva_stream.model.bounds import Bound

HOUR_S = 3_600


class BackfillRequest(msgspec.Struct, frozen=True):
    """Which entries a backfill carries. None: as kept with the checkpoint, else without that bound."""

    since: Bound | None = None
    until: Bound | None = None
    events_since: date | None = None


class Summary(msgspec.Struct, frozen=True):
    """What a backfill has done."""

    equation: Equation  # since the counts began
    entries: int  # of this run that got their outcome
    seconds: float  # of this run
    events: dict[str, int]  # since the counts began, by name
    contacts: dict[str, int]  # by status
    requests: dict[str, int]  # of this run, by endpoint
    orders: dict[str, int] = {}  # sent, refused
    tags: dict[str, int] | None = None  # contacts by week tag; only the sandbox reports them
    notes: dict[str, int] = {}  # oddities of entries, since the counts began
    breaches: dict[str, int] | None = None  # of ActiveCampaign's limits and contract; only from the sandbox
    stopped_by: int | None = None  # the signal that ended it before its end
    left: str | None = None  # what is left parked, and why
    obstacle: str | None = None  # what keeps the log from being read on

    @classmethod
    def of_nothing(cls, requests: dict[str, int], signal: int | None) -> Summary:
        """Return the summary of a backfill that ended before it had a checkpoint."""
        return cls(Equation.of({}, 0), 0, 0.0, {}, {}, requests, stopped_by=signal)

    @property
    def entries_per_hour(self) -> float:
        """Entries of this run an hour."""
        return self.entries / self.seconds * HOUR_S if self.seconds else 0.0
