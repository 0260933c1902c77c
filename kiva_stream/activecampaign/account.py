"""What kiva_stream needs to find in the account: read by `check`, created by `setup`, used by number."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.events import register
from kiva_stream.activecampaign.replies import Duplicate, rest
from kiva_stream.catalog import CATALOG
from kiva_stream.errors import AccountRefused, Rejected, SettingsError

LIST_NAME = "all customers"
LIST_STRINGID = "all-customers"
ALL_LISTS = 0  # the relid that shows a field on every contact
PAGE_ROWS = 100  # the most ActiveCampaign lists at a time


class AccountIds(NamedTuple):
    """What contacts refer to by number at ActiveCampaign."""

    list_id: int  # of the list `all customers`
    customer_id_field_id: int  # of the field `Kiva Customer ID`


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


class _FieldPage(msgspec.Struct):
    rows: list[_Field] = msgspec.field(name="fields")
    relations: list[_FieldRel] = msgspec.field(name="fieldRels", default=[])


class AccountSetup:
    """The set-up of one account: event tracking on, the event names, the list, the field and its relation.

    `field_title` is the customer id's; ActiveCampaign asks for `sender_url` (the sender's website) and
    `sender_reminder` (why people are on the list) of a list it is to create.
    """

    def __init__(self, client: Client, field_title: str, sender_url: str, sender_reminder: str) -> None:
        self._client = client
        self._field_title = field_title
        self._sender_url = sender_url
        self._sender_reminder = sender_reminder

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
        """Return the numbers that contacts refer to. Raises SettingsError before `set_up`."""
        customer_list = await self._list()
        field, _ = await self._field()
        if customer_list is None or field is None:
            raise SettingsError("the ActiveCampaign account is not set up; run `kiva-stream setup`")
        return AccountIds(customer_list.id, field.id)

    async def _steps(self) -> list[Step]:
        return [
            *await self._tracking_step(),
            *await self._event_name_steps(),
            *await self._list_step(),
            *await self._field_step(),
        ]

    async def _tracking_step(self) -> list[Step]:
        page = await self._client.call("GET", "/eventTracking", None, partial(rest, shape=_TrackingPage))
        return [] if page.tracking.enabled else [Step("event tracking switched on", self._switch_on)]

    async def _event_name_steps(self) -> list[Step]:
        pages = await self._pages("/eventTrackingEvents", _EventNamePage)
        known = {row.name for page in pages for row in page.rows}
        missing = [name for name in CATALOG.ac_names() if name not in known]
        what = f"the event name '{missing[0]}'" if len(missing) == 1 else f"{len(missing)} event names"
        return [Step(what, partial(self._register, missing))] if missing else []

    async def _list_step(self) -> list[Step]:
        return [] if await self._list() else [Step(f"the list '{LIST_NAME}'", self._create_list)]

    async def _field_step(self) -> list[Step]:
        field, is_shown = await self._field()
        if field is None:
            return [Step(f"the text field '{self._field_title}'", self._create_field)]
        if not is_shown:
            what = f"the relation of the field '{self._field_title}' to all lists"
            return [Step(what, partial(self._relate, field.id))]
        return []

    async def _list(self) -> _List | None:
        pages = await self._pages("/lists", _ListPage)
        return next((row for page in pages for row in page.rows if row.name == LIST_NAME), None)

    async def _field(self) -> tuple[_Field | None, bool]:
        """Return the field, None when there is none, and whether it is shown on every contact."""
        pages = await self._pages("/fields", _FieldPage)
        fields = (row for page in pages for row in page.rows)
        field = next((row for row in fields if (row.title, row.type) == (self._field_title, "text")), None)
        shown = {
            relation.field for page in pages for relation in page.relations if relation.relid == ALL_LISTS
        }
        return field, field is not None and field.id in shown

    async def _pages(self, path: str, shape: type[P]) -> list[P]:
        pages: list[P] = []
        while True:
            query = f"?limit={PAGE_ROWS}&offset={PAGE_ROWS * len(pages)}"
            page = await self._client.call("GET", path + query, None, partial(rest, shape=shape))
            if page in pages:  # a listing that is not paged
                return pages
            pages.append(page)
            if len(page.rows) < PAGE_ROWS:
                return pages

    async def _switch_on(self) -> None:
        body = {"eventTracking": {"enabled": True}}
        await self._client.call("PUT", "/eventTracking", body, partial(rest, shape=_TrackingPage))

    async def _register(self, names: Sequence[str]) -> None:
        for name in names:
            await _created(f"the event name '{name}'", register(self._client, name))

    async def _create_list(self) -> None:
        body = {
            "list": {
                "name": LIST_NAME,
                "stringid": LIST_STRINGID,
                "sender_url": self._sender_url,
                "sender_reminder": self._sender_reminder,
                "channel": "email",
            }
        }
        await self._client.call("POST", "/lists", body, partial(rest, shape=dict[str, Any]))

    async def _create_field(self) -> None:
        body = {"field": {"title": self._field_title, "type": "text"}}
        created = await self._client.call("POST", "/fields", body, partial(rest, shape=_CreatedField))
        await self._relate(created.field.id)

    async def _relate(self, field_id: int) -> None:
        body = {"fieldRel": {"field": field_id, "relid": ALL_LISTS}}
        await self._client.call("POST", "/fieldRels", body, partial(rest, shape=dict[str, Any]))


async def _created(what: str, creation: Awaitable[object]) -> None:
    """Wait until something is created, or was by somebody else. Raises AccountRefused with what was said."""
    try:
        await creation
    except Duplicate:
        return
    except Rejected as error:
        raise AccountRefused(f"ActiveCampaign does not let us create {what}: {error.reply}") from None
