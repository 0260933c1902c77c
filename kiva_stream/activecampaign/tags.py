"""Week tags: put on a contact and taken off again, one link at a time, behind all other calls.

But a tag is put on with the others: who has lost the old one is not to wait for it behind them.
"""

from __future__ import annotations

from kiva_stream.activecampaign.account import AccountIds
from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.responses.tags import parse_added_tag, parse_removed_tag, parse_tag_links
from kiva_stream.model.ids import AcId
from kiva_stream.model.week_tags import WeekTag


class TagLinks:
    """Implements `ports.WeekTags` for one account, whose tags are `ids`."""

    def __init__(self, client: Client, ids: AccountIds) -> None:
        self._client = client
        self._ids = ids.tags
        self._tags = {number: tag for tag, number in ids.tags.items()}

    async def on(self, contact: AcId) -> dict[WeekTag, int]:
        """Return the week tags on a contact: see `ports.WeekTags`. Tags of others are passed over."""
        path = f"/contacts/{contact}/contactTags"
        found = await self._client.call("GET", path, None, parse_tag_links, yields=True)
        return {self._tags[link.tag]: link.id for link in found if link.tag in self._tags}

    async def add(self, contact: AcId, tag: WeekTag) -> int:
        """Put a tag on a contact: see `ports.WeekTags`. One that it has keeps its link."""
        body = {"contactTag": {"contact": contact, "tag": self._ids[tag]}}
        return await self._client.call("POST", "/contactTags", body, parse_added_tag)

    async def remove(self, link: int) -> None:
        """Take a tag off a contact: see `ports.WeekTags`."""
        await self._client.call("DELETE", f"/contactTags/{link}", None, parse_removed_tag, yields=True)
