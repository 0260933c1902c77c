"""Week tags: put on a contact and taken off again, one link at a time, behind all other calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from kiva_stream.activecampaign.account import AccountIds
from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.replies import Reply, linked, links, unlinked
from kiva_stream.model import AcId, WeekTag

T = TypeVar("T")


class TagLinks:
    """Implements `ports.WeekTags` for one account, whose tags are `ids`."""

    def __init__(self, client: Client, ids: AccountIds) -> None:
        self._client = client
        self._ids = ids.tags
        self._tags = {number: tag for tag, number in ids.tags.items()}

    async def on(self, contact: AcId) -> dict[WeekTag, int]:
        """Return the week tags on a contact: see `ports.WeekTags`. Tags of others are passed over."""
        found = await self._call("GET", f"/contacts/{contact}/contactTags", None, links)
        return {self._tags[link.tag]: link.id for link in found if link.tag in self._tags}

    async def add(self, contact: AcId, tag: WeekTag) -> int:
        """Put a tag on a contact: see `ports.WeekTags`. One that it has keeps its link."""
        body = {"contactTag": {"contact": contact, "tag": self._ids[tag]}}
        return await self._call("POST", "/contactTags", body, linked)

    async def remove(self, link: int) -> None:
        """Take a tag off a contact: see `ports.WeekTags`."""
        await self._call("DELETE", f"/contactTags/{link}", None, unlinked)

    async def _call(self, method: str, path: str, body: object, read: Callable[[Reply], T]) -> T:
        return await self._client.call(method, path, body, read, yields=True)
