"""Whether ActiveCampaign ever answered at a URL, as the state keeps it."""

from __future__ import annotations

import asyncpg

from kiva_stream.state.answered_url import StoredAnsweredUrl
from kiva_stream.state.store import Store

URL, OTHER = "https://a.example/api/3", "https://b.example/api/3"


async def is_known(store: Store, url: str) -> bool:
    """Return what a process that begins now knows of a URL."""
    return (await StoredAnsweredUrl.read(store, url)).is_known


async def test_a_url_is_known_to_later_processes_once_it_was_answered_and_no_other_is(store: Store) -> None:
    assert not await is_known(store, URL)
    first = await StoredAnsweredUrl.read(store, URL)
    for _ in range(2):
        await first.record()
        assert first.is_known
    assert await is_known(store, URL)
    assert not await is_known(store, OTHER)


async def test_two_processes_may_record_a_url(store: Store) -> None:
    one, other = [await StoredAnsweredUrl.read(store, URL) for _ in range(2)]
    await one.record()
    await other.record()
    assert other.is_known


async def test_a_state_that_cannot_be_written_ends_nothing(store: Store, look: asyncpg.Connection) -> None:
    url = await StoredAnsweredUrl.read(store, URL)
    await look.execute("DROP TABLE kiva_stream.answered_url")
    await url.record()
    assert url.is_known
