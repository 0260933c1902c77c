"""Contacts: bulk imports and their reports, look-ups, and one contact alone."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.listings import PAGE_ROWS, read_listing_of_contact
from kiva_stream.activecampaign.own_user import OWN_USER, parse_own_user
from kiva_stream.activecampaign.pause import Clock
from kiva_stream.activecampaign.rate_limits import import_budget
from kiva_stream.activecampaign.responses.bulk_imports import (
    parse_accepted_import,
    parse_import_report,
    parse_outstanding,
)
from kiva_stream.activecampaign.responses.contacts import (
    parse_contact_lookup,
    parse_contact_page,
    parse_renamed_contact,
    parse_upserted_contact,
)
from kiva_stream.activecampaign.responses.rest import parse_by_contact_id
from kiva_stream.activecampaign.slow_imports import SlowImports
from kiva_stream.errors import KindRefused, Rejected, Unanswered
from kiva_stream.model.account_ids import AccountIds
from kiva_stream.model.bulk_imports import AcceptedImport, ImportReport
from kiva_stream.model.contacts import DesiredContact, ListStatus
from kiva_stream.model.ids import AcId, Email
from kiva_stream.ports.destination import Around
from kiva_stream.settings.sections import ActiveCampaignSettings

# Source of these: "Bulk import contacts" and "Update list status" in ActiveCampaign's API reference.
SHARE_OF_SINGLES = 20 / 100  # of the bulk imports allowed in a minute, those of one contact
IMPORT_BYTES = 399_999  # the longest body of an import
SUBSCRIBED, UNSUBSCRIBED = 1, 2
RESUBSCRIBED = {"sourceid": 4}  # needed to subscribe a contact that unsubscribed

_CAMEL = {"first_name": "firstName", "last_name": "lastName", "phone": "phone"}  # as contact/sync has them


class ListPlace(msgspec.Struct):
    """The status of a contact on a list."""

    list: int
    status: int


_parse_list_place = partial(parse_by_contact_id, shape=dict[str, Any], key="contactList")
_parse_change = partial(parse_by_contact_id, shape=dict[str, Any], key="contact")


class Contacts:
    """Implements `ports.destination.Contacts` for one account, whose list and fields are in `ids`."""

    def __init__(
        self,
        settings: ActiveCampaignSettings,
        client: Client,
        ids: AccountIds,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        per_minute = settings.bulk_imports_per_minute
        self._client = client
        self._slow_imports = SlowImports(client.incidents, clock)
        self._ids = ids
        self._per_import = settings.contacts_per_import
        self._imports = import_budget(per_minute, client.pause, clock)
        self._singles = import_budget(max(1, int(per_minute * SHARE_OF_SINGLES)), client.pause, clock)

    async def answers(self) -> bool:
        """See ports.destination.Contacts.answers."""
        try:
            await self._client.call("GET", OWN_USER, parse=parse_own_user, tries=1, is_suspect=True)
        except Unanswered:
            return False
        except (Rejected, KindRefused):
            pass  # a refusal is an answer
        return True

    async def start_import(
        self,
        contacts: Sequence[DesiredContact],
        *,
        exclude_automations: bool,
        tries: float = math.inf,
        is_suspect: bool = False,
        around: Around = nullcontext,
    ) -> AcceptedImport:
        """Start a bulk import; one whose answer was lost is started again."""
        rows = [import_row(contact, self._ids) for contact in contacts]
        body = import_body(rows, exclude_automations=exclude_automations)
        budgets = (self._imports,) if len(contacts) > 1 else (self._singles, self._imports)
        parse = partial(parse_accepted_import, rows=[_values(row) for row in rows])
        return await self._client.call(
            "POST",
            "/import/bulk_import",
            body,
            parse=parse,
            budgets=budgets,
            tries=tries,
            is_suspect=is_suspect,
            around=around,
        )

    async def outstanding_imports(self, *, tries: float = math.inf) -> int:
        """Read the account's list of imports, which counts them by day."""
        path = "/import/bulk_import"
        return await self._client.call(
            "GET", path, parse=parse_outstanding, tries=tries, awaits_permission=False
        )

    async def import_report(self, import_id: str) -> ImportReport:
        """Return how far an import has come."""
        path = f"/import/info?batchId={quote(import_id, safe='')}"
        report = await self._client.call("GET", path, parse=parse_import_report)
        self._slow_imports.note(import_id, report)
        return report

    def count_fitting(self, contacts: Sequence[DesiredContact]) -> int:
        """Count by the setting and by the bytes of the body."""
        left_bytes = IMPORT_BYTES - len(msgspec.json.encode(import_body([], exclude_automations=False)))
        for count, contact in enumerate(contacts[: self._per_import]):
            left_bytes -= len(msgspec.json.encode(import_row(contact, self._ids))) + 1  # 1: the comma
            if left_bytes < -1:  # -1: no comma after the last row
                return max(count, 1)
        return min(len(contacts), self._per_import)

    async def find(self, email: Email, *, tries: float = math.inf, is_suspect: bool = False) -> AcId | None:
        """Look a contact up by its whole address."""
        return await self._client.call(
            "GET",
            f"/contacts?{urlencode({'email': email})}",
            parse=partial(parse_contact_lookup, email=email),
            tries=tries,
            is_suspect=is_suspect,
            awaits_permission=False,
        )

    async def page(self, after: AcId) -> dict[Email, AcId]:
        """Page by the id: in a large account an offset becomes expensive ("Pagination")."""
        query = urlencode({"orders[id]": "ASC", "id_greater": after, "limit": PAGE_ROWS})
        return await self._client.call(
            "GET", f"/contacts?{query}", parse=parse_contact_page, awaits_permission=False
        )

    async def upsert(
        self,
        contact: DesiredContact,
        *,
        clear: Collection[str] = (),
        tries: float = math.inf,
        is_suspect: bool = False,
    ) -> AcId:
        """Upsert one contact by its address."""
        body = {"contact": sync_body(contact, self._ids) | {_CAMEL[name]: "" for name in clear}}
        return await self._client.call(
            "POST",
            "/contact/sync",
            body,
            parse=parse_upserted_contact,
            tries=tries,
            is_suspect=is_suspect,
        )

    async def rename(
        self, contact: AcId, email: Email, *, tries: float = math.inf, is_suspect: bool = False
    ) -> None:
        """Change the address by the id: an upsert by the new address would create a second contact."""
        body = {"contact": {"email": email}}
        await self._client.call(
            "PUT",
            f"/contacts/{contact}",
            body,
            parse=parse_renamed_contact,
            tries=tries,
            is_suspect=is_suspect,
        )

    async def set_list(
        self, contact: AcId, *, subscribed: bool, tries: float = math.inf, is_suspect: bool = False
    ) -> None:
        """Set the status of a contact on the list."""
        status = {"status": SUBSCRIBED, **RESUBSCRIBED} if subscribed else {"status": UNSUBSCRIBED}
        body = {"contactList": {"list": self._ids.list_id, "contact": contact, **status}}
        await self._client.call(
            "POST", "/contactLists", body, parse=_parse_list_place, tries=tries, is_suspect=is_suspect
        )

    async def list_place(
        self, contact: AcId, *, tries: float = math.inf, is_suspect: bool = False
    ) -> bool | None:
        """Read the places of a contact on all lists."""
        path = f"/contacts/{contact}/contactLists"
        parse = partial(parse_by_contact_id, shape=list[ListPlace], key="contactLists")
        try:
            places = await read_listing_of_contact(
                self._client, path, parse, low_priority=False, tries=tries, is_suspect=is_suspect
            )
        except Rejected:
            return None
        if ListPlace(self._ids.list_id, SUBSCRIBED) in places:
            return True
        return False if ListPlace(self._ids.list_id, UNSUBSCRIBED) in places else None

    async def clear_customer_id(
        self, contact: AcId, *, tries: float = math.inf, is_suspect: bool = False
    ) -> None:
        """Clear the field with the customer id of a contact."""
        cleared = {"field": str(self._ids.fields["customer_id"]), "value": ""}
        body = {"contact": {"fieldValues": [cleared]}}
        await self._client.call(
            "PUT", f"/contacts/{contact}", body, parse=_parse_change, tries=tries, is_suspect=is_suspect
        )


def import_body(rows: Sequence[dict[str, Any]], *, exclude_automations: bool) -> dict[str, Any]:
    """Return a bulk import of these rows."""
    return {"contacts": rows, "exclude_automations": exclude_automations}


def import_row(contact: DesiredContact, ids: AccountIds) -> dict[str, Any]:
    """Return a contact as bulk import takes it: snake_case, fields and list by id, the tag by name."""
    row = {
        "email": contact.email,
        **_filled(first_name=contact.first_name, last_name=contact.last_name, phone=contact.phone),
        "fields": [{"id": number, "value": value} for number, value in _fields(contact, ids)],
    }
    if contact.list_status is not ListStatus.KEEP:
        row[contact.list_status.value] = [{"listid": ids.list_id}]
    if contact.tag:
        row["tags"] = [ids.tag_names.get(contact.tag, contact.tag.value)]
    return row


def sync_body(contact: DesiredContact, ids: AccountIds) -> dict[str, Any]:
    """Return a contact as contact/sync takes it: camelCase, fields by id, neither list nor tag."""
    return {
        "email": contact.email,
        **_filled(firstName=contact.first_name, lastName=contact.last_name, phone=contact.phone),
        "fieldValues": [{"field": str(number), "value": value} for number, value in _fields(contact, ids)],
    }


def _values(row: dict[str, Any]) -> list[str]:
    """Return the texts of a row that a refusal may quote."""
    named = [row.get(key, "") for key in ("email", "first_name", "last_name", "phone")]
    return [*named, *(field["value"] for field in row["fields"])]


def _fields(contact: DesiredContact, ids: AccountIds) -> Iterator[tuple[int, str]]:
    """Yield id and value of each field to be set; "" clears a field, None leaves it as it is."""
    for name, number in ids.fields.items():
        value: str | None = getattr(contact, name)
        if value is not None:
            yield number, value


def _filled(**texts: str | None) -> dict[str, str]:
    """Leave empty texts out: public clients report that ActiveCampaign refuses contacts for empty names."""
    return {key: text for key, text in texts.items() if text}
