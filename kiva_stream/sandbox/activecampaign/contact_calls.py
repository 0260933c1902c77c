"""The calls about contacts: upserts, look-ups, and the lists and tags of one contact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kiva_stream.sandbox.activecampaign.account import Account
from kiva_stream.sandbox.activecampaign.calls import Call, Handlers, listing
from kiva_stream.sandbox.activecampaign.contacts import Contact, normal_email
from kiva_stream.sandbox.activecampaign.responses import (
    RefusedError,
    Response,
    iso_time,
    json_response,
    not_found,
    unprocessable,
)

Row = dict[str, object]


def _shown(contact: Contact) -> Row:
    return {
        "id": str(contact.id),
        "email": contact.email,
        "firstName": contact.first_name,
        "lastName": contact.last_name,
        "phone": contact.phone,
        "cdate": iso_time(contact.created_at),
        "udate": iso_time(contact.updated_at),
        "deleted": "0",
    }


def _field_values(contact: Contact, field_ids: Iterable[int]) -> list[Row]:
    """Return field values. Their ids are made of contact and field, since such a pair has one value only."""
    return [
        {
            "id": f"{contact.id}{field_id:05}",
            "contact": str(contact.id),
            "field": str(field_id),
            "value": contact.fields[field_id],
            "cdate": iso_time(contact.created_at),
            "udate": iso_time(contact.updated_at),
        }
        for field_id in field_ids
        if field_id in contact.fields
    ]


def _existing(account: Account, contact_id: int) -> Contact:
    contact = account.contacts.get(contact_id)
    if contact is None:
        raise not_found("Subscriber", contact_id)
    return contact


def _contact_or_404(account: Account, contact_id: str | int) -> Contact:
    contact = account.contacts.get(int(contact_id))
    if contact is None:
        error = {"status": 404, "title": "Not Found", "detail": "Contact not found"}
        raise RefusedError(json_response({"errors": [error]}, 404))
    return contact


def sync(account: Account, call: Call) -> Response:
    """Create (201) or update (200) the contact of an address. Attributes that are not sent are kept."""
    sent = call.body["contact"]
    _check_address(account, sent["email"])
    _check_values(account, sent)
    contact, is_new = account.upsert(sent["email"], call.now)
    return json_response(_update(account, contact, sent), 201 if is_new else 200)


def _check_address(account: Account, email: str) -> None:
    settings = account.settings
    if normal_email(email) in settings.invalid_emails | settings.failing_emails:
        title = "Contact Email Address is not valid."
        raise unprocessable(
            title, "email_invalid", "/data/attributes/email", error="must_be_valid_email_address"
        )


def _check_values(account: Account, sent: Mapping[str, Any]) -> None:
    values = {name: sent.get(name) for name in ("firstName", "lastName", "phone")}
    values |= {f"fieldValues/{item['field']}": item["value"] for item in sent.get("fieldValues", ())}
    for name, value in values.items():
        if value in account.settings.invalid_values:
            raise unprocessable(f"The value of {name} is not valid.", "invalid", f"/data/attributes/{name}")


def _update(account: Account, contact: Contact, sent: Mapping[str, Any]) -> Row:
    contact.first_name = sent.get("firstName", contact.first_name)
    contact.last_name = sent.get("lastName", contact.last_name)
    contact.phone = sent.get("phone", contact.phone)
    values = {int(item["field"]): item["value"] or "" for item in sent.get("fieldValues", ())}
    account.set_fields(contact, values)
    return {"contact": _shown(contact), "fieldValues": _field_values(contact, values)}


def update(account: Account, call: Call) -> Response:
    """Update a contact by its id. Its address may change to one that no other contact has."""
    contact = _existing(account, call.path_id)
    sent = call.body["contact"]
    if "email" in sent:
        _check_address(account, sent["email"])
        _move(account, contact, sent["email"])
    _check_values(account, sent)
    contact.updated_at = call.now
    return json_response(_update(account, contact, sent))


def _move(account: Account, contact: Contact, email: str) -> None:
    holder = account.contacts.find(email)
    if holder and holder is not contact:
        title = "Email address already exists in the system"
        raise unprocessable(title, "duplicate", "/data/attributes/email")
    account.contacts.move(contact, email)


def find(account: Account, call: Call) -> Response:
    """List contacts by id, or the one of `email`."""
    if "email" in call.query:
        found = account.contacts.find(call.query["email"])
        ids = [found.id] if found else []
    else:
        ids = account.contacts.ids_above(int(call.query.get("id_greater", "0")))
    if call.query.get("orders[id]") == "DESC":
        ids.reverse()
    rows = [_shown(_existing(account, contact_id)) for contact_id in call.page(ids)]
    return listing("contacts", rows, len(ids))


def get(account: Account, call: Call) -> Response:
    """Show one contact."""
    return json_response({"contact": _shown(_existing(account, call.path_id))})


def delete(account: Account, call: Call) -> Response:
    """Delete one contact and its tag links. Its events stay in the account's log."""
    contact = _existing(account, call.path_id)
    account.contacts.delete(contact)
    for link_id in contact.tags.values():
        del account.contact_tags.rows[link_id]
    return json_response({})


def list_field_values(account: Account, call: Call) -> Response:
    """List the custom field values of one contact."""
    contact = _existing(account, call.path_id)
    return json_response({"fieldValues": _field_values(contact, contact.fields)})


def list_automations(account: Account, call: Call) -> Response:
    """List the automations that one contact has entered."""
    contact = _existing(account, call.path_id)
    rows = [{"id": str(number), "contact": str(contact.id)} for number in range(1, contact.automations + 1)]
    return json_response({"contactAutomations": rows})


def list_lists(account: Account, call: Call) -> Response:
    """List the lists of one contact, with its status on each."""
    contact = _existing(account, call.path_id)
    return json_response({"contactLists": [_shown_list(contact, list_id) for list_id in contact.lists]})


def _shown_list(contact: Contact, list_id: int) -> Row:
    return {
        "id": f"{contact.id}{list_id:05}",
        "contact": str(contact.id),
        "list": str(list_id),
        "status": str(contact.lists[list_id]),
    }


def set_list_status(account: Account, call: Call) -> Response:
    """Subscribe or unsubscribe a contact. Unlike an import, this resubscribes an unsubscribed contact."""
    sent = call.body["contactList"]
    contact = _contact_or_404(account, sent["contact"])
    list_id = int(sent["list"])
    if list_id not in account.lists:
        raise not_found("List", list_id)
    account.set_list(contact, list_id, int(sent["status"]))
    return json_response({"contacts": [_shown(contact)], "contactList": _shown_list(contact, list_id)})


def list_tags(account: Account, call: Call) -> Response:
    """List the tag links of one contact."""
    contact = _existing(account, call.path_id)
    return json_response({"contactTags": [account.contact_tags.rows[link] for link in contact.tags.values()]})


def add_tag(account: Account, call: Call) -> Response:
    """Tag a contact: 201 with a new link, 200 with an existing one."""
    sent = call.body["contactTag"]
    contact = _contact_or_404(account, sent["contact"])
    tag_id = int(sent["tag"])
    if tag_id not in account.tags:
        raise unprocessable("No tag id provided", "missing", "/data/attributes/tag")
    if tag_id in contact.tags and account.settings.repeated_tag_refused:
        raise unprocessable("The contact has the tag already.", "duplicate", "/data/attributes/tag")
    is_new = account.tag(contact, tag_id, call.now)
    link = account.contact_tags.rows[contact.tags[tag_id]]
    return json_response({"contacts": [_shown(contact)], "contactTag": link}, 201 if is_new else 200)


def remove_tag(account: Account, call: Call) -> Response:
    """Remove a tag from a contact by the id of their link."""
    if call.path_id not in account.contact_tags:
        raise not_found("SubscriberTag", call.path_id)
    account.untag(call.path_id)
    return json_response({})


HANDLERS: Handlers = {
    "syncContact": sync,
    "findContacts": find,
    "getContact": get,
    "updateContact": update,
    "deleteContact": delete,
    "listContactFieldValues": list_field_values,
    "listContactLists": list_lists,
    "listContactAutomations": list_automations,
    "setListStatus": set_list_status,
    "listContactTags": list_tags,
    "addContactTag": add_tag,
    "removeContactTag": remove_tag,
}
