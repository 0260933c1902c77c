"""The stored incidents of a site (the table `trouble`): what its process last found wrong."""

from __future__ import annotations

from collections.abc import Collection

from kiva_stream.model.incidents import Incident
from kiva_stream.state.store import Store, columns


class SiteIncidents:
    """Implements the port IncidentStore."""

    def __init__(self, store: Store, site_id: int) -> None:
        self._store = store
        self._site_id = site_id

    async def persist(self, incidents: Collection[Incident]) -> None:
        """Replace the rows of the site."""
        rows = [(each.kind, each.since, each.why) for each in incidents]
        await self._store.fetch("persist_incidents", self._site_id, *columns(rows, 3))


async def read_incidents(store: Store, site_id: int) -> list[Incident]:
    """Return the incidents of a site, the oldest first. Raises CheckpointError."""
    return [Incident(**row) for row in await store.fetch("incidents", site_id)]
