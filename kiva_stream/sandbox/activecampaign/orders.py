"""The orders of an account, kept as JSON: half a kilobyte each instead of several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

OrderKey = tuple[int, str]  # the connection and the shop's own id of the order


class OrderBook:
    """All orders written, by key; and which are accepted but not written yet."""

    def __init__(self) -> None:
        self._orders: dict[OrderKey, bytes] = {}
        self._pending: dict[OrderKey, int] = {}
        self.overtaken = 0  # orders accepted while an earlier version was still to be written

    def __len__(self) -> int:
        return len(self._orders)

    def accept(self, key: OrderKey) -> None:
        """Note that a version of an order waits to be written."""
        waiting = self._pending.get(key, 0)
        self.overtaken += waiting > 0
        self._pending[key] = waiting + 1

    def settle(self, key: OrderKey, order: Mapping[str, Any]) -> None:
        """Write an accepted version of an order."""
        self._pending[key] -= 1
        if not self._pending[key]:
            del self._pending[key]
        self.write(key, order)

    def write(self, key: OrderKey, order: Mapping[str, Any]) -> dict[str, Any]:
        """Write an order over what there is of it; return all of it. What is not sent is kept."""
        old = self.get(key) or {"id": str(len(self._orders) + 1)}
        kept = {**old, **order}
        self._orders[key] = msgspec.json.encode(kept)
        return kept

    def get(self, key: OrderKey) -> dict[str, Any] | None:
        """Return an order as it is written."""
        text = self._orders.get(key)
        return None if text is None else msgspec.json.decode(text)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the orders in the order in which they were first written."""
        return (msgspec.json.decode(text) for text in self._orders.values())
