"""The stored incidents of a site."""

from __future__ import annotations

from datetime import UTC, datetime

from kiva_stream.model.incidents import Incident
from kiva_stream.state.incidents import SiteIncidents, read_incidents
from kiva_stream.state.store import Store

EARLY, LATE = datetime(2018, 3, 4, tzinfo=UTC), datetime(2018, 3, 5, tzinfo=UTC)
KEY, STATE = Incident("key", LATE, "403"), Incident("state", EARLY, "the disk is full")


async def test_persisted_incidents_replace_the_earlier_ones_of_their_site_alone(store: Store) -> None:
    site, other = SiteIncidents(store, 1), SiteIncidents(store, 2)
    await site.persist([KEY, STATE])
    await other.persist([STATE])
    assert await read_incidents(store, 1) == [STATE, KEY]
    again = Incident("key", LATE, "401")
    await site.persist([again])
    assert await read_incidents(store, 1) == [again]
    await site.persist([])
    assert await read_incidents(store, 1) == []
    assert await read_incidents(store, 2) == [STATE]
