"""The tombstones of forgotten people, and the deletion of what the state knows of a person."""

from __future__ import annotations

import os
from collections.abc import Collection

from kiva_stream.model.ids import ContactId, CustomerId, Email, OrderId
from kiva_stream.model.tombstones import KEY_BYTES, ForgottenPeople, address_hash
from kiva_stream.state.store import LONG_S, Store


class Tombstones:
    """The tombstones of one site. Every call raises CheckpointError."""

    def __init__(self, store: Store, site_id: int) -> None:
        self._store = store
        self._site_id = site_id

    async def forgotten_people(self) -> ForgottenPeople:
        """Return the people that are forgotten."""
        rows = await self._store.fetch("tombstones", self._site_id)
        customers = frozenset(CustomerId(row["customer_id"]) for row in rows)
        hashes = frozenset(row["address_hash"] for row in rows if row["address_hash"])
        return ForgottenPeople(customers, hashes, next((row["hash_key"] or b"" for row in rows), b""))

    async def record(self, customer: CustomerId, email: Email | None) -> None:
        """Insert the tombstone of a customer. The site must be bound to its account.

        `email` is kept out too; give None if another customer has that address.
        """
        hashed = None if email is None else address_hash(await self._key(), email)
        await self._store.fetch("insert_tombstone", self._site_id, customer, hashed)

    async def forget_orders(self, orders: Collection[OrderId]) -> int:
        """Delete what was sent of these orders; return of how many."""
        return len(await self._store.fetch("forget_orders", self._site_id, list(orders)))

    async def forget_customer(self, customer: CustomerId) -> dict[str, int]:
        """Delete a customer's link and dead letters; return how many rows by name."""
        (row,) = await self._store.fetch("forget_customer", self._site_id, customer, timeout_s=LONG_S)
        return dict(row)

    async def forget_contact(self, contact: ContactId) -> dict[str, int]:
        """Delete a contact with all of its customers; return how many rows by name."""
        (row,) = await self._store.fetch("forget_contact", self._site_id, contact, timeout_s=LONG_S)
        return dict(row)

    async def _key(self) -> bytes:
        """Return the site's key for hashes; the first call makes it."""
        (row,) = await self._store.fetch("hash_key", self._site_id, os.urandom(KEY_BYTES))
        return bytes(row["hash_key"])
