"""The event catalogue: the 41 events on 42 event lines, and the action codes that are no events, as data."""

from __future__ import annotations

from importlib.resources import files

import msgspec


class Pair(msgspec.Struct, frozen=True):
    """One `key=value` of an event's eventdata, taken from the row's data by a dotted path."""

    key: str
    path: str
    format: str = "text"  # text | money (cents to 0.00) | minutes_since | month_day


class EventLine(msgspec.Struct, frozen=True):
    """A line of the vendor's event table. The event lines 16 and 35 are one event."""

    number: int = msgspec.field(name="line")
    slug: str
    display: str
    ac_name: str
    pct: float  # share of all entries, in percent; for the generator
    actor: tuple[str, ...]
    actions: tuple[str, ...]
    legacy: tuple[str, ...]
    eventdata: tuple[Pair, ...]
    effects: tuple[str, ...]
    message: str  # an example row's
    data: dict[str, object]  # an example row's
    example_eventdata: str
    note: str = ""


class EventCatalog(msgspec.Struct, frozen=True):
    """`events.json`, read once."""

    events: tuple[EventLine, ...]
    sync_only: tuple[str, ...]
    noise: tuple[str, ...]  # codes, or `prefix.*`

    def ac_names(self) -> list[str]:
        """Return the 41 event names at ActiveCampaign, in the order of the event lines."""
        return list(dict.fromkeys(line.ac_name for line in self.events))


CATALOG = msgspec.json.decode(
    files("kiva_stream.model").joinpath("events.json").read_bytes(), type=EventCatalog
)
