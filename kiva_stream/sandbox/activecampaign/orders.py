"""The orders of an account, stored as compressed JSON: a quarter of a kilobyte each instead of several."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

OrderKey = tuple[int, str]  # the connection and the shop's own id of the order
# A dictionary for zlib: what most orders have in common.
_COMMON = (
    b'{"name":"","category":"menu","quantity":1,"priceAmount":0.0},{"storeLineItemId":"1000000","name":"'
    b'","category":"addon","quantity":1,"priceAmount":15.0,"productStorePrimaryId":"1101"},'
    b'{"id":"100","contact":1,"storeOrderId":"100001","storeCustomerId":"1001","email":"@example.com",'
    b'"orderNumber":"100001","legacyConnectionId":1,"normalizedStatus":"COMPLETED","storeStatus":"complete",'
    b'"creationSource":"HISTORICAL","storeCreatedDate":"2026-01-01T17:30:00Z","currency":"USD",'
    b'"finalAmount":38.0,"discountsAmount":0.0,"lineItems":[{"storeLineItemId":"1000000",'
    b'"productStorePrimaryId":"1001","name":"","category":"menu","quantity":1,"priceAmount":0.0}]}'
)


class Owner(NamedTuple):
    """The owner of an order: the contact's id, and the customer's id in the shop."""

    contact_id: int
    customer_id: str


class OrderBook:
    """The written orders by key, and how many versions of each are accepted but not written yet."""

    def __init__(self) -> None:
        self._orders: dict[OrderKey, tuple[Owner, bytes]] = {}
        self._owners: dict[Owner, Owner] = {}  # so that all orders of an owner share one object
        self._pending: dict[OrderKey, int] = {}
        self._last_id = 0  # ids of deleted orders are never used again
        self.overtaken = 0  # orders accepted while an earlier version was still to be written

    def __len__(self) -> int:
        return len(self._orders)

    def accept(self, key: OrderKey) -> None:
        """Note that a version of an order is to be written."""
        pending = self._pending.get(key, 0)
        self.overtaken += pending > 0
        self._pending[key] = pending + 1

    def write_accepted(
        self, key: OrderKey, contact_id: int, order: Mapping[str, Any], *, replace: bool = False
    ) -> None:
        """Write an accepted version of an order, unless its connection was deleted meanwhile."""
        if key not in self._pending:
            return
        self._pending[key] -= 1
        if not self._pending[key]:
            del self._pending[key]
        self.write(key, contact_id, order, replace=replace)

    def write(
        self, key: OrderKey, contact_id: int, order: Mapping[str, Any], *, replace: bool = False
    ) -> dict[str, Any]:
        """Write a contact's order and return all of it.

        Attributes that are not sent are kept, unless the version is to `replace` the one before.
        """
        old = self.get(key) or {"id": str(self._next_id())}
        kept = {"id": old["id"], **order} if replace else {**old, **order}
        owner = Owner(contact_id, str(kept.get("storeCustomerId") or ""))
        self._orders[key] = self._owners.setdefault(owner, owner), _packed(kept)
        return kept

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def lose(self, order_ids: Collection[str]) -> None:
        """Delete orders by the shop's ids of them."""
        for key in [key for key in self._orders if key[1] in order_ids]:
            del self._orders[key]

    def disconnect(self, connection_id: int) -> None:
        """Delete the orders of a connection, also those that are accepted but not written yet."""
        for held in (self._orders, self._pending):
            for key in [key for key in held if key[0] == connection_id]:
                del held[key]

    def delete(self, key: OrderKey) -> None:
        """Delete one order."""
        del self._orders[key]

    def items(self) -> Iterator[tuple[OrderKey, Owner, dict[str, Any]]]:
        """Yield the orders with their keys and owners."""
        return ((key, owner, _unpacked(packed)) for key, (owner, packed) in list(self._orders.items()))

    def get(self, key: OrderKey) -> dict[str, Any] | None:
        """Return a written order."""
        kept = self._orders.get(key)
        return None if kept is None else _unpacked(kept[1])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the orders as they were first written, the oldest first."""
        return (order for _, order in self.owned())

    def owned(self) -> Iterator[tuple[Owner, dict[str, Any]]]:
        """Yield the orders with their owners."""
        return ((owner, _unpacked(packed)) for owner, packed in list(self._orders.values()))

    def customers(self) -> dict[int, list[str]]:
        """Return the sorted customer ids in the shop of each contact that has orders."""
        found: dict[int, set[str]] = {}
        for owner, _ in self._orders.values():
            found.setdefault(owner.contact_id, set()).add(owner.customer_id)
        return {contact_id: sorted(ids) for contact_id, ids in found.items()}

    @property
    def size_bytes(self) -> int:
        """The memory that the orders take, without their keys."""
        return sum(len(packed) for _, packed in self._orders.values())


def _packed(order: Mapping[str, Any]) -> bytes:
    packer = zlib.compressobj(level=1, zdict=_COMMON)
    return packer.compress(msgspec.json.encode(order)) + packer.flush()


def _unpacked(packed: bytes) -> dict[str, Any]:
    order: dict[str, Any] = msgspec.json.decode(zlib.decompressobj(zdict=_COMMON).decompress(packed))
    return order
