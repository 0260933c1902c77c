"""The ids of what contacts and orders refer to at ActiveCampaign, looked up by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.listings import read_pages, read_rows
from kiva_stream.errors import SettingsError
from kiva_stream.model.account_ids import AccountIds
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.settings.sections import ActiveCampaignSettings

T = TypeVar("T")

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


class AccountField(msgspec.Struct, frozen=True):
    """A field of the account."""

    id: int
    title: str = ""
    type: str = ""


class AccountTag(msgspec.Struct, frozen=True):
    """A tag of the account."""

    id: int
    tag: str = ""
    type: str = msgspec.field(name="tagType", default=TAG_TYPE)


class AccountList(msgspec.Struct, frozen=True):
    """A list of the account."""

    id: int
    name: str = ""
    stringid: str = ""


class Fields(NamedTuple):
    """The fields of the account."""

    rows: Sequence[AccountField]
    shown: frozenset[int]  # on every contact

    def find(self, title: str, kind: str) -> AccountField | None:
        """Return the field of a title and a type, None if there is none."""
        return named((row for row in self.rows if row.type == kind), title, by="title")

    def of_another_type(self, title: str, kind: str) -> AccountField | None:
        """Return a field that has the title, but another type; None if there is none."""
        return named((row for row in self.rows if row.type != kind), title, by="title")


class _FieldRel(msgspec.Struct, frozen=True):
    field: int
    relid: int


class _FieldPage(msgspec.Struct):
    rows: list[AccountField] = msgspec.field(name="fields")
    relations: list[_FieldRel] = msgspec.field(name="fieldRels", default=[])

    def __len__(self) -> int:
        return len(self.rows)


class _Connection(msgspec.Struct, frozen=True):
    id: int
    service: str
    externalid: str


def named(rows: Iterable[T], name: str, *, by: str) -> T | None:
    """Return the row whose attribute `by` is that name: in the same letters, otherwise compared without case.

    ActiveCampaign does not document whether it tells `Open Order` from `open order`. What it has in other
    letters is used as it is, since it may refuse a second one.
    """
    alike = [row for row in rows if same_name(getattr(row, by), name)]
    return next((row for row in alike if getattr(row, by) == name), alike[0] if alike else None)


def same_name(one: str, other: str) -> bool:
    """Return whether two names are the same but for case and blanks around them."""
    return one.strip().casefold() == other.strip().casefold()


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
        known = await self.fields()
        fields = {name: row.id for name, key in self.field_keys.items() if (row := known.find(*key))}
        if not list_id or not connection_id or len(fields) < len(FIELD_TYPES) or len(tags) < len(WeekTag):
            raise SettingsError("the ActiveCampaign account is not set up; run `kiva-stream setup`")
        return AccountIds(
            list_id=list_id,
            fields=fields,
            tags={tag: row.id for tag, row in tags.items()},
            connection_id=connection_id,
            tag_names={tag: row.tag for tag, row in tags.items() if row.tag != tag},
        )

    async def list_id(self) -> int | None:
        """Return the id of the list, None if there is none."""
        found = named(await self.lists(), LIST_NAME, by="name")
        return found.id if found else None

    async def lists(self) -> list[AccountList]:
        """Return all lists of the account."""
        return await read_rows(self._client, "lists", list[AccountList])

    async def fields(self) -> Fields:
        """Return all fields of the account."""
        pages = await read_pages(self._client, "fields", _FieldPage)
        relations = (relation for page in pages for relation in page.relations)
        return Fields(
            [row for page in pages for row in page.rows],
            frozenset(relation.field for relation in relations if relation.relid == ALL_LISTS),
        )

    async def tags(self) -> dict[WeekTag, AccountTag]:
        """Return the week tags that there are."""
        rows = [row for row in await self.tags_of_all_types() if row.type == TAG_TYPE]
        return {tag: row for tag in WeekTag if (row := named(rows, tag.value, by="tag"))}

    async def tags_of_all_types(self) -> list[AccountTag]:
        """Return all tags that may be week tags, also those that ActiveCampaign's pages do not show."""
        return await read_rows(self._client, "tags", list[AccountTag], query={"search": TAG_WORD})

    async def connection_id(self) -> int | None:
        """Return the id of the site's connection, None if there is none."""
        query = {"filters[service]": SERVICE, "filters[externalid]": self._external_id}
        rows = await read_rows(self._client, "connections", list[_Connection], query=query)
        site = (SERVICE, self._external_id)
        return next((row.id for row in rows if (row.service, row.externalid) == site), None)
