"""What a commit of the checkpoint saves, and what an earlier run left."""

from __future__ import annotations

from datetime import datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from kiva_stream.model.dead_letters import DeadLetter
from kiva_stream.model.held_records import HeldKey
from kiva_stream.model.ids import ContactId, CustomerId
from kiva_stream.model.outcomes import Reason, Tally
from kiva_stream.model.positions import DAY1, Position


class Delivered(NamedTuple):
    """A row of the ledger: an event that ActiveCampaign has."""

    position: Position
    contact: ContactId
    event_line: int
    attempts: int


class Commit(NamedTuple):
    """What is saved together in the state schema, or not at all."""

    watermark: Position
    pending: int  # entries that were read, have no outcome yet, and are not parked
    delivered: list[Delivered]
    dead: list[DeadLetter]
    # What is added to the saved counts: the entries that the watermark passed since the last commit, reopened
    # entries at or below it, and notes of the sender. `superseded` is subtracted from them.
    passed: Tally
    ahead: Tally = MappingProxyType({})  # replaces the saved counts of the entries above the watermark
    tags_due: frozenset[ContactId] = frozenset()  # whose week tag may differ: their contact was upserted
    superseded: tuple[
        tuple[Position, Reason], ...
    ] = ()  # dead letters that got another outcome, with their reasons
    intents: frozenset[Position] = frozenset()  # events that may be sent after this commit, or are in doubt
    parked: tuple[tuple[Position, ContactId], ...] = ()  # new ones, and some whose contact may be another now
    unparked: tuple[Position, ...] = ()  # their entries got their outcome


class Leftovers(NamedTuple):
    """What the state has of earlier runs when a run starts, besides the watermark."""

    earlier_outcomes_to: Position = (
        DAY1  # entries up to here may have their outcome, though above the watermark
    )
    dead_letter_customers: frozenset[CustomerId] = (
        frozenset()
    )  # customers with dead letters that have one of CONTACT_REASONS
    parked: int = 0  # how many entries
    in_doubt: frozenset[Position] = frozenset()  # events that may have arrived
    # Where the counts begin: at `--since`, or where the last rewind went. An entry at or below it, such as a
    # dead letter that an earlier run left there, may be reopened, but is not counted.
    counted_from: Position = Position(-1, 0)
    discarded: frozenset[Position] = frozenset()  # dead letters that get no other outcome


class ParkedBehind(NamedTuple):
    """The parked entries of one contact."""

    entries: int  # how many there are
    customers: list[CustomerId]  # of the contact
    key: HeldKey | None  # what is held longest of it, if anything is


class SavedCheckpoint(msgspec.Struct, frozen=True):
    """The checkpoint of a site, as the state schema has it or, at the start, will have it."""

    since: str  # as given
    events_since: datetime | None
    watermark: Position
    horizon: bool = True  # how the log is read: without one, positions are (0, id)
    moved_ago: timedelta = timedelta()  # how long ago the watermark was last moved, when this was read
    rewound_at: datetime | None = None
