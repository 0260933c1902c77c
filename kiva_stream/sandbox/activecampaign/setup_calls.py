"""The calls that set an account up: tags, custom fields and their relations, lists, connections."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kiva_stream.sandbox.activecampaign.account import Account
from kiva_stream.sandbox.activecampaign.calls import Call, Handlers, listing
from kiva_stream.sandbox.activecampaign.contacts import Table
from kiva_stream.sandbox.activecampaign.responses import Response, json_response, not_found, unprocessable


def _page(name: str, rows: Sequence[Mapping[str, Any]], call: Call, **beside: object) -> Response:
    return listing(name, call.page(rows), len(rows), **beside)


def list_tags(account: Account, call: Call) -> Response:
    """List tags. `search` is a part of the name, `filters[search][eq]` the whole name."""
    part = call.query.get("search", "").lower()
    whole = call.query.get("filters[search][eq]")
    rows = account.tags.where() if whole is None else _only(account.named(account.tags, "tag", whole))
    return _page("tags", [row for row in rows if part in row["tag"].lower()], call)


def _only(row: dict[str, Any] | None) -> list[dict[str, Any]]:
    return [] if row is None else [row]


def create_tag(account: Account, call: Call) -> Response:
    """Create a tag (201), or show the existing one of that name (200)."""
    sent = call.body["tag"]
    existing = account.named(account.tags, "tag", sent["tag"])
    if existing:
        return json_response({"tag": existing})
    tag = account.add_tag(
        sent["tag"], kind=sent["tagType"], description=sent.get("description", ""), now=call.now
    )
    return json_response({"tag": tag}, 201)


def list_fields(account: Account, call: Call) -> Response:
    """List custom fields with their relations."""
    perstag = call.query.get("filters[perstag]")
    rows = account.fields.where() if perstag is None else account.fields.where(perstag=perstag)
    return _page("fields", rows, call, fieldOptions=[], fieldRels=account.field_relations.where())


def create_field(account: Account, call: Call) -> Response:
    """Create a custom field. Titles are unique; the personalisation tag is normalised as the service does."""
    sent = call.body["field"]
    if account.named(account.fields, "title", sent["title"]):
        raise unprocessable("Field title is already in use.", "duplicate", "/data/attributes/title")
    perstag = re.sub("[^A-Z0-9]", "", sent.get("perstag", sent["title"]).upper())
    field = account.fields.add({**sent, "perstag": perstag, "options": [], "relations": []})
    return json_response({"field": field}, 201)


def relate_field(account: Account, call: Call) -> Response:
    """Show a field on a list, or on all of them (0)."""
    sent = call.body["fieldRel"]
    field_id, list_id = int(sent["field"]), int(sent["relid"])
    if field_id not in account.fields:
        raise not_found("Field", field_id)
    if list_id and list_id not in account.lists:
        raise not_found("List", list_id)
    row = {"field": str(field_id), "relid": str(list_id)}
    if account.field_relations.find(**row):
        raise unprocessable("The field is already related.", "duplicate", "/data/attributes/relid")
    relation = account.field_relations.add(row)
    account.fields.rows[field_id]["relations"].append(relation["id"])
    return json_response({"fieldRel": relation}, 201)


def list_lists(account: Account, call: Call) -> Response:
    """List lists. The filter is a part of the name, so a client must compare the whole name."""
    part = call.query.get("filters[name]", "").lower()
    return _page("lists", [row for row in account.lists.where() if part in row["name"].lower()], call)


def create_list(account: Account, call: Call) -> Response:
    """Create a list. String ids are unique."""
    sent = call.body["list"]
    if account.lists.find(stringid=sent["stringid"]):
        raise unprocessable("The string id is already in use.", "duplicate", "/data/attributes/stringid")
    return json_response({"list": account.lists.add(sent)}, 201)


def list_connections(account: Account, call: Call) -> Response:
    """List connections by service and external id."""
    filters = {key: call.query.get(f"filters[{key}]") for key in ("service", "externalid")}
    rows = account.connections.where(**{key: value for key, value in filters.items() if value is not None})
    return _page("connections", rows, call)


def create_connection(account: Account, call: Call) -> Response:
    """Create a connection. Service and external id are unique together."""
    sent = call.body["connection"]
    if account.connections.find(service=sent["service"], externalid=sent["externalid"]):
        raise unprocessable("The integration already exists.", "duplicate", "/data/attributes/externalid")
    return json_response(
        {"connection": account.connections.add({**sent, "status": "1", "syncStatus": "0"})}, 201
    )


def delete_tag(account: Account, call: Call) -> Response:
    """Delete a tag, from every contact that has it."""
    _delete(account.tags, "Tag", call.path_id)
    for link in account.contact_tags.where(tag=str(call.path_id)):
        account.untag(int(link["id"]))
    return json_response({})


def delete_list(account: Account, call: Call) -> Response:
    """Delete a list, from every contact that is on it."""
    _delete(account.lists, "List", call.path_id)
    for contact in account.contacts:
        contact.lists.pop(call.path_id, None)
    return json_response({})


def delete_connection(account: Account, call: Call) -> Response:
    """Delete a connection and its orders."""
    if call.path_id not in account.connections:
        raise not_found("Connection", call.path_id)
    account.disconnect(call.path_id)
    return json_response({})


def _delete(table: Table, kind: str, row_id: int) -> None:
    if table.rows.pop(row_id, None) is None:
        raise not_found(kind, row_id)


HANDLERS: Handlers = {
    "deleteTag": delete_tag,
    "deleteList": delete_list,
    "deleteConnection": delete_connection,
    "listTags": list_tags,
    "createTag": create_tag,
    "listFields": list_fields,
    "createField": create_field,
    "relateField": relate_field,
    "listLists": list_lists,
    "createList": create_list,
    "listConnections": list_connections,
    "createConnection": create_connection,
}
