"""What kiva_stream needs to find in the account: read by `check`, created by `setup`, used by number."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import urlencode

import msgspec

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.events import register
from kiva_stream.activecampaign.responses.rest import Duplicate, parse_rest
from kiva_stream.errors import AccountRefused, Rejected, SettingsError
from kiva_stream.model.event_catalog import CATALOG
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.settings.sections import ActiveCampaignSettings

LIST_NAME = "all customers"
LIST_STRINGID = "all-customers"
FIELD_TYPES = {  # by the attribute of DesiredContact
    "customer_id": "text",
    "status": "text",
    "box_type": "text",
    "next_delivery": "date",
    "cancel_date": "date",
    "birthday": "date",
}
TAG_TYPE = "contact"  # a tag of another type, or of none, is hidden from people
TAG_DESCRIPTION = "Orders of the current week; kept by kiva_stream."
TAG_WORD = "order"  # in the name of each week tag: one search finds them all
SERVICE = "kiva_logic"
ALL_LISTS = 0  # the relid that shows a field on every contact
PAGE_ROWS = 100  # the most ActiveCampaign lists at a time


class AccountIds(NamedTuple):
    """What contacts and orders refer to by number at ActiveCampaign."""

    list_id: int  # of the list `all customers`
    fields: Mapping[str, int]  # by the attribute of DesiredContact
    tags: Mapping[WeekTag, int]
    connection_id: int  # of the shop's orders


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a site wants of its account; ActiveCampaign asks for the URLs and the reminder."""

    site_id: int
    site_name: str
    titles: Mapping[str, str]  # of the fields, by the attribute of DesiredContact
    sender_url: str  # the sender's website, on the list
    sender_reminder: str  # why people are on the list
    link_url: str  # the shop's page, on the connection
    logo_url: str  # on the connection; "": none


def field_titles(settings: ActiveCampaignSettings) -> dict[str, str]:
    """Return the titles of the fields, by the attribute of DesiredContact."""
    return {name: getattr(settings, f"field_{name}") for name in FIELD_TYPES}


class Step(NamedTuple):
    """Something the account lacks, and how it is created."""

    what: str
    create: Callable[[], Awaitable[object]]


class _Page(Protocol):
    """A page of a listing."""

    @property
    def rows(self) -> Sequence[object]: ...


P = TypeVar("P", bound=_Page)


class _Tracking(msgspec.Struct):
    enabled: bool


class _TrackingPage(msgspec.Struct):
    tracking: _Tracking = msgspec.field(name="eventTracking")


class _EventName(msgspec.Struct, frozen=True):
    name: str


class _EventNamePage(msgspec.Struct):
    rows: list[_EventName] = msgspec.field(name="eventTrackingEvents")


class _List(msgspec.Struct, frozen=True):
    id: int
    name: str = ""


class _ListPage(msgspec.Struct):
    rows: list[_List] = msgspec.field(name="lists")


class _Field(msgspec.Struct, frozen=True):
    id: int
    title: str = ""
    type: str = ""


class _CreatedField(msgspec.Struct):
    field: _Field


class _FieldRel(msgspec.Struct, frozen=True):
    field: int
    relid: int


class _Tag(msgspec.Struct, frozen=True):
    id: int
    tag: str = ""
    type: str = msgspec.field(name="tagType", default=TAG_TYPE)


class _TagPage(msgspec.Struct):
    rows: list[_Tag] = msgspec.field(name="tags")


class _Connection(msgspec.Struct, frozen=True):
    id: int
    service: str
    externalid: str


class _ConnectionPage(msgspec.Struct):
    rows: list[_Connection] = msgspec.field(name="connections")


class _FieldPage(msgspec.Struct):
    rows: list[_Field] = msgspec.field(name="fields")
    relations: list[_FieldRel] = msgspec.field(name="fieldRels", default=[])


class AccountSetup:
    """The set-up of one account for one site: event tracking on, and all that `Wanted` speaks of."""

    def __init__(self, client: Client, wanted: Wanted) -> None:
        self._client = client
        self._wanted = wanted

    async def missing(self) -> list[str]:
        """Return what the account lacks, a phrase each; leaves no trace. Raises AccountRefused."""
        return [step.what for step in await self._steps()]

    async def set_up(self) -> list[str]:
        """Create just what is missing and return it; safe to repeat.

        Raises AccountRefused, also when ActiveCampaign does not take what is to be created, and SettingsError
        when it says that it is there, but as something that cannot be used.
        """
        steps = await self._steps()
        for step in steps:
            await _created(step.what, step.create())
        still_missing = await self.missing() if steps else []
        if still_missing:
            raise SettingsError(
                f"ActiveCampaign has something else in the place of {' and '.join(still_missing)}: rename it"
            )
        return [step.what for step in steps]

    async def ids(self) -> AccountIds:
        """Return the numbers that contacts and orders refer to. Raises SettingsError before `set_up`."""
        customer_list, tags, connection = await self._list(), await self._tags(), await self._connection()
        numbers, _ = await self._fields()
        fields = {name: numbers[key] for name, key in self._field_keys() if key in numbers}
        if not customer_list or not connection or len(fields) < len(FIELD_TYPES) or len(tags) < len(WeekTag):
            raise SettingsError("the ActiveCampaign account is not set up; run `kiva-stream setup`")
        return AccountIds(customer_list.id, fields, tags, connection.id)

    async def _steps(self) -> list[Step]:
        return [
            *await self._tracking_step(),
            *await self._event_name_steps(),
            *await self._list_step(),
            *await self._field_steps(),
            *await self._tag_steps(),
            *await self._connection_step(),
        ]

    async def _tracking_step(self) -> list[Step]:
        page = await self._client.call(
            "GET", "/eventTracking", None, partial(parse_rest, shape=_TrackingPage)
        )
        return [] if page.tracking.enabled else [Step("event tracking switched on", self._switch_on)]

    async def _event_name_steps(self) -> list[Step]:
        pages = await self._pages("/eventTrackingEvents", _EventNamePage)
        known = {row.name for page in pages for row in page.rows}
        missing = [name for name in CATALOG.ac_names() if name not in known]
        what = f"the event name '{missing[0]}'" if len(missing) == 1 else f"{len(missing)} event names"
        return [Step(what, partial(self._register, missing))] if missing else []

    async def _list_step(self) -> list[Step]:
        return [] if await self._list() else [Step(f"the list '{LIST_NAME}'", self._create_list)]

    async def _field_steps(self) -> list[Step]:
        numbers, shown = await self._fields()
        steps = []
        for _, (title, kind) in self._field_keys():
            number = numbers.get((title, kind))
            if number is None:
                steps.append(Step(f"the {kind} field '{title}'", partial(self._create_field, title, kind)))
            elif number not in shown:
                what = f"the relation of the field '{title}' to all lists"
                steps.append(Step(what, partial(self._relate, number)))
        return steps

    async def _tag_steps(self) -> list[Step]:
        tags = await self._tags()
        missing = [tag for tag in WeekTag if tag not in tags]
        return [Step(f"the tag '{tag}'", partial(self._create_tag, tag)) for tag in missing]

    async def _connection_step(self) -> list[Step]:
        if await self._connection():
            return []
        what = f"the connection '{SERVICE}' of site {self._wanted.site_id}"
        return [Step(what, self._create_connection)]

    async def _list(self) -> _List | None:
        pages = await self._pages("/lists", _ListPage)
        return next((row for page in pages for row in page.rows if row.name == LIST_NAME), None)

    def _field_keys(self) -> list[tuple[str, tuple[str, str]]]:
        """Return title and type of each field, with the attribute of DesiredContact."""
        return [(name, (self._wanted.titles[name], kind)) for name, kind in FIELD_TYPES.items()]

    async def _fields(self) -> tuple[dict[tuple[str, str], int], set[int]]:
        """Return the numbers of fields by title and type, and of those that every contact shows."""
        pages = await self._pages("/fields", _FieldPage)
        numbers = {(row.title, row.type): row.id for page in pages for row in page.rows}
        shown = {
            relation.field for page in pages for relation in page.relations if relation.relid == ALL_LISTS
        }
        return numbers, shown

    async def _tags(self) -> dict[WeekTag, int]:
        pages = await self._pages("/tags", _TagPage, search=TAG_WORD)
        numbers = {row.tag: row.id for page in pages for row in page.rows if row.type == TAG_TYPE}
        return {tag: numbers[tag] for tag in WeekTag if tag in numbers}

    async def _connection(self) -> _Connection | None:
        filters = {"filters[service]": SERVICE, "filters[externalid]": str(self._wanted.site_id)}
        pages = await self._pages("/connections", _ConnectionPage, **filters)
        mine = (SERVICE, str(self._wanted.site_id))
        rows = (row for page in pages for row in page.rows)
        return next((row for row in rows if (row.service, row.externalid) == mine), None)

    async def _pages(self, path: str, shape: type[P], **asked: str) -> list[P]:
        pages: list[P] = []
        while True:
            query = urlencode({**asked, "limit": PAGE_ROWS, "offset": PAGE_ROWS * len(pages)})
            page = await self._client.call("GET", f"{path}?{query}", None, partial(parse_rest, shape=shape))
            if page in pages:  # a listing that is not paged
                return pages
            pages.append(page)
            if len(page.rows) < PAGE_ROWS:
                return pages

    async def _switch_on(self) -> None:
        body = {"eventTracking": {"enabled": True}}
        await self._client.call("PUT", "/eventTracking", body, partial(parse_rest, shape=_TrackingPage))

    async def _register(self, names: Sequence[str]) -> None:
        for name in names:
            await _created(f"the event name '{name}'", register(self._client, name))

    async def _create_list(self) -> None:
        body = {
            "list": {
                "name": LIST_NAME,
                "stringid": LIST_STRINGID,
                "sender_url": self._wanted.sender_url,
                "sender_reminder": self._wanted.sender_reminder,
                "channel": "email",
            }
        }
        await self._client.call("POST", "/lists", body, partial(parse_rest, shape=dict[str, Any]))

    async def _create_field(self, title: str, kind: str) -> None:
        body = {"field": {"title": title, "type": kind}}
        created = await self._client.call("POST", "/fields", body, partial(parse_rest, shape=_CreatedField))
        await self._relate(created.field.id)

    async def _relate(self, field_id: int) -> None:
        body = {"fieldRel": {"field": field_id, "relid": ALL_LISTS}}
        await self._client.call("POST", "/fieldRels", body, partial(parse_rest, shape=dict[str, Any]))

    async def _create_tag(self, tag: WeekTag) -> None:
        body = {"tag": {"tag": tag.value, "tagType": TAG_TYPE, "description": TAG_DESCRIPTION}}
        await self._client.call("POST", "/tags", body, partial(parse_rest, shape=dict[str, Any]))

    async def _create_connection(self) -> None:
        """Connect the shop; one that is there already is refused in words that are not documented."""
        body = {
            "connection": {
                "service": SERVICE,
                "externalid": str(self._wanted.site_id),
                "name": self._wanted.site_name,
                "linkUrl": self._wanted.link_url,
                "logoUrl": self._wanted.logo_url,
            }
        }
        try:
            await self._client.call("POST", "/connections", body, partial(parse_rest, shape=dict[str, Any]))
        except Rejected:
            if not await self._connection():
                raise


async def _created(what: str, creation: Awaitable[object]) -> None:
    """Wait until something is created, or was by somebody else. Raises AccountRefused with what was said."""
    try:
        await creation
    except Duplicate:
        return
    except Rejected as error:
        raise AccountRefused(f"ActiveCampaign does not let us create {what}: {error.reply}") from None
