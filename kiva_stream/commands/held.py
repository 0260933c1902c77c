"""Held records as reports show them, and the sentence about what is left parked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from kiva_stream.model.bounds import place_text
from kiva_stream.model.held_records import HeldKey, HeldKind
from kiva_stream.model.ids import OrderId
from kiva_stream.state.held_records import ListedHeld

_WORDS = {
    HeldKind.CONTACT: "the contact",
    HeldKind.LIST: "the place on the list",
    HeldKind.EVENT: "an event",
    HeldKind.TAG: "the week tag",
}


class HeldRow(msgspec.Struct, frozen=True):
    """A held record."""

    what: str  # contact | list | event | tag | order:ID
    customers: list[str]  # of its contact
    since: datetime
    attempts: int
    next_try: datetime | None  # None: a replay alone tries it
    parked: int  # entries behind it
    reply: str


def held_rows(held: Sequence[ListedHeld]) -> list[HeldRow]:
    """Return held records as rows."""
    return [
        HeldRow(
            what=name_of(each.key),
            customers=list(map(str, each.customers)),
            since=each.since,
            attempts=each.attempts,
            next_try=each.next_try,
            parked=each.parked,
            reply=each.reply,
        )
        for each in held
    ]


def name_of(key: HeldKey) -> str:
    """Return what is held: an order by its place, of a contact its kind."""
    return place_text(OrderId(key.id)) if key.kind is HeldKind.ORDER else key.kind


def left_sentence(held: Sequence[ListedHeld], parked: int) -> str | None:
    """Return the sentence about what a backfill leaves to a later run, None if that is nothing.

    `parked` are all parked entries: those of contacts of which something is held, and others.
    """
    if not held and not parked:
        return None
    behind = {tuple(each.customers): each.parked for each in held if each.parked}  # by contact
    others = max(0, parked - sum(behind.values()))
    parts = []
    if behind:
        whose = f"{len(behind):,} customer{'' if len(behind) == 1 else 's'}"
        parts.append(f"{_entries(parked - others)} of {whose} {_are(parked - others)} parked: {_why(held)}")
    elif held:
        parts.append(f"{_why(held)}; no entry waits for that")
    if others:
        parts.append(f"{_entries(others)} {_are(others)} parked{' for other reasons' if held else ''}")
    return f"{'; '.join(parts)}; {_next_try(held)}."


def _why(held: Sequence[ListedHeld]) -> str:
    oldest = held[0]
    of = f" of customer {oldest.customers[0]}" if oldest.customers else ""
    more = f", and {len(held) - 1:,} more" if len(held) > 1 else ""
    what = _WORDS.get(oldest.key.kind) or name_of(oldest.key)
    return f"ActiveCampaign does not take {what}{of} ({oldest.reply}){more}"


def _next_try(held: Sequence[ListedHeld]) -> str:
    """Return what tries again; what has no next try is tried by a replay alone."""
    by_replay = sum(each.next_try is None for each in held)
    if held and by_replay == len(held):
        return "`dead-letters replay` tries again"
    but_for = f", but for {by_replay:,} that only `dead-letters replay` tries" if by_replay else ""
    return f"`follow`, or `backfill` again, tries them{but_for}"


def _entries(count: int) -> str:
    return f"{count:,} {'entry' if count == 1 else 'entries'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
