"""The order of ids: whether those of a log that is read by id go on, or have begun anew."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import datetime

from kiva_stream.errors import SettingsError
from kiva_stream.model.checkpoint import SavedCheckpoint
from kiva_stream.model.entries import Entry
from kiva_stream.model.positions import Position
from kiva_stream.observability.incidents import Incidents
from kiva_stream.runtime.shop import Shop
from kiva_stream.source.horizon import Horizon

REPORTER = "ids"
LOOK_BETWEEN_EVERY_S = 600.0


class IdOrder:
    """Keeps up to when the entries that were read by id were inserted, and finds ids that began anew since.

    With a horizon there is nothing to find. At first no entry was inserted after `read_by`.
    """

    def __init__(self, horizon: Horizon, read_by: datetime, incidents: Incidents) -> None:
        self._horizon = horizon
        self._incidents = incidents
        self._read_by = read_by  # by the shop's clock
        self._between: str | None = None
        self._looked_between_at = -math.inf  # by the monotonic clock

    def note_read(self, entries: Sequence[Entry]) -> None:
        """Note entries that were read."""
        if not self._horizon.is_used:
            self._read_by = max(self._read_by, *(entry.inserted_at for entry in entries))

    async def has_restarted(self, after: Position) -> bool:
        """Return whether ids have begun anew, so that nothing must be read on above `after`.

        It is an incident, and so are entries that appeared between others, too late to be read; the log is
        read on above those. Raises SourceError.
        """
        why = await self._horizon.restart(after, self._read_by)
        if why is None and time.monotonic() - self._looked_between_at >= LOOK_BETWEEN_EVERY_S:
            self._looked_between_at = time.monotonic()
            self._between = await self._horizon.inserted_later(after, self._read_by)
        if found := why or self._between:
            self._incidents.open("horizon", found, REPORTER)
        else:
            self._incidents.resolve("horizon", REPORTER)
        return why is not None


def read_by(saved: SavedCheckpoint, now: datetime) -> datetime:
    """Return the moment after which no entry at or below the watermark was inserted, by the shop's clock.

    `now` is that clock when the checkpoint was read.
    """
    return now - saved.moved_ago


async def require_ids_go_on(shop: Shop, saved: SavedCheckpoint, incidents: Incidents) -> None:
    """Raise SettingsError if the ids of a log that is read by id have begun anew. Raises SourceError."""
    id_order = IdOrder(shop.horizon, read_by(saved, await shop.changes.now()), incidents)
    if await id_order.has_restarted(saved.watermark):
        raise SettingsError(next(each.why for each in incidents.all() if each.kind == "horizon"))


async def restart_since(shop: Shop, saved: SavedCheckpoint) -> str | None:
    """Return a sentence about ids that began anew, or entries that came too late to be read, or None.

    Raises SourceError.
    """
    arguments = saved.watermark, read_by(saved, await shop.changes.now())
    return await shop.horizon.restart(*arguments) or await shop.horizon.inserted_later(*arguments)
