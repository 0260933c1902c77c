"""What is wrong at a site just now, as the process that works it sees it: implements the port TroubleRows."""

from __future__ import annotations

from collections.abc import Collection

from kiva_stream.model.incidents import Incident
from kiva_stream.state.store import Store, columns


class SiteIncidents:
    """The troubles of one site. Every call raises CheckpointError."""

    def __init__(self, store: Store, site_id: int) -> None:
        self._store = store
        self._site_id = site_id

    async def keep(self, troubles: Collection[Incident]) -> None:
        """Have the state say just this."""
        rows = [(each.kind, each.since, each.why) for each in troubles]
        await self._store.fetch("keep_troubles", self._site_id, *columns(rows, 3))


async def read_incidents(store: Store, site_id: int) -> list[Incident]:
    """Return what is wrong at a site, what began first at first. Raises CheckpointError."""
    return [Incident(**row) for row in await store.fetch("troubles", site_id)]
