"""Event tracking: the switch, the event names, a contact's tracking log, and the receipt of an event."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from urllib.parse import parse_qsl

import msgspec

from kiva_stream.sandbox.activecampaign.account import Account, SandboxAccount
from kiva_stream.sandbox.activecampaign.calls import Call, Handlers, listing
from kiva_stream.sandbox.activecampaign.events import ReceivedEvent
from kiva_stream.sandbox.activecampaign.responses import (
    Response,
    iso_time,
    json_response,
    not_found,
    unprocessable,
)

BAD_KEY = "Invalid event key."
TRACKING_OFF = "Event tracking is not enabled."
UNKNOWN_NAME = "Unknown event name."


def get_tracking(account: Account, _call: Call) -> Response:
    """Show whether tracking is on."""
    return json_response({"eventTracking": {"enabled": account.settings.tracking_enabled}})


def set_tracking(account: Account, call: Call) -> Response:
    """Switch tracking on or off."""
    account.change(tracking_enabled=call.body["eventTracking"]["enabled"])
    return get_tracking(account, call)


def list_names(account: Account, call: Call) -> Response:
    """List the registered event names."""
    names = list(account.event_names)
    return listing("eventTrackingEvents", [{"name": name} for name in call.page(names)], len(names))


def create_name(account: Account, call: Call) -> Response:
    """Register an event name. A second registration is refused; the real response is not documented."""
    name = call.body["eventTrackingEvent"]["name"]
    if name in account.event_names:
        raise unprocessable("Event name already exists.", "duplicate", "/data/attributes/name")
    account.event_names[name] = None
    return json_response({"eventTrackingEvent": {"name": name}}, 201)


def delete_name(account: Account, call: Call) -> Response:
    """Delete an event name. Its events stay."""
    if call.path_name not in account.event_names:
        raise not_found("EventTrackingEvent", call.path_name)
    del account.event_names[call.path_name]
    return json_response({})


def tracking_logs(account: Account, call: Call) -> Response:
    """List the events of a contact, oldest first, except those younger than the account's delay."""
    contact = account.contacts.get(call.path_id)
    if contact is None:
        raise not_found("Subscriber", call.path_id)
    newest = call.now - account.settings.tracking_log_delay_s
    shown = bisect_right(contact.events, newest, key=account.events.received_at)
    page = call.page(contact.events[:shown])
    rows = [_shown(account.events[seq], account.settings) for seq in page]
    return listing("trackingLogs", rows, shown)


def _shown(event: ReceivedEvent, settings: SandboxAccount) -> dict[str, str]:
    value = event.eventdata[: settings.tracking_log_characters or None]
    if settings.tracking_log_bytes:
        value = value.encode()[: settings.tracking_log_bytes].decode(errors="ignore")
    return {
        "id": str(event.seq),
        "type": event.name,
        "value": value,
        "tstamp": iso_time(event.received_at),
        "contact": str(event.contact_id),
    }


class _Visit(msgspec.Struct):
    email: str


_read_visit = msgspec.json.Decoder(_Visit).decode


def read_form(body: bytes) -> dict[str, str] | None:
    """Return the fields of a form, or None when it is no form or has a field twice."""
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        return None
    form = dict(pairs)
    return form if len(form) == len(pairs) else None


def visitor(form: Mapping[str, str]) -> str | None:
    """Return the address of an event, or None when its `visit` is not JSON with one."""
    try:
        return _read_visit(form["visit"]).email
    except msgspec.DecodeError:
        return None


def receive(account: Account | None, form: Mapping[str, str], email: str, *, now: float) -> str:
    """Record an event whose form keeps the contract. Return why it is refused, or "" if it is not."""
    if account is None or form["key"] != account.settings.event_key:
        return BAD_KEY
    if not account.settings.tracking_enabled:
        return TRACKING_OFF
    if form["event"] not in account.event_names:
        if account.settings.unknown_event_names == "refused":
            return UNKNOWN_NAME
        if account.settings.unknown_event_names == "dropped":
            return ""
        account.event_names[form["event"]] = None
    if account.settings.unknown_contact_refusal and account.contacts.find(email) is None:
        return account.settings.unknown_contact_refusal
    account.record_event(now, email, name=form["event"], eventdata=form.get("eventdata", ""))
    return ""


HANDLERS: Handlers = {
    "getEventTracking": get_tracking,
    "setEventTracking": set_tracking,
    "listEventNames": list_names,
    "createEventName": create_name,
    "deleteEventName": delete_name,
    "listTrackingLogs": tracking_logs,
}
