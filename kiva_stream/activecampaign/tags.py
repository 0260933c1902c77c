"""Week tags of a contact, read, added and removed one at a time, at low priority.

Adding alone has normal priority: a contact whose old tag was removed should not stay without one.
"""

from __future__ import annotations

import math

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.listings import read_listing_of_contact
from kiva_stream.activecampaign.responses.tags import parse_added_tag, parse_removed_tag, parse_tag_links
from kiva_stream.model.account_ids import AccountIds
from kiva_stream.model.ids import AcId
from kiva_stream.model.week_tags import WeekTag


class TagLinks:
    """Implements `ports.destination.WeekTags` for one account, whose tags are in `ids`."""

    def __init__(self, client: Client, ids: AccountIds) -> None:
        self._client = client
        self._ids = ids.tags
        self._tags = {number: tag for tag, number in ids.tags.items()}

    async def links(
        self, contact: AcId, *, tries: float = math.inf, is_suspect: bool = False
    ) -> dict[WeekTag, int]:
        """Return the week tags on a contact; other tags are left out."""
        path = f"/contacts/{contact}/contactTags"
        links = await read_listing_of_contact(
            self._client, path, parse_tag_links, low_priority=True, tries=tries, is_suspect=is_suspect
        )
        return {self._tags[link.tag]: link.id for link in links if link.tag in self._tags}

    async def add(
        self, contact: AcId, tag: WeekTag, *, tries: float = math.inf, is_suspect: bool = False
    ) -> int:
        """Add a tag to a contact; if it is there, ActiveCampaign returns the link that it has."""
        body = {"contactTag": {"contact": contact, "tag": self._ids[tag]}}
        return await self._client.call(
            "POST", "/contactTags", body, parse=parse_added_tag, tries=tries, is_suspect=is_suspect
        )

    async def remove(self, link: int, *, tries: float = math.inf, is_suspect: bool = False) -> None:
        """Delete the link of a tag to a contact."""
        path = f"/contactTags/{link}"
        await self._client.call(
            "DELETE", path, parse=parse_removed_tag, low_priority=True, tries=tries, is_suspect=is_suspect
        )
