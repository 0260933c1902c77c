"""Outcomes of entries, their reasons, and how they are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from kiva_stream.model.positions import Position


class Reason(StrEnum):
    """Why an entry was skipped or is dead: the closed lists of the glossary."""

    NOISE = "noise"
    DUPLICATE = "duplicate"
    TEST = "test"
    ERASED = "erased"
    NO_ACCOUNT = "no_account"
    STAFF_LOGIN = "staff_login"
    BEFORE_EVENTS_SINCE = "before_events_since"

    NO_EMAIL = "no_email"
    NO_CUSTOMER = "no_customer"
    NO_CONTACT = "no_contact"
    WRONG_SITE = "wrong_site"
    AC_REJECTED = "ac_rejected"
    ORDER_INVALID = "order_invalid"
    EVENT_REJECTED = "event_rejected"


# The reasons of dead letters: a closed list.
DEAD_REASONS = (
    *(Reason.NO_EMAIL, Reason.NO_CUSTOMER, Reason.NO_CONTACT, Reason.WRONG_SITE),
    *(Reason.AC_REJECTED, Reason.ORDER_INVALID, Reason.EVENT_REJECTED),
)

# Reasons of dead letters that may be delivered when their customer's address appears or changes.
CONTACT_REASONS = frozenset({Reason.NO_EMAIL, Reason.AC_REJECTED, Reason.NO_CONTACT})


class Outcome(NamedTuple):
    """What became of an entry. Each entry gets exactly one; PARKED only stands in for it."""

    kind: str  # delivered | synced | skipped | dead; of PARKED: parked
    why: str = ""  # of skipped and dead: a Reason

    def __str__(self) -> str:
        return f"{self.kind} {self.why}" if self.why else self.kind


DELIVERED = Outcome("delivered")
SYNCED = Outcome("synced")
PARKED = Outcome("parked")  # what the ledger returns for a parked entry, which has no outcome yet


Tally = Mapping[tuple[str, str], int]  # how many, by (outcome | event | note, its name)
Counted = Outcome | int | str  # an outcome, the line of a delivered event, a note


def tally_of(counts: Mapping[Counted, int]) -> Counter[tuple[str, str]]:
    """Return counts by name, without those that are 0."""
    return Counter({_named(each): count for each, count in counts.items() if count})


def _named(counted: Counted) -> tuple[str, str]:
    if isinstance(counted, Outcome):
        return "outcome", str(counted)
    return ("event" if isinstance(counted, int) else "note"), str(counted)


class Span:
    """Entries whose outcomes are counted together.

    The span of a page of the log has consecutive entries, which the watermark passes together. A reopened
    entry has a span of its own, as has a contact check, whose span is never counted. The span of a page
    that is not of the log is empty.
    """

    __slots__ = ("counts", "last", "pending", "size")

    def __init__(self, last: Position, size: int) -> None:
        self.last = last
        self.size = size
        self.pending = size  # without an outcome yet
        self.counts: Counter[Counted] = Counter()

    def resolve(self, outcome: Outcome, *, event_line: int | None = None, notes: Iterable[str] = ()) -> None:
        """Give one entry its one outcome; `event_line` is that of a delivered event."""
        self.pending -= 1
        self.counts[outcome] += 1
        if event_line is not None:
            self.counts[event_line] += 1
        for note in notes:
            self.counts[note] += 1

    def detach(self) -> None:
        """Have the watermark wait for one entry less: it gets its outcome in another span."""
        self.pending -= 1
