"""The contacts that a request may write, found when it arrives and before it is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from kiva_stream.sandbox.activecampaign.account import Account
from kiva_stream.sandbox.activecampaign.contacts import normal_email

Body = Mapping[str, Any]
_Finder = Callable[[Account, int, Body], Iterable[str | None]]


def find(account: Account, operation: str, path_id: int, *, body: bytes) -> set[str]:
    """Return the addresses of the contacts that a REST request may write. A broken body writes none."""
    finder = _WRITES.get(operation)
    if finder is None:
        return set()
    try:
        decoded = msgspec.json.decode(body) if body else {}
        return {normal_email(email) for email in finder(account, path_id, decoded) if email}
    except (msgspec.DecodeError, LookupError, TypeError, ValueError, AttributeError):
        return set()


def _email(account: Account, contact_id: object) -> str | None:
    contact = account.contacts.get(int(str(contact_id)))
    return contact.email if contact else None


def _by_id(account: Account, path_id: int, body: Body) -> Iterable[str | None]:
    return _email(account, path_id), body.get("contact", {}).get("email")


def _synced(_account: Account, _path_id: int, body: Body) -> Iterable[str | None]:
    return (body["contact"]["email"],)


def _imported(_account: Account, _path_id: int, body: Body) -> Iterable[str | None]:
    return [row["email"] for row in body["contacts"]]


def _listed(account: Account, _path_id: int, body: Body) -> Iterable[str | None]:
    return (_email(account, body["contactList"]["contact"]),)


def _tagged(account: Account, _path_id: int, body: Body) -> Iterable[str | None]:
    return (_email(account, body["contactTag"]["contact"]),)


def _untagged(account: Account, path_id: int, _body: Body) -> Iterable[str | None]:
    link = account.contact_tags.rows.get(path_id)
    return (_email(account, link["contact"]),) if link else ()


_WRITES: Mapping[str, _Finder] = {
    "syncContact": _synced,
    "updateContact": _by_id,
    "deleteContact": _by_id,
    "bulkImport": _imported,
    "setListStatus": _listed,
    "addContactTag": _tagged,
    "removeContactTag": _untagged,
}
