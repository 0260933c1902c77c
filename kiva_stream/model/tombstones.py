"""Tombstones: what is left of people who are forgotten, to keep them out. Pure."""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

from kiva_stream.model.ids import CustomerId, Email

HASH_BYTES = 32
KEY_BYTES = 32


class ForgottenPeople(NamedTuple):
    """Who is forgotten: customers by their ids, addresses by their hashes with a key of the site's own."""

    customers: frozenset[CustomerId] = frozenset()
    addresses: frozenset[bytes] = frozenset()
    key: bytes = b""

    def includes(self, customer: CustomerId, email: Email | None) -> bool:
        """Return whether nothing of this customer, or of whoever has this address, goes to ActiveCampaign."""
        if customer in self.customers:
            return True
        return bool(self.addresses and email and address_hash(self.key, email) in self.addresses)


NONE_FORGOTTEN = ForgottenPeople()


def address_hash(key: bytes, email: Email) -> bytes:
    """Return 32 bytes that tell an address again, and not what it is to whoever lacks the key."""
    return blake2b(email.encode(), key=key, digest_size=HASH_BYTES).digest()
