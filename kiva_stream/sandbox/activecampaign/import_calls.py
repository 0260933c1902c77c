"""Bulk imports: accepted at once and done later. One bad row refuses the whole import."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any
from uuid import uuid4

from kiva_stream.sandbox.activecampaign.account import Account, Breach, Import, SandboxAccount
from kiva_stream.sandbox.activecampaign.calls import Call, Handlers
from kiva_stream.sandbox.activecampaign.contacts import SUBSCRIBED, UNSUBSCRIBED, Contact, normal_email
from kiva_stream.sandbox.activecampaign.responses import (
    RefusedError,
    Response,
    import_refused,
    iso_time,
    json_response,
    not_found,
)

Row = Mapping[str, Any]
_OPTIONAL = {"first_name": "First name", "last_name": "Last name", "phone": "Phone number"}


def bulk_import(account: Account, call: Call) -> Response:
    """Queue an import. It is refused as a whole over the limit, or for any invalid address."""
    rows = call.body["contacts"]
    if not account.admit_import(call.now, len(rows)):
        raise RefusedError(_over_limit(account, len(rows)))
    bad = _bad_rows(rows, account.settings)
    if bad:
        raise RefusedError(import_refused("Some contacts are invalid.", bad))
    rows = [row for row in rows if not _is_left_out(account, row)]
    queued = Import(
        id=str(uuid4()),
        accepted_at=call.now,
        duration_s=account.settings.import_duration_s,
        contacts=len(rows),
        interrupted=any(normal_email(row["email"]) in account.settings.interrupting_emails for row in rows),
    )
    account.imports[queued.id] = queued
    account.watch.accept_import((normal_email(row["email"]) for row in rows), queued)
    account.agenda.add(
        call.now + queued.duration_s,
        partial(_complete, account, queued, rows, excluded=call.body.get("exclude_automations", False)),
    )
    response = {
        "success": 1,
        "queued_contacts": len(rows),
        "batchId": queued.id,
        "message": "Contact import queued",
    }
    return json_response(response)


def _over_limit(account: Account, contacts: int) -> Response:
    settings = account.settings
    limit = settings.single_imports_per_minute if contacts == 1 else settings.bulk_imports_per_minute
    account.tally.breach(Breach.IMPORT_LIMIT, f"more than {limit} imports a minute")
    reason = f"Up to {limit} imports may be requested per minute. Please try again later."
    return import_refused("Rate limit exceeded.", [reason])


def _bad_rows(rows: Iterable[Row], settings: SandboxAccount) -> list[Mapping[str, object]]:
    return [
        {"contact": number, "failureReason": why}
        for number, row in enumerate(rows, settings.rows_counted_from)
        if (why := _why_bad(row, settings))
    ]


def _why_bad(row: Row, settings: SandboxAccount) -> str:
    if normal_email(row["email"]) in settings.invalid_emails:
        return f"Email address {row['email']} is invalid."
    for name, text in _OPTIONAL.items():
        if row.get(name) in settings.invalid_values:
            return f"{text} {row[name]} is invalid."
    for field in row.get("fields", ()):
        if field["value"] in settings.invalid_values:
            return f"The value {field['value']} of field {field['id']} is invalid."
    return ""


def _is_left_out(account: Account, row: Row) -> bool:
    settings = account.settings
    return settings.excluded_are_not_queued and normal_email(row["email"]) in settings.excluded_emails


def _complete(account: Account, queued: Import, rows: Iterable[Row], *, excluded: bool) -> None:
    if queued.interrupted:
        return
    now = queued.accepted_at + queued.duration_s
    settings = account.settings
    starts = settings.automation_starts and not (excluded and not settings.exclusion_is_ignored)
    for row in rows:
        if _fails(account, row):
            queued.failures.append(row["email"])
        else:
            contact, is_new = _apply(account, row, now)
            if is_new:
                queued.created.append(contact.id)
                contact.automations += starts


def _fails(account: Account, row: Row) -> bool:
    email = normal_email(row["email"])
    contact = account.contacts.find(email)
    subscribes = [int(item["listid"]) for item in row.get("subscribe", ())]
    return (
        email in account.settings.failing_emails
        or (contact is None and account.is_full)
        or (bool(subscribes) and email in account.settings.excluded_emails)
        or any(list_id not in account.lists for list_id in subscribes)
        or any(contact and contact.lists.get(list_id) == UNSUBSCRIBED for list_id in subscribes)
    )


def _apply(account: Account, row: Row, now: float) -> tuple[Contact, bool]:
    contact, is_new = account.upsert(row["email"], now)
    contact.first_name = row.get("first_name", contact.first_name)
    contact.last_name = row.get("last_name", contact.last_name)
    contact.phone = row.get("phone", contact.phone)
    account.set_fields(contact, {field["id"]: field["value"] for field in row.get("fields", ())})
    for item in row.get("subscribe", ()):
        account.set_list(contact, int(item["listid"]), SUBSCRIBED)
    for item in row.get("unsubscribe", ()):
        account.set_list(contact, int(item["listid"]), UNSUBSCRIBED)
    for name in row.get("tags", ()):
        account.tag(contact, account.tag_named(name, now), now)
    return contact, is_new


def import_info(account: Account, call: Call) -> Response:
    """Show the status of an import. Only its new and its failed contacts are named."""
    asked = account.imports.get(call.query["batchId"])
    if asked is None:
        raise not_found("ContactImport", call.query["batchId"])
    created = [str(contact_id) for contact_id in asked.created]
    return json_response({"status": asked.status(call.now), "success": created, "failure": asked.failures})


def overview(account: Account, call: Call) -> Response:
    """Count imports and their contacts by day. Numbers are strings."""
    done = [item for item in account.imports.values() if item.status(call.now) == "completed"]
    waiting = [item for item in account.imports.values() if item not in done]
    return json_response({"outstanding": _by_day(waiting), "recentlyCompleted": _by_day(done)})


def _by_day(imports: Iterable[Import]) -> list[dict[str, str]]:
    batches: Counter[str] = Counter()
    contacts: Counter[str] = Counter()
    for item in imports:
        day = iso_time(item.accepted_at)[:10]
        batches[day] += 1
        contacts[day] += item.contacts
    return [{"forDate": day, "batches": str(batches[day]), "contacts": str(contacts[day])} for day in batches]


HANDLERS: Handlers = {
    "bulkImport": bulk_import,
    "bulkImportInfo": import_info,
    "bulkImportOverview": overview,
}
