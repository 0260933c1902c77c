"""Tombstones: what is kept of forgotten people, so that they are not sent to ActiveCampaign again."""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

from kiva_stream.model.ids import CustomerId, Email

HASH_BYTES = 32
KEY_BYTES = 32


class ForgottenPeople(NamedTuple):
    """The forgotten people of a site: customers by id, addresses by their hash with the site's key."""

    customers: frozenset[CustomerId] = frozenset()
    addresses: frozenset[bytes] = frozenset()
    key: bytes = b""

    def includes(self, customer: CustomerId, email: Email | None) -> bool:
        """Return whether this customer, or a customer with this address, was forgotten."""
        if customer in self.customers:
            return True
        return bool(self.addresses and email and address_hash(self.key, email) in self.addresses)


NONE_FORGOTTEN = ForgottenPeople()


def address_hash(key: bytes, email: Email) -> bytes:
    """Return 32 bytes that identify an address, and do not reveal it without the key."""
    return blake2b(email.encode(), key=key, digest_size=HASH_BYTES).digest()
