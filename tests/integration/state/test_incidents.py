"""What is wrong at a site, in the state schema."""

from __future__ import annotations

from datetime import UTC, datetime

from kiva_stream.model.incidents import Incident
from kiva_stream.state.incidents import SiteIncidents, read_incidents
from kiva_stream.state.store import Store

EARLY, LATE = datetime(2018, 3, 4, tzinfo=UTC), datetime(2018, 3, 5, tzinfo=UTC)
KEY, STATE = Incident("key", LATE, "403"), Incident("state", EARLY, "the disk is full")


async def test_the_state_says_just_what_is_wrong_at_each_site(store: Store) -> None:
    site, other = SiteIncidents(store, 1), SiteIncidents(store, 2)
    await site.keep([KEY, STATE])
    await other.keep([STATE])
    assert await read_incidents(store, 1) == [STATE, KEY]
    again = Incident("key", LATE, "401")
    await site.keep([again])
    assert await read_incidents(store, 1) == [again]
    await site.keep([])
    assert await read_incidents(store, 1) == []
    assert await read_incidents(store, 2) == [STATE]
