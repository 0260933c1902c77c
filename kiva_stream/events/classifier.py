"""The classifier: what an entry is. Pure and total: no clock, no I/O, and no input makes it raise."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import compress

from kiva_stream.events.matching import (
    CANCELLED_BY_CUSTOMER,
    CANCELLED_BY_SHOP,
    is_noise,
    is_sync_only,
    line_of_action,
    line_of_text,
)
from kiva_stream.events.payload import order_of, pairs_of, render
from kiva_stream.model.classifications import Classification, Event, Noise, Reject, SyncOnly
from kiva_stream.model.entries import Entry
from kiva_stream.model.event_catalog import EventLine
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.site import Site

LOG_IN_LINES = frozenset(range(3, 8))  # never an event when staff did it
VISITOR_LINES = frozenset({3, 20, 40})  # can come from somebody without an account

_MAX_CLOCK_SKEW = timedelta(minutes=5)
_MAX_ACTION_IN_NOTE = 64
_NUMBER = re.compile(r"\d+")  # an id in an action must not make a note of its own
_MAX_BY_BYTES = 32  # keeps the tail of eventdata, which always stays, far below its 255 bytes

_BY_AUTO = {"customer.cancel.auto": "auto"}
_BY_DEFAULT = {CANCELLED_BY_CUSTOMER: "customer", CANCELLED_BY_SHOP: "admin"}

_NOISE = Noise()
_UNKNOWN_TEXT = Noise(notes=("unknown_text",))


class Classifier:
    """Decides for the entries of one site. A verdict's notes are its own; an entry's stay the entry's.

    `events_since` leaves out the events of entries inserted before it; their contacts are still synced by
    later entries.
    """

    def __init__(self, site: Site, events_since: datetime | None = None) -> None:
        self._site = site
        self._events_since = events_since

    def classify(self, entry: Entry) -> Classification:
        """Return what an entry becomes: a structured one by its action alone, a legacy one by its text."""
        if entry.action is None:
            line = line_of_text(entry.message, entry.customer.name if entry.customer else "")
            return _UNKNOWN_TEXT if line is None else self._event(entry, line)
        line = line_of_action(entry.action)
        if line is not None:
            return self._event(entry, line)
        return _NOISE if is_noise(entry.action) else self._sync_only(entry, entry.action)

    def _event(self, entry: Entry, line: EventLine) -> Classification:
        refusal = self._refusal(entry, line)
        if refusal is not None:
            return refusal
        if self._events_since is not None and _utc(entry.inserted_at) < self._events_since:
            return Noise(Reason.BEFORE_EVENTS_SINCE)
        at, skewed = self._at(entry)
        values, bad, order = pairs_of(line, None if entry.action is None else entry.data, at)
        by, bad_by = _by(entry, line, values.pop("by", ""))
        eventdata, cut = render(values, by, at, entry.position.id)
        notes = tuple(compress(("clock", "bad_data", "cut"), (skewed, bad or bad_by, cut)))
        return Event(line, eventdata, notes, order)

    def _sync_only(self, entry: Entry, action: str) -> Classification:
        refusal = self._refusal(entry, None)
        known = is_sync_only(action)
        notes = () if known else (f"unknown_action:{_NUMBER.sub('#', action[:_MAX_ACTION_IN_NOTE])}",)
        if refusal is not None:
            return type(refusal)(refusal.why, notes)
        if entry.data is None:
            return SyncOnly(notes)
        order, bad = order_of(entry.data)
        return SyncOnly((*notes, "bad_data") if bad else notes, order)

    def _refusal(self, entry: Entry, line: EventLine | None) -> Noise | Reject | None:
        """Return why a customer's entry goes nowhere, or None; `line` is None when it is no event."""
        customer = entry.customer
        if customer is None:
            return _without_customer(entry, line)
        if customer.site_id != self._site.id:
            return Reject(Reason.WRONG_SITE)
        if customer.erased:
            return Noise(Reason.ERASED)
        if customer.is_test:
            return Noise(Reason.TEST)
        if line is not None and line.number in LOG_IN_LINES and _by_staff(entry):
            return Noise(Reason.STAFF_LOGIN)
        return Reject(Reason.NO_EMAIL) if customer.email is None else None

    def _at(self, entry: Entry) -> tuple[datetime, bool]:
        """Return when it happened, in UTC, and whether the writer's clock could not be believed."""
        occurred, inserted = _utc(entry.occurred_at), _utc(entry.inserted_at)
        skewed = occurred - inserted > _MAX_CLOCK_SKEW or occurred < self._site.launched_at
        return (inserted, True) if skewed else (occurred, False)


def _without_customer(entry: Entry, line: EventLine | None) -> Noise | Reject:
    if entry.customer_id is not None:
        return Noise(Reason.ERASED)
    if line is None:
        return _NOISE
    if entry.actor_type == "visitor" or line.number in VISITOR_LINES:
        return Noise(Reason.NO_ACCOUNT)
    return Reject(Reason.NO_CUSTOMER)


def _by_staff(entry: Entry) -> bool:
    return entry.actor_type == "admin" or bool(entry.admin_user)


def _by(entry: Entry, line: EventLine, own: str) -> tuple[str, bool]:
    """Return who acted ("" where it is not said), and whether the row's own word for it was unusable."""
    if _by_staff(entry):
        return "admin", False
    if entry.action is None:
        return ("admin" if line.number == CANCELLED_BY_SHOP else ""), False
    if entry.action in _BY_AUTO:
        return _BY_AUTO[entry.action], False
    usable = len(own.encode()) <= _MAX_BY_BYTES
    return (own if own and usable else _BY_DEFAULT.get(line.number, "")), not usable


def _utc(moment: datetime) -> datetime:
    """Return a moment in UTC. asyncpg reads infinity as the greatest datetime, without a zone."""
    if moment.tzinfo is UTC:
        return moment
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:  # within a day of the first or the last one there is
        return moment.replace(tzinfo=UTC)
