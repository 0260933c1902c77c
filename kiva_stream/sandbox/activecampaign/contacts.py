"""The contacts of an account, and the tables of what can be set on them."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

SUBSCRIBED = 1
UNSUBSCRIBED = 2


class Contact(msgspec.Struct):
    """One contact. `lists` has statuses by list id, `fields` values by field id, `tags` links by tag id."""

    id: int
    email: str
    created_at: float
    updated_at: float
    first_name: str = ""
    last_name: str = ""
    phone: str = ""
    fields: dict[int, str] = {}
    lists: dict[int, int] = {}
    tags: dict[int, int] = {}
    automations: int = 0  # that it has entered
    events: array[int] = msgspec.field(default_factory=lambda: array("I"))  # sequence numbers, ascending


class AddressBook:
    """All contacts by address and by id. Addresses are compared without case; ids only grow."""

    def __init__(self) -> None:
        self._by_email: dict[str, Contact] = {}
        self._by_id: dict[int, Contact] = {}
        self._ids: list[int] = []
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[Contact]:
        """Yield the contacts by id."""
        return iter(self._by_id.values())

    def find(self, email: str) -> Contact | None:
        """Return the contact of an address."""
        return self._by_email.get(normal_email(email))

    def get(self, contact_id: int) -> Contact | None:
        """Return the contact of an id."""
        return self._by_id.get(contact_id)

    def create(self, email: str, now: float) -> Contact:
        """Add the contact of an address that has none."""
        self._last_id += 1
        contact = Contact(self._last_id, normal_email(email), created_at=now, updated_at=now)
        self._by_email[contact.email] = self._by_id[contact.id] = contact
        self._ids.append(contact.id)
        return contact

    def move(self, contact: Contact, email: str) -> None:
        """Give a contact another address, which no other contact may have."""
        del self._by_email[contact.email]
        contact.email = normal_email(email)
        self._by_email[contact.email] = contact

    def delete(self, contact: Contact) -> None:
        """Delete a contact. Its id is never used again."""
        del self._by_email[contact.email], self._by_id[contact.id]
        del self._ids[bisect_left(self._ids, contact.id)]

    def ids_above(self, contact_id: int) -> list[int]:
        """Return all ids above one, ascending."""
        return self._ids[bisect_right(self._ids, contact_id) :]


def normal_email(email: str) -> str:
    """Return an address as ActiveCampaign compares it."""
    return email.strip().lower()


class Table:
    """Rows as the API shows them, by ids that the table assigns: tags, fields, lists, connections."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self._last_id = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, row_id: int) -> bool:
        return row_id in self.rows

    def add(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Add a row. Return it with its `id`."""
        self._last_id += 1
        kept = {"id": str(self._last_id), **row}
        self.rows[self._last_id] = kept
        return kept

    def find(self, **values: object) -> dict[str, Any] | None:
        """Return the first row with all these values."""
        return next(iter(self.where(**values)), None)

    def where(self, **values: object) -> list[dict[str, Any]]:
        """Return the rows with all these values."""
        return [
            row for row in self.rows.values() if all(row.get(key) == value for key, value in values.items())
        ]
