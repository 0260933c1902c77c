"""The status of a site: its checkpoint and tallies, which can be read while a process works the site."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec

from kiva_stream.model.event_catalog import CATALOG
from kiva_stream.model.ids import CustomerId
from kiva_stream.model.incidents import Incident
from kiva_stream.model.outcomes import Outcome
from kiva_stream.model.positions import Position
from kiva_stream.state.held_records import ListedHeld, StoredHeldRecords
from kiva_stream.state.incidents import read_incidents
from kiva_stream.state.store import Store

EVENT_NAMES = {str(line.number): line.ac_name for line in CATALOG.events}


class SiteStatus(msgspec.Struct, frozen=True):
    """How far a site has come. The counts are of all entries that have their outcome."""

    account: str
    phase: str
    since: str
    events_since: datetime | None
    counted_from: Position
    watermark: Position
    high_water_mark: Position | None
    entries: int | None
    pending: int
    parked: int
    committed_at: datetime
    outcomes: dict[Outcome, int]
    events: dict[str, int]  # by name
    notes: dict[str, int]
    contacts: dict[str, int]  # by status
    not_on_list: dict[str, int]  # linked contacts that may not be on the list, by why
    tags_due: int  # contacts whose week tag is due
    orders: dict[str, int]  # sent, refused
    incidents: list[Incident]
    held: list[ListedHeld]  # the oldest first
    erased: list[CustomerId]  # by the shop, while their contact is still at ActiveCampaign
    held_by: str | None  # host and pid of the process that works the site
    held_since: datetime | None
    caught_up_at: datetime | None  # every entry that was readable at this moment has its outcome


class SiteHolder(NamedTuple):
    """The process that works a site, since when."""

    name: str  # its host and pid
    since: datetime


async def read_holder(store: Store, site_id: int) -> SiteHolder | None:
    """Return who works a site just now. Raises CheckpointError."""
    for row in await store.fetch("site_holder", site_id):
        return SiteHolder(row["holder"], row["taken_at"])
    return None


async def read_status(store: Store, site_id: int) -> SiteStatus | None:
    """Return how far a site has come, None when it has no checkpoint. Raises CheckpointError."""
    for row in await store.fetch("checkpoint", site_id):
        tallies = await _tallies(store, site_id, row["ahead"])
        (due,) = await store.fetch("count_due", site_id)
        counted_from = Position(row["counted_txid"], row["counted_id"])
        (parked,) = await store.fetch("parked_above", site_id, *counted_from)
        holder = await read_holder(store, site_id)
        return SiteStatus(
            account=row["account"],
            phase=row["phase"],
            since=row["since"],
            events_since=row["events_since"],
            counted_from=counted_from,
            watermark=Position(row["watermark_txid"], row["watermark_id"]),
            high_water_mark=None if row["high_id"] is None else Position(row["high_txid"], row["high_id"]),
            entries=row["entries"],
            pending=row["pending"],
            parked=parked["count"],
            committed_at=row["committed_at"],
            outcomes={
                Outcome(*name.split(" ")): count for name, count in tallies["outcome"].items() if count
            },
            events=_by_event_name(tallies["event"]),
            notes=tallies["note"],
            contacts=tallies["contact"],
            not_on_list=await _not_on_list(store, site_id),
            tags_due=due["count"],
            orders={"sent": 0, "refused": 0} | tallies["order"],
            incidents=await read_incidents(store, site_id),
            held=await StoredHeldRecords(store, site_id).listed(),
            erased=[row["customer_id"] for row in await store.fetch("erased_customers", site_id)],
            held_by=holder.name if holder else None,
            held_since=holder.since if holder else None,
            caught_up_at=row["caught_up_at"],
        )
    return None


async def _tallies(store: Store, site_id: int, ahead: str) -> dict[str, dict[str, int]]:
    """Return the tallies by kind and name; `ahead` is what is counted above the watermark."""
    tallies: dict[str, dict[str, int]] = {
        kind: {} for kind in ("outcome", "event", "note", "contact", "order")
    }
    rows = msgspec.json.decode(ahead, type=list[tuple[str, str, int]])
    for kind, name, count in (*await store.fetch("tallies", site_id), *rows):
        tallies[kind][name] = tallies[kind].get(name, 0) + count
    return tallies


async def _not_on_list(store: Store, site_id: int) -> dict[str, int]:
    rows = await store.fetch("not_on_list", site_id)
    return {row["not_on_list"]: row["count"] for row in rows}


def _by_event_name(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts of event lines by the event's name. Two lines may be one event."""
    events: dict[str, int] = {}
    for event_line, count in counts.items():
        name = EVENT_NAMES[event_line]
        events[name] = events.get(name, 0) + count
    return events
