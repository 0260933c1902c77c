"""The classifier: decides what an entry is. It is pure and total: no clock, no I/O, and it never raises."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import compress

from kiva_stream.events.matching import (
    CANCELLED_BY_CUSTOMER,
    CANCELLED_BY_SHOP,
    event_line_of_action,
    event_line_of_text,
    is_noise,
    is_sync_only,
)
from kiva_stream.events.payload import order_of, pairs_of, render
from kiva_stream.model.classifications import Classification, Event, Noise, Reject, SyncOnly
from kiva_stream.model.entries import Entry
from kiva_stream.model.event_catalog import EventLine
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.site import Site

LOG_IN_LINES = frozenset(range(3, 8))  # no event if staff did it
VISITOR_LINES = frozenset({3, 20, 40})  # visitors without an account cause these, too

_MAX_CLOCK_SKEW = timedelta(minutes=5)
_MAX_ACTION_IN_NOTE = 64
_NUMBER = re.compile(r"\d+")  # replaced, so that actions with ids in them share a note
_MAX_BY_BYTES = 32  # keeps the tail of eventdata, which is never left out, far below 250 bytes

_BY_AUTO = {"customer.cancel.auto": "auto"}
_BY_DEFAULT = {CANCELLED_BY_CUSTOMER: "customer", CANCELLED_BY_SHOP: "admin"}

_NOISE = Noise()
_UNKNOWN_TEXT = Noise(notes=("unknown_text",))


class Classifier:
    """Classifies the entries of one site.

    A classification has notes of its own, beside those of its entry. Entries inserted before `events_since`
    are noise if they would be events; later entries still sync their contacts.
    """

    def __init__(self, site: Site, events_since: datetime | None = None) -> None:
        self._site = site
        self._events_since = events_since

    def classify(self, entry: Entry) -> Classification:
        """Return the classification of an entry: a structured one by its action, a legacy one by its text."""
        if entry.action is None:
            event_line = event_line_of_text(entry.message, entry.customer.name if entry.customer else "")
            return _UNKNOWN_TEXT if event_line is None else self._event(entry, event_line)
        event_line = event_line_of_action(entry.action)
        if event_line is not None:
            return self._event(entry, event_line)
        return _NOISE if is_noise(entry.action) else self._sync_only(entry, entry.action)

    def _event(self, entry: Entry, event_line: EventLine) -> Classification:
        refusal = self._refusal(entry, event_line)
        if refusal is not None:
            return refusal
        if self._events_since is not None and _utc(entry.inserted_at) < self._events_since:
            return Noise(Reason.BEFORE_EVENTS_SINCE)
        at, skewed = self._at(entry)
        values, bad, order = pairs_of(event_line, None if entry.action is None else entry.data, at)
        by, bad_by = _by(entry, event_line, values.pop("by", ""))
        eventdata, cut = render(values, by=by, at=at, log_id=entry.position.id)
        notes = tuple(compress(("clock", "bad_data", "cut"), (skewed, bad or bad_by, cut)))
        return Event(event_line, eventdata, notes, order)

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

    def _refusal(self, entry: Entry, event_line: EventLine | None) -> Noise | Reject | None:
        """Return the classification of an entry that must not be delivered, or None.

        `event_line` is None if the entry is no event.
        """
        customer = entry.customer
        if customer is None:
            return _without_customer(entry, event_line)
        if customer.site_id != self._site.id:
            return Reject(Reason.WRONG_SITE)
        if customer.erased:
            return Noise(Reason.ERASED)
        if customer.is_test:
            return Noise(Reason.TEST)
        if event_line is not None and event_line.number in LOG_IN_LINES and _by_staff(entry):
            return Noise(Reason.STAFF_LOGIN)
        return Reject(Reason.NO_EMAIL) if customer.email is None else None

    def _at(self, entry: Entry) -> tuple[datetime, bool]:
        """Return when it happened, in UTC, and whether the clock was wrong: then when it was inserted."""
        occurred, inserted = _utc(entry.occurred_at), _utc(entry.inserted_at)
        skewed = occurred - inserted > _MAX_CLOCK_SKEW or occurred < self._site.launched_at
        return (inserted, True) if skewed else (occurred, False)


def _without_customer(entry: Entry, event_line: EventLine | None) -> Noise | Reject:
    if entry.customer_id is not None:
        return Noise(Reason.ERASED)
    if event_line is None:
        return _NOISE
    if entry.actor_type == "visitor" or event_line.number in VISITOR_LINES:
        return Noise(Reason.NO_ACCOUNT)
    return Reject(Reason.NO_CUSTOMER)


def _by_staff(entry: Entry) -> bool:
    return entry.actor_type == "admin" or bool(entry.admin_user)


def _by(entry: Entry, event_line: EventLine, own: str) -> tuple[str, bool]:
    """Return who acted ("" if it is not known), and whether what the row itself says of it is unusable."""
    if _by_staff(entry):
        return "admin", False
    if entry.action is None:
        return ("admin" if event_line.number == CANCELLED_BY_SHOP else ""), False
    if entry.action in _BY_AUTO:
        return _BY_AUTO[entry.action], False
    usable = len(own.encode()) <= _MAX_BY_BYTES
    return (own if own and usable else _BY_DEFAULT.get(event_line.number, "")), not usable


def _utc(moment: datetime) -> datetime:
    """Return a moment in UTC. asyncpg reads infinity as the greatest datetime, without a timezone."""
    if moment.tzinfo is UTC:
        return moment
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:  # within a day of the first or the last datetime
        return moment.replace(tzinfo=UTC)
