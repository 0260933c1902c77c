"""The ids of what contacts and orders refer to at ActiveCampaign, looked up by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.listings import read_pages, read_rows
from kiva_stream.errors import SettingsError
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.settings.sections import ActiveCampaignSettings

LIST_NAME = "all customers"
FIELD_TYPES = {  # by the attribute of DesiredContact
    "customer_id": "text",
    "status": "text",
    "box_type": "text",
    "next_delivery": "date",
    "cancel_date": "date",
    "birthday": "date",
}
TAG_TYPE = "contact"  # ActiveCampaign's pages do not show tags of another type
TAG_WORD = "order"  # in the name of each week tag: one search finds them all
SERVICE = "kiva_logic"  # with the site's id it identifies the connection
ALL_LISTS = 0  # the relid that shows a field on every contact


class AccountIds(NamedTuple):
    """The ids that contacts and orders refer to."""

    list_id: int  # of the list `all customers`
    fields: Mapping[str, int]  # by the attribute of DesiredContact
    tags: Mapping[WeekTag, int]
    connection_id: int  # between the account and the shop, of its orders


class FieldIds(NamedTuple):
    """The fields of the account."""

    by_title_and_type: Mapping[tuple[str, str], int]
    shown: frozenset[int]  # on every contact


class _List(msgspec.Struct, frozen=True):
    id: int
    name: str = ""


class _Field(msgspec.Struct, frozen=True):
    id: int
    title: str = ""
    type: str = ""


class _FieldRel(msgspec.Struct, frozen=True):
    field: int
    relid: int


class _FieldPage(msgspec.Struct):
    rows: list[_Field] = msgspec.field(name="fields")
    relations: list[_FieldRel] = msgspec.field(name="fieldRels", default=[])

    def __len__(self) -> int:
        return len(self.rows)


class _Tag(msgspec.Struct, frozen=True):
    id: int
    tag: str = ""
    type: str = msgspec.field(name="tagType", default=TAG_TYPE)


class _Connection(msgspec.Struct, frozen=True):
    id: int
    service: str
    externalid: str


def field_titles(settings: ActiveCampaignSettings) -> dict[str, str]:
    """Return the titles of the fields, by the attribute of DesiredContact."""
    return {name: getattr(settings, f"field_{name}") for name in FIELD_TYPES}


class AccountIdLookup:
    """Looks up the ids of an account for a site; `titles` are those of the fields, by attribute.

    Every call raises TryLater when the client's patience is over, and AccountRefused.
    """

    def __init__(self, client: Client, site_id: int, titles: Mapping[str, str]) -> None:
        self._client = client
        self._external_id = str(site_id)
        self.field_keys = {name: (titles[name], kind) for name, kind in FIELD_TYPES.items()}

    async def all(self) -> AccountIds:
        """Return all ids. Raises SettingsError if any is missing."""
        list_id, tags, connection_id = await self.list_id(), await self.tags(), await self.connection_id()
        known = (await self.fields()).by_title_and_type
        fields = {name: known[key] for name, key in self.field_keys.items() if key in known}
        if not list_id or not connection_id or len(fields) < len(FIELD_TYPES) or len(tags) < len(WeekTag):
            raise SettingsError("the ActiveCampaign account is not set up; run `kiva-stream setup`")
        return AccountIds(list_id, fields, tags, connection_id)

    async def list_id(self) -> int | None:
        """Return the id of the list of this exact name, None if there is none."""
        rows = await read_rows(self._client, "lists", list[_List])
        return next((row.id for row in rows if row.name == LIST_NAME), None)

    async def fields(self) -> FieldIds:
        """Return all fields of the account."""
        pages = await read_pages(self._client, "fields", _FieldPage)
        relations = (relation for page in pages for relation in page.relations)
        return FieldIds(
            {(row.title, row.type): row.id for page in pages for row in page.rows},
            frozenset(relation.field for relation in relations if relation.relid == ALL_LISTS),
        )

    async def tags(self) -> dict[WeekTag, int]:
        """Return the week tags that there are."""
        rows = await read_rows(self._client, "tags", list[_Tag], {"search": TAG_WORD})
        known = {row.tag: row.id for row in rows if row.type == TAG_TYPE}
        return {tag: known[tag] for tag in WeekTag if tag in known}

    async def connection_id(self) -> int | None:
        """Return the id of the site's connection, None if there is none."""
        query = {"filters[service]": SERVICE, "filters[externalid]": self._external_id}
        rows = await read_rows(self._client, "connections", list[_Connection], query)
        site = (SERVICE, self._external_id)
        return next((row.id for row in rows if (row.service, row.externalid) == site), None)
