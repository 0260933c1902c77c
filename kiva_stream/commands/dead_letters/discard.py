"""`dead-letters discard`: marks dead letters that need no attention any more."""

from __future__ import annotations

import msgspec

from kiva_stream.commands.dead_letters.selection import DeadLetterRequest, select
from kiva_stream.settings.sections import Settings
from kiva_stream.state.store import Store


class DiscardReport(msgspec.Struct, frozen=True):
    """How many dead letters were discarded now."""

    discarded: int
    held: int = 0  # records that count as refused from their next try on


async def discard(settings: Settings, request: DeadLetterRequest) -> DiscardReport:
    """Mark dead letters as discarded: they stay dead. What is held of the selected becomes dead.

    Raises SettingsError when there is none at a named place, SourceError, CheckpointError.
    """
    async with Store.open_migrated(settings.state) as store:
        selected = await select(settings, store, request)
        entries = await selected.dead_letters.discard(selected.of_entries)
        orders = await selected.dead_letters.discard_refused_orders(selected.of_orders)
        held = await selected.held.discard(selected.of_held)
        return DiscardReport(entries + orders, held)


async def count_undiscarded(settings: Settings, request: DeadLetterRequest) -> DiscardReport:
    """Return what `discard` would do. Raises as `discard`."""
    async with Store.open_migrated(settings.state) as store:
        selected = await select(settings, store, request)
        letters = sum(each.count - each.discarded for each in await selected.count_by_reason())
        held = await selected.held.count_undiscarded(selected.of_held)
        return DiscardReport(letters, held)
