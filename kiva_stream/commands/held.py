"""Held records as reports show them, and the sentence about what is left parked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from kiva_stream.model.bounds import place_text
from kiva_stream.model.held_records import HeldKey, HeldKind
from kiva_stream.model.ids import OrderId
from kiva_stream.state.held_records import ListedHeld


class HeldRow(msgspec.Struct, frozen=True):
    """A held record."""

    what: str  # contact | list | event | tag | order:ID
    customers: list[str]  # of its contact
    since: datetime
    attempts: int
    next_try: datetime | None  # None: when it is asked for
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
    """Return the sentence about what a backfill leaves to a later run, None if that is nothing."""
    if not held and not parked:
        return None
    customers = {each.customers[0] for each in held if each.customers}
    entries = f"{parked:,} {'entry' if parked == 1 else 'entries'}"
    whose = f" of {len(customers):,} customer{'' if len(customers) == 1 else 's'}" if customers else ""
    why = ""
    if held:
        oldest = held[0]
        of = f" of customer {oldest.customers[0]}" if oldest.customers else ""
        more = f", and {len(held) - 1:,} more" if len(held) > 1 else ""
        why = f": ActiveCampaign does not take {name_of(oldest.key)}{of} ({oldest.reply}){more}"
    are = "is" if parked == 1 else "are"
    return f"{entries}{whose} {are} parked{why}; `follow`, or `backfill` again, tries them."
