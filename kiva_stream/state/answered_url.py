"""Whether ActiveCampaign ever answered at a URL (the table `answered_url`)."""

from __future__ import annotations

from contextlib import suppress

from kiva_stream.errors import CheckpointError
from kiva_stream.state.store import Store


class StoredAnsweredUrl:
    """Implements the port AnsweredUrl; `read` makes one."""

    def __init__(self, store: Store, url: str, *, is_known: bool) -> None:
        self.is_known = is_known
        self._store = store
        self._url = url

    @classmethod
    async def read(cls, store: Store, url: str) -> StoredAnsweredUrl:
        """Return what the state knows of this URL. Raises CheckpointError."""
        return cls(store, url, is_known=bool(await store.fetch("answered_url", url)))

    async def record(self) -> None:
        """Insert the URL, unless it is known. If the state is away, only this process knows it."""
        if not self.is_known:
            self.is_known = True
            with suppress(CheckpointError):
                await self._store.fetch("insert_answered_url", self._url)
