"""The control paths below `/_sandbox/`, by which a test or a benchmark reads and changes the sandbox.

They are outside the limits and the contract. `?account=NAME` may be left out when there is one account only.

| request | does |
|---|---|
| GET `state` | show the figures of every account, and the faults drawn |
| GET `events`, `strays`, `contacts`, `orders` | list all of an account as JSON lines |
| GET `order_requests` | list the requests that carried orders, with the ids of those sent as REAL_TIME |
| GET `arrivals` | list when REST and GraphQL requests arrived, as JSON lines |
| POST `faults` | replace the faults by a list of `PATH:KIND:SHARE[:COUNT]` texts or of `Fault`s as objects |
| POST `lift` | lift the faults of a list of names |
| POST `settings` | change the account settings of an object |
| POST `lose` | `{"events": [SEQ], "orders": ["ID"]}`: remove events from tracking logs, delete orders |
| POST `disconnect` | delete the connections of a list of ids, with their orders |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec
from aiohttp import web

from kiva_stream.sandbox.activecampaign.account import Account, SandboxAccount, Tally
from kiva_stream.sandbox.activecampaign.faults import Fault, Faults, parse_fault
from kiva_stream.sandbox.activecampaign.service import Service

PREFIX = "/_sandbox/"
_ROWS_A_WRITE = 1000


class _Loss(msgspec.Struct, forbid_unknown_fields=True):
    events: list[int] = []
    orders: list[str] = []


async def answer(service: Service, request: web.BaseRequest, *, path: str, body: bytes) -> web.StreamResponse:
    """Answer a control request: with 400 and a sentence when it is invalid, with 404 when it is unknown."""
    asked = f"{request.method} {path.removeprefix(PREFIX)}"
    try:
        if asked in STREAMS:
            return await _stream(request, STREAMS[asked](_account(service, request)))
        if asked == "GET state":
            return _json(summary(service))
        if asked in FAULT_CHANGES:
            return _json(FAULT_CHANGES[asked](service.faults, body))
        if asked in CHANGES:
            return _json(CHANGES[asked](_account(service, request), body))
    except ValueError as error:  # msgspec's errors are ValueErrors too
        return _json({"message": str(error)}, 400)
    return _json({"message": "Not Found"}, 404)


def _account(service: Service, request: web.BaseRequest) -> Account:
    names = list(service.accounts)
    name = request.query.get("account", names[0] if len(names) == 1 else "")
    if name not in service.accounts:
        raise ValueError(f"account {name!r} is none of {', '.join(names)}")
    return service.account(name)


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


async def _stream(request: web.BaseRequest, rows: Iterator[object]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    encode = msgspec.json.Encoder().encode_lines
    while chunk := list(islice(rows, _ROWS_A_WRITE)):
        await response.write(encode(chunk))
    await response.write_eof()
    return response


def _change(account: Account, body: bytes) -> dict[str, Any]:
    changes = msgspec.json.decode(body, type=dict[str, Any])
    changed = msgspec.convert({**msgspec.to_builtins(account.settings), **changes}, SandboxAccount)
    unknown = changes.keys() - set(SandboxAccount.__struct_fields__)
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))}: no such setting")
    accepted = {name: getattr(changed, name) for name in changes}
    account.change(**accepted)
    return accepted


def _lose(account: Account, body: bytes) -> dict[str, Any]:
    loss = msgspec.json.decode(body, type=_Loss)
    account.lose(loss.events, loss.orders)
    return {}


def _disconnect(account: Account, body: bytes) -> dict[str, Any]:
    for connection_id in msgspec.json.decode(body, type=list[int]):
        account.disconnect(connection_id)
    return {}


CHANGES = {"POST settings": _change, "POST lose": _lose, "POST disconnect": _disconnect}


def _set_faults(faults: Faults, body: bytes) -> dict[str, Any]:
    wanted = msgspec.json.decode(body, type=list[str | Fault])
    faults.set([parse_fault(each) if isinstance(each, str) else each for each in wanted])
    return {}


def _lift_faults(faults: Faults, body: bytes) -> dict[str, Any]:
    for name in msgspec.json.decode(body, type=list[str]):
        faults.lift(name)
    return {}


FAULT_CHANGES = {"POST faults": _set_faults, "POST lift": _lift_faults}


def _events(account: Account) -> Iterator[dict[str, object]]:
    for event in account.events:
        contact = account.contacts.get(event.contact_id)
        yield {
            **event._asdict(),
            "email": contact.email if contact else None,  # the present one; null: the contact was deleted
            "eventdata_bytes": len(event.eventdata.encode()),
        }


def _strays(account: Account) -> Iterator[dict[str, object]]:
    return (event._asdict() for event in list(account.events_without_contact))


def _contacts(account: Account) -> Iterator[dict[str, object]]:
    """Show contacts, with fields, lists and tags by name; `order_customers` are customer ids of the shop."""
    titles = {field_id: row["title"] for field_id, row in account.fields.rows.items()}
    lists = {list_id: row["name"] for list_id, row in account.lists.rows.items()}
    customers = account.orders.customers()
    for contact in list(account.contacts):
        yield {
            **msgspec.structs.asdict(contact),
            "fields": {titles[field_id]: value for field_id, value in contact.fields.items()},
            "lists": {lists[list_id]: status for list_id, status in contact.lists.items()},
            "tags": account.tags_of(contact),
            "events": len(contact.events),
            "order_customers": customers.get(contact.id, []),
        }


def _orders(account: Account) -> Iterator[dict[str, Any]]:
    """Show whole orders; `contact_email` is the present address of their contact, null if it was deleted."""
    for owner, order in account.orders.owned():
        contact = account.contacts.get(owner.contact_id)
        yield {**order, "contact_email": contact.email if contact else None}


def _arrivals(account: Account) -> Iterator[dict[str, float]]:
    """Show when REST and GraphQL requests arrived, including refused ones."""
    return ({"at": at} for at in account.peak.arrivals[:])


def _order_requests(account: Account) -> Iterator[dict[str, object]]:
    return (msgspec.structs.asdict(request) for request in account.order_requests.all[:])


STREAMS = {
    "GET arrivals": _arrivals,
    "GET events": _events,
    "GET strays": _strays,
    "GET contacts": _contacts,
    "GET orders": _orders,
    "GET order_requests": _order_requests,
}


def summary(service: Service) -> dict[str, object]:
    """Return the figures of every account, ready for JSON."""
    return {
        "accounts": {name: _figures(service.account(name)) for name in service.accounts},
        "no_account": _tallied(service.unattributed),
        "faults": dict(service.faults.drawn),
    }


def _figures(account: Account) -> dict[str, object]:
    return {
        **_tallied(account.tally),
        "most_requests_in_a_second": account.peak.highest,
        "tracking_enabled": account.settings.tracking_enabled,
        "event_names": len(account.event_names),
        "events": len(account.events),
        "events_by_name": account.events.count_by_name(),
        "events_without_contact": len(account.events_without_contact),
        "longest_eventdata_bytes": account.events.longest_bytes,
        "contacts": len(account.contacts),
        "imports": len(account.imports),
        "orders": len(account.orders),
        "orders_overtaken": account.orders.overtaken,
        "real_time_orders_received": account.order_requests.real_time_count,
        "tag_overlaps": account.watch.tag_overlaps,
        "resubscribed": account.watch.resubscribed,
        "contacts_in_two_requests": account.watch.contacts_in_two_requests,
        "changing_requests": account.watch.changing_requests,
    }


def _tallied(tally: Tally) -> dict[str, object]:
    counts: Iterable[tuple[str, object]] = (
        ("requests", dict(tally.requests)),
        ("replies", dict(tally.responses)),
        ("breaches", dict(tally.breaches)),
        ("breach_examples", list(tally.examples)),
        ("refused_events", dict(tally.refused_events)),
    )
    return dict(counts)
