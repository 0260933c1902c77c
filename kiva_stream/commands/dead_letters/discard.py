"""`dead-letters discard`: marks dead letters that need no attention any more."""

from __future__ import annotations

import msgspec

from kiva_stream.commands.dead_letters.selection import (
    DeadLetterRequest,
    count_by_reason,
    select,
    site_dead_letters,
)
from kiva_stream.settings.sections import Settings
from kiva_stream.state.store import Store


class DiscardReport(msgspec.Struct, frozen=True):
    """How many dead letters were discarded now."""

    discarded: int


async def discard(settings: Settings, request: DeadLetterRequest) -> DiscardReport:
    """Mark dead letters as discarded: they stay dead.

    Raises SettingsError when there is none at a named place, SourceError, CheckpointError.
    """
    async with Store.open(settings.state) as store:
        found = await site_dead_letters(settings, store)
        selection = await select(settings, found, request)
        marked = await found.discard(selection.of_entries)
        return DiscardReport(marked + await found.discard_refused_orders(selection.of_orders))


async def count_undiscarded(settings: Settings, request: DeadLetterRequest) -> int:
    """Return how many dead letters `discard` would mark. Raises as `discard`."""
    async with Store.open(settings.state) as store:
        found = await site_dead_letters(settings, store)
        counts = await count_by_reason(found, await select(settings, found, request))
        return sum(each.count - each.discarded for each in counts)
