"""Contacts: bulk imports, how they went, and one contact alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

from kiva_stream.activecampaign.account import AccountIds
from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.limits import Clock, import_budget
from kiva_stream.activecampaign.replies import has_contact, queued, report, rest
from kiva_stream.model import AcceptedImport, DesiredContact, Email, ImportReport, ListStatus
from kiva_stream.settings import ActiveCampaignSettings

SINGLE_IMPORTS_PER_MINUTE = 20  # ActiveCampaign's limit for imports of one contact


class Contacts:
    """Implements `ports.Contacts` for one account, whose list and field are `ids`."""

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
        self._imports = import_budget(per_minute, client.pause, clock)
        self._singles = import_budget(min(SINGLE_IMPORTS_PER_MINUTE, per_minute), client.pause, clock)

    async def start_import(
        self, contacts: Sequence[DesiredContact], *, exclude_automations: bool
    ) -> AcceptedImport:
        """Have contacts imported: see `ports.Contacts`. An import whose answer was lost is sent again."""
        body = {
            "contacts": [import_row(contact, self._ids) for contact in contacts],
            "exclude_automations": exclude_automations,
        }
        budgets = (self._imports,) if len(contacts) > 1 else (self._singles, self._imports)
        read = partial(queued, count=len(contacts))
        return await self._client.call("POST", "/import/bulk_import", body, read, budgets)

    async def import_report(self, import_id: str) -> ImportReport:
        """Return how far an import has come: see `ports.Contacts`."""
        path = f"/import/info?batchId={quote(import_id, safe='')}"
        return await self._client.call("GET", path, None, report)

    async def find(self, email: Email) -> bool:
        """Return whether there is a contact of this address: see `ports.Contacts`."""
        path = f"/contacts?email={quote(email, safe='')}"
        return await self._client.call("GET", path, None, partial(has_contact, email=email))

    async def sync(self, contact: DesiredContact) -> None:
        """Create or update one contact: see `ports.Contacts`."""
        body = {"contact": sync_body(contact, self._ids)}
        await self._client.call("POST", "/contact/sync", body, partial(rest, shape=dict[str, Any]))


def import_row(contact: DesiredContact, ids: AccountIds) -> dict[str, Any]:
    """Return a contact as bulk import takes it: snake_case, the field and the list by number."""
    row = {
        "email": contact.email,
        **_filled(first_name=contact.first_name, last_name=contact.last_name, phone=contact.phone),
        "fields": [{"id": ids.customer_id_field_id, "value": contact.customer_id}],
    }
    if contact.list_status is not ListStatus.LEAVE:
        row[contact.list_status.value] = [{"listid": ids.list_id}]
    return row


def sync_body(contact: DesiredContact, ids: AccountIds) -> dict[str, Any]:
    """Return a contact as contact/sync takes it: camelCase, the field by number, no list."""
    return {
        "email": contact.email,
        **_filled(firstName=contact.first_name, lastName=contact.last_name, phone=contact.phone),
        "fieldValues": [{"field": str(ids.customer_id_field_id), "value": contact.customer_id}],
    }


def _filled(**texts: str) -> dict[str, str]:
    """Leave empty names and phones out: ActiveCampaign was seen to refuse a contact because of them."""
    return {key: text for key, text in texts.items() if text}
