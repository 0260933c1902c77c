"""What is wrong at a site, in the state schema."""

from __future__ import annotations

from datetime import UTC, datetime

from kiva_stream.model import Trouble
from kiva_stream.state.store import Store
from kiva_stream.state.troubles import TroubleStates, read_troubles

EARLY, LATE = datetime(2018, 3, 4, tzinfo=UTC), datetime(2018, 3, 5, tzinfo=UTC)
KEY, STATE = Trouble("key", LATE, "403"), Trouble("state", EARLY, "the disk is full")


async def test_the_state_says_just_what_is_wrong_at_each_site(store: Store) -> None:
    site, other = TroubleStates(store, 1), TroubleStates(store, 2)
    await site.keep([KEY, STATE])
    await other.keep([STATE])
    assert await read_troubles(store, 1) == [STATE, KEY]
    again = Trouble("key", LATE, "401")
    await site.keep([again])
    assert await read_troubles(store, 1) == [again]
    await site.keep([])
    assert await read_troubles(store, 1) == []
    assert await read_troubles(store, 2) == [STATE]
