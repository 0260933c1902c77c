"""What a site needs in its ActiveCampaign account: found missing by `check`, created by `setup`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from kiva_stream.activecampaign.account_ids import (
    ALL_LISTS,
    FIELD_TYPES,
    LIST_NAME,
    SERVICE,
    TAG_TYPE,
    AccountIdLookup,
    Fields,
    named,
)
from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.events import register
from kiva_stream.activecampaign.listings import read_rows
from kiva_stream.activecampaign.responses.rest import Duplicate, parse_rest
from kiva_stream.errors import AccountRefused, Rejected, SettingsError
from kiva_stream.model.account_ids import AccountIds
from kiva_stream.model.event_catalog import CATALOG
from kiva_stream.model.week_tags import WeekTag

LIST_STRINGID = "all-customers"
TAG_DESCRIPTION = "Orders of the current week; kept by kiva_stream."


class AccountRequirements(msgspec.Struct, frozen=True, kw_only=True):
    """What a site needs in its account.

    ActiveCampaign requires the URLs and the reminder ("Create new list", "Create connection"). It does not
    document whether a URL may be empty, so that none is; "" is one that has to be set.
    """

    site_id: int
    site_name: str
    titles: Mapping[str, str]  # of the fields, by the attribute of DesiredContact
    sender_url: str  # the sender's website, on the list
    sender_reminder: str  # why people are on the list
    link_url: str  # the shop's page, on the connection
    logo_url: str  # on the connection


class Step(NamedTuple):
    """Something that the account lacks, and the call that creates it."""

    what: str
    create: Callable[[], Awaitable[object]]
    obstacle: str = ""  # what the account has in its place, and what to do about that; "": nothing is known


class _Tracking(msgspec.Struct):
    enabled: bool


class _EventName(msgspec.Struct, frozen=True):
    name: str


class _Field(msgspec.Struct):
    id: int


_parse_tracking = partial(parse_rest, shape=_Tracking, key="eventTracking")


class AccountSetup:
    """Sets one account up for one site: event tracking on, and all that `requirements` names."""

    def __init__(self, client: Client, requirements: AccountRequirements) -> None:
        self._client = client
        self._requirements = requirements
        self._lookup = AccountIdLookup(client, requirements.site_id, requirements.titles)

    async def missing(self) -> list[str]:
        """Return what the account lacks, a phrase each; change nothing. Raises AccountRefused."""
        return [step.what for step in await self._steps()]

    async def set_up(self) -> list[str]:
        """Create what is missing, and only that; return it. Safe to repeat.

        Raises AccountRefused, also if ActiveCampaign rejects what is to be created, and SettingsError if
        something else has the name of what is still missing afterwards, or a URL is missing.
        """
        steps = await self._steps()
        for step in steps:
            await _created(step.what, step.create(), step.obstacle)
        still_missing = await self._steps() if steps else []
        for step in still_missing:
            raise _taken(step.what, step.obstacle or "something else has its name: rename that")
        return [step.what for step in steps]

    async def ids(self) -> AccountIds:
        """Return the ids that contacts and orders refer to. Raises SettingsError before `set_up`."""
        return await self._lookup.all()

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
        tracking = await self._client.call("GET", "/eventTracking", parse=_parse_tracking)
        return [] if tracking.enabled else [Step("event tracking switched on", self._switch_on)]

    async def _event_name_steps(self) -> list[Step]:
        rows = await read_rows(self._client, "eventTrackingEvents", list[_EventName])
        missing = [name for name in CATALOG.ac_names() if not named(rows, name, by="name")]
        what = f"the event name '{missing[0]}'" if len(missing) == 1 else f"{len(missing)} event names"
        return [Step(what, partial(self._register, missing))] if missing else []

    async def _list_step(self) -> list[Step]:
        lists = await self._lookup.lists()
        if named(lists, LIST_NAME, by="name"):
            return []
        holder = named(lists, LIST_STRINGID, by="stringid")
        obstacle = f"the list '{holder.name}' has its string id: rename that list to it" if holder else ""
        return [Step(f"the list '{LIST_NAME}'", self._create_list, obstacle)]

    async def _field_steps(self) -> list[Step]:
        fields = await self._lookup.fields()
        steps = []
        for name, (title, kind) in self._lookup.field_keys.items():
            field = fields.find(title, kind)
            if field is None:
                create = partial(self._create_field, title, kind)
                steps.append(
                    Step(f"the {kind} field '{title}'", create, _field_obstacle(fields, title, name))
                )
            elif field.id not in fields.shown:
                what = f"the relation of the field '{title}' to all lists"
                steps.append(Step(what, partial(self._relate, field.id)))
        return steps

    async def _tag_steps(self) -> list[Step]:
        known = await self._lookup.tags_of_all_types()
        shown = [row for row in known if row.type == TAG_TYPE]
        steps = []
        for tag in WeekTag:
            if not named(shown, tag.value, by="tag"):
                hidden = named(known, tag.value, by="tag")
                obstacle = f"there is one of the type '{hidden.type}': rename that" if hidden else ""
                steps.append(Step(f"the tag '{tag}'", partial(self._create_tag, tag), obstacle))
        return steps

    async def _connection_step(self) -> list[Step]:
        if await self._lookup.connection_id():
            return []
        what = f"the connection '{SERVICE}' of site {self._requirements.site_id}"
        return [Step(what, self._create_connection)]

    async def _switch_on(self) -> None:
        body = {"eventTracking": {"enabled": True}}
        await self._client.call("PUT", "/eventTracking", body, parse=_parse_tracking)

    async def _register(self, names: Sequence[str]) -> None:
        for name in names:
            await _created(f"the event name '{name}'", register(self._client, name))

    async def _create_list(self) -> None:
        _require_url("list_sender_url", self._requirements.sender_url)
        await self._post(
            "/lists",
            list={
                "name": LIST_NAME,
                "stringid": LIST_STRINGID,
                "sender_url": self._requirements.sender_url,
                "sender_reminder": self._requirements.sender_reminder,
                "channel": "email",
            },
        )

    async def _create_field(self, title: str, kind: str) -> None:
        body = {"field": {"title": title, "type": kind}}
        parse = partial(parse_rest, shape=_Field, key="field")
        created = await self._client.call("POST", "/fields", body, parse=parse)
        await self._relate(created.id)

    async def _relate(self, field_id: int) -> None:
        await self._post("/fieldRels", fieldRel={"field": field_id, "relid": ALL_LISTS})

    async def _create_tag(self, tag: WeekTag) -> None:
        await self._post("/tags", tag={"tag": tag.value, "tagType": TAG_TYPE, "description": TAG_DESCRIPTION})

    async def _create_connection(self) -> None:
        """Create the site's connection.

        ActiveCampaign does not document how it refuses a connection that exists: after a refusal, look it up.
        """
        _require_url("connection_link_url", self._requirements.link_url)
        _require_url("connection_logo_url", self._requirements.logo_url)
        try:
            await self._post(
                "/connections",
                connection={
                    "service": SERVICE,
                    "externalid": str(self._requirements.site_id),
                    "name": self._requirements.site_name,
                    "linkUrl": self._requirements.link_url,
                    "logoUrl": self._requirements.logo_url,
                },
            )
        except Rejected:
            if not await self._lookup.connection_id():
                raise

    async def _post(self, path: str, **body: object) -> None:
        await self._client.call("POST", path, body, parse=partial(parse_rest, shape=dict[str, Any]))


async def _created(what: str, creation: Awaitable[object], obstacle: str = "") -> None:
    """Wait for a creation; no-op if it exists by now.

    Raises AccountRefused with the text of a refusal, or SettingsError if an obstacle is known: ActiveCampaign
    does not document the status of a refusal because of a name that is taken.
    """
    try:
        await creation
    except Rejected as error:
        if obstacle:
            raise _taken(what, obstacle) from None
        if not isinstance(error, Duplicate):
            raise AccountRefused(f"ActiveCampaign does not let us create {what}: {error.reply}") from None


def _require_url(key: str, url: str) -> None:
    if not url:
        raise SettingsError(f"The site has no admin_base_url to take a URL from: set activecampaign.{key}.")


def _field_obstacle(fields: Fields, title: str, name: str) -> str:
    """Return the field of another type that has the title of the field `name`, and what to do about it."""
    other = fields.of_another_type(title, FIELD_TYPES[name])
    if other is None:
        return ""
    return (
        f"there is the {other.type} field '{other.title}': rename that, or set activecampaign.field_{name} "
        "to another title"
    )


def _taken(what: str, obstacle: str) -> SettingsError:
    return SettingsError(f"ActiveCampaign cannot have {what}, since {obstacle}")
