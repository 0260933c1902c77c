"""Contacts: bulk imports, how they went, and one contact alone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from kiva_stream.activecampaign.account import AccountIds
from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.rate_limits import Clock, import_budget
from kiva_stream.activecampaign.responses.bulk_imports import parse_accepted_import, parse_import_report
from kiva_stream.activecampaign.responses.contacts import (
    parse_contact_lookup,
    parse_contact_page,
    parse_renamed_contact,
    parse_upserted_contact,
)
from kiva_stream.activecampaign.responses.rest import parse_by_contact_id
from kiva_stream.model.bulk_imports import AcceptedImport, ImportReport
from kiva_stream.model.contacts import DesiredContact, ListStatus
from kiva_stream.model.ids import AcId, Email
from kiva_stream.settings.sections import ActiveCampaignSettings

SINGLE_IMPORTS_PER_MINUTE = 20  # ActiveCampaign's limit for imports of one contact
IMPORT_BYTES = 399_999  # the longest body of an import
PAGE_ROWS = 100  # the most ActiveCampaign lists at a time
SUBSCRIBED, UNSUBSCRIBED = 1, 2
BACK_ON_THE_LIST = {"sourceid": 4}  # as documented of one who is subscribed again


class Contacts:
    """Implements `ports.Contacts` for one account, whose list and fields are `ids`."""

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
        self._ids = ids
        self._per_import = settings.contacts_per_import
        self._imports = import_budget(per_minute, client.pause, clock)
        self._singles = import_budget(min(SINGLE_IMPORTS_PER_MINUTE, per_minute), client.pause, clock)

    async def start_import(
        self, contacts: Sequence[DesiredContact], *, exclude_automations: bool
    ) -> AcceptedImport:
        """Have contacts imported: see `ports.Contacts`. An import whose answer was lost is sent again."""
        rows = [import_row(contact, self._ids) for contact in contacts]
        body = import_body(rows, exclude_automations=exclude_automations)
        budgets = (self._imports,) if len(contacts) > 1 else (self._singles, self._imports)
        read = partial(parse_accepted_import, count=len(contacts))
        return await self._client.call("POST", "/import/bulk_import", body, read, budgets)

    async def import_report(self, import_id: str) -> ImportReport:
        """Return how far an import has come: see `ports.Contacts`."""
        path = f"/import/info?batchId={quote(import_id, safe='')}"
        return await self._client.call("GET", path, None, parse_import_report)

    def fitting(self, contacts: Sequence[DesiredContact]) -> int:
        """Return how many of these fit into one import: see `ports.Contacts`."""
        left_bytes = IMPORT_BYTES - len(msgspec.json.encode(import_body([], exclude_automations=False)))
        for count, contact in enumerate(contacts[: self._per_import]):
            left_bytes -= len(msgspec.json.encode(import_row(contact, self._ids))) + 1  # and a comma
            if left_bytes < -1:  # the last has none
                return max(count, 1)
        return min(len(contacts), self._per_import)

    async def find(self, email: Email) -> AcId | None:
        """Return the id of the contact of this address: see `ports.Contacts`."""
        path = f"/contacts?{urlencode({'email': email})}"
        return await self._client.call("GET", path, None, partial(parse_contact_lookup, email=email))

    async def page(self, after: AcId) -> dict[Email, AcId]:
        """Return the contacts with the next ids: see `ports.Contacts`."""
        query = urlencode({"orders[id]": "ASC", "id_greater": after, "limit": PAGE_ROWS})
        return await self._client.call("GET", f"/contacts?{query}", None, parse_contact_page)

    async def sync(self, contact: DesiredContact) -> AcId:
        """Create or update one contact: see `ports.Contacts`."""
        body = {"contact": sync_body(contact, self._ids)}
        return await self._client.call("POST", "/contact/sync", body, parse_upserted_contact)

    async def rename(self, contact: AcId, email: Email) -> None:
        """Give a contact another address: see `ports.Contacts`."""
        await self._client.call(
            "PUT", f"/contacts/{contact}", {"contact": {"email": email}}, parse_renamed_contact
        )

    async def set_list(self, contact: AcId, *, subscribed: bool) -> None:
        """Subscribe a contact to the list, or unsubscribe it: see `ports.Contacts`."""
        status = {"status": SUBSCRIBED, **BACK_ON_THE_LIST} if subscribed else {"status": UNSUBSCRIBED}
        body = {"contactList": {"list": self._ids.list_id, "contact": contact, **status}}
        await self._client.call(
            "POST", "/contactLists", body, partial(parse_by_contact_id, shape=dict[str, Any])
        )

    async def disown(self, contact: AcId) -> None:
        """Clear the customer id of a contact: see `ports.Contacts`."""
        cleared = {"field": str(self._ids.fields["customer_id"]), "value": ""}
        body = {"contact": {"fieldValues": [cleared]}}
        read = partial(parse_by_contact_id, shape=dict[str, Any])
        await self._client.call("PUT", f"/contacts/{contact}", body, read)


def import_body(rows: Sequence[dict[str, Any]], *, exclude_automations: bool) -> dict[str, Any]:
    """Return a bulk import of these rows."""
    return {"contacts": rows, "exclude_automations": exclude_automations}


def import_row(contact: DesiredContact, ids: AccountIds) -> dict[str, Any]:
    """Return a contact as bulk import takes it: snake_case, fields and list by number, the tag by name."""
    row = {
        "email": contact.email,
        **_filled(first_name=contact.first_name, last_name=contact.last_name, phone=contact.phone),
        "fields": [{"id": number, "value": value} for number, value in _fields(contact, ids)],
    }
    if contact.list_status is not ListStatus.LEAVE:
        row[contact.list_status.value] = [{"listid": ids.list_id}]
    if contact.tag:
        row["tags"] = [contact.tag.value]
    return row


def sync_body(contact: DesiredContact, ids: AccountIds) -> dict[str, Any]:
    """Return a contact as contact/sync takes it: camelCase, fields by number, neither list nor tag."""
    return {
        "email": contact.email,
        **_filled(firstName=contact.first_name, lastName=contact.last_name, phone=contact.phone),
        "fieldValues": [{"field": str(number), "value": value} for number, value in _fields(contact, ids)],
    }


def _fields(contact: DesiredContact, ids: AccountIds) -> Iterator[tuple[int, str]]:
    """Yield the number and the value of each field that is sent; "" clears one."""
    for name, number in ids.fields.items():
        value: str | None = getattr(contact, name)
        if value is not None:
            yield number, value


def _filled(**texts: str) -> dict[str, str]:
    """Leave empty names and phones out: ActiveCampaign was seen to refuse a contact because of them."""
    return {key: text for key, text in texts.items() if text}
