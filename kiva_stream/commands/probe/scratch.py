"""The objects that `probe` creates in the account, and their removal.

Each is noted before it is created, and is looked up by its name when its id is not known: a request may be
cut off after it was sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from kiva_stream.activecampaign.raw_calls import CallsUsedUpError, RawCalls
from kiva_stream.activecampaign.responses.contacts import parse_contact_lookup
from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.activecampaign.responses.rest import parse_deleted, parse_rest
from kiva_stream.errors import DeliveryError
from kiva_stream.model.ids import AcId, Email

SERVICE = "kiva_probe"
IMPORT_LOOKS = 3  # until imports count as still under way
IMPORT_LOOK_S = 3.0

Remove = Callable[[], Awaitable[object]]


class _Row(msgspec.Struct):
    id: int


class _Day(msgspec.Struct):
    batches: int = 0


class Scratch:
    """One contact, connection, tag, list and event name; `token` makes their names unlike any other."""

    def __init__(self, calls: RawCalls, email: Email, token: str) -> None:
        self.email = email
        self.event_name = f"kiva-probe-{token}"  # at most 32 characters
        self.unknown_event_name = f"kiva-probe-{token}-x"
        self._calls = calls
        self._token = token
        self._ids: dict[str, int] = {}  # of what was created, by kind
        self._to_remove: dict[str, Remove] = {}  # by what it is, in the order of its creation
        self._imports_are_due = False
        self._orders_settle_s = 0.0  # until accepted orders are written

    # --- creation ---

    async def find_contact(self) -> AcId | None:
        """Return the id of the contact with the scratch address."""
        answer = await self._calls.call("GET", f"/contacts?{urlencode({'email': self.email})}")
        return parse_contact_lookup(answer, self.email)

    def note_contact(self) -> None:
        """Note that the contact may exist from now on."""
        self._to_remove.setdefault(f"the contact {self.email}", self._remove_contact)

    async def contact_id(self) -> int:
        """Return the id of the contact. Create it if there is none."""
        if "contact" not in self._ids:
            self.note_contact()
            body = {"contact": {"email": self.email}}
            answer = await self._calls.call("POST", "/contact/sync", body)
            self._ids["contact"] = parse_rest(answer, _Row, key="contact").id
        return self._ids["contact"]

    async def switch_tracking_on(self) -> None:
        """Switch event tracking on; the removal switches it off again if it was off."""
        answer = await self._calls.call("GET", "/eventTracking")
        if parse_rest(answer, dict[str, Any], key="eventTracking").get("enabled") is not True:
            self._to_remove["event tracking switched on"] = partial(self._set_tracking, enabled=False)
            await self._set_tracking(enabled=True)

    async def _set_tracking(self, *, enabled: bool) -> None:
        answer = await self._calls.call("PUT", "/eventTracking", {"eventTracking": {"enabled": enabled}})
        parse_rest(answer, dict[str, Any])

    async def registered_name(self) -> str:
        """Return the event name. Register it if it is not."""
        if "event" not in self._ids:
            self.note_name(self.event_name)
            body = {"eventTrackingEvent": {"name": self.event_name}}
            parse_rest(await self._calls.call("POST", "/eventTrackingEvents", body), dict[str, Any])
            self._ids["event"] = 0
        return self.event_name

    def note_name(self, name: str) -> None:
        """Note that an event name may be registered from now on."""
        path = f"/eventTrackingEvents/{quote(name, safe='')}"
        self._to_remove[f"the event name {name}"] = partial(self._delete, path)

    async def tag_id(self) -> int:
        """Return the id of the tag. Create it if there is none."""
        body = {"tag": {"tag": f"kiva-probe-{self._token}", "tagType": "contact"}}
        filters = {"filters[search][eq]": f"kiva-probe-{self._token}"}
        return await self._created("tag", "/tags", body=body, filters=filters)

    async def list_id(self) -> int:
        """Return the id of the list. Create it if there is none."""
        name, website = f"kiva-probe-{self._token}", self._website
        body = {
            "list": {
                "name": name,
                "stringid": name,
                "sender_url": website,
                "sender_reminder": "A trial of kiva_stream.",
            }
        }
        return await self._created("list", "/lists", body=body, filters={"filters[name]": name})

    async def _created(self, kind: str, path: str, *, body: object, filters: dict[str, str]) -> int:
        if kind not in self._ids:
            what = f"the {kind} kiva-probe-{self._token}"
            self._to_remove[what] = partial(self._remove_row, kind, path, filters)
            self._ids[kind] = parse_rest(await self._calls.call("POST", path, body), _Row, key=kind).id
        return self._ids[kind]

    async def connect(self, *, with_urls: bool) -> Response:
        """Create the connection; return the answer."""
        urls = self._website if with_urls else ""
        self._to_remove[f"the connection {SERVICE} {self._token}"] = self._remove_connection
        row = {"service": SERVICE, "externalid": self._token, "name": "kiva probe"}
        body = {"connection": {**row, "logoUrl": urls, "linkUrl": urls}}
        answer = await self._calls.call("POST", "/connections", body)
        try:
            self._ids["connection"] = parse_rest(answer, _Row, key="connection").id
        except DeliveryError:
            return answer
        return answer

    async def connection_id(self) -> int:
        """Return the id of the connection. Create it if there is none."""
        if "connection" not in self._ids:
            parse_rest(await self.connect(with_urls=True), _Row, key="connection")
        return self._ids["connection"]

    @property
    def _website(self) -> str:
        return f"https://{self.email.rpartition('@')[2]}/"

    def note_orders(self, settle_s: float) -> None:
        """Note that orders were accepted, which are written within `settle_s`."""
        self.note_contact()
        self._orders_settle_s = settle_s

    # --- imports ---

    def note_imports(self) -> None:
        """Note that imports which write the contact may be under way from now on."""
        self.note_contact()
        self._imports_are_due = True

    async def imports_done(self) -> bool:
        """Return whether imports are completed, after some looks at most."""
        for _ in range(IMPORT_LOOKS if self._imports_are_due else 0):
            answer = await self._calls.call("GET", "/import/bulk_import")
            if not sum(day.batches for day in parse_rest(answer, list[_Day], key="outstanding")):
                self._imports_are_due = False
                break
            await asyncio.sleep(IMPORT_LOOK_S)
        return not self._imports_are_due

    # --- removal ---

    async def remove_contact(self) -> None:
        """Delete the contact, so that it can be created anew. Raises what a call raises."""
        contact = self._ids.pop("contact", None) or await self.find_contact()
        if contact is not None:
            parse_deleted(await self._calls.call("DELETE", f"/contacts/{contact}"))

    async def remove_all(self) -> None:
        """Remove what was created, the newest first; `left` is what could not be removed."""
        for what, remove in reversed(list(self._to_remove.items())):
            try:
                await remove()
            except (DeliveryError, CallsUsedUpError, _LeftError):
                continue
            del self._to_remove[what]

    @property
    def left(self) -> list[str]:
        """What was created, or may have been, and is not removed."""
        return list(self._to_remove)

    async def _remove_contact(self) -> None:
        is_settled = await self.imports_done()
        await self.remove_contact()
        if not is_settled or await self.find_contact() is not None:
            raise _LeftError

    async def _remove_connection(self) -> None:
        connection = self._ids.get("connection")
        if connection is None:
            filters = {"service": SERVICE, "externalid": self._token}
            connection = await self._find("/connections", "connections", _filters(filters))
        if connection is None:
            return
        await asyncio.sleep(self._orders_settle_s)
        of_it = _filters({"connectionid": str(connection)})
        while (order := await self._find("/ecomOrders", "ecomOrders", of_it)) is not None:
            await self._delete(f"/ecomOrders/{order}")
        await self._delete(f"/connections/{connection}")
        if await self._find("/ecomCustomers", "ecomCustomers", of_it) is not None:
            raise _LeftError

    async def _remove_row(self, kind: str, path: str, filters: dict[str, str]) -> None:
        row = self._ids.get(kind) or await self._find(path, f"{kind}s", filters)
        if row is not None:
            await self._delete(f"{path}/{row}")

    async def _find(self, path: str, key: str, filters: dict[str, str]) -> int | None:
        rows = parse_rest(await self._calls.call("GET", f"{path}?{urlencode(filters)}"), list[_Row], key=key)
        return rows[0].id if rows else None

    async def _delete(self, path: str) -> None:
        parse_deleted(await self._calls.call("DELETE", path))


class _LeftError(Exception):
    """An object is still there after its removal."""


def _filters(values: dict[str, str]) -> dict[str, str]:
    return {f"filters[{name}]": value for name, value in values.items()}
