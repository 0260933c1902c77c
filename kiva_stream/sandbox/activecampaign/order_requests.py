"""The GraphQL requests that carried orders, also those that a fault kept from being processed."""

from __future__ import annotations

from typing import Literal

import msgspec


class _Order(msgspec.Struct, rename="camel"):
    store_order_id: str
    creation_source: Literal["REAL_TIME", "HISTORICAL"]


class _Variables(msgspec.Struct):
    orders: list[_Order] = []
    order: _Order | None = None


class _Document(msgspec.Struct):
    variables: _Variables


_read = msgspec.json.Decoder(_Document).decode


class OrderRequest(msgspec.Struct):
    """One request with orders in its variables."""

    at: float  # when it arrived, in seconds since 1970
    real_time: list[str]  # the shop's ids of the orders sent as REAL_TIME
    historical: int
    applied: bool = False


class OrderRequests:
    """All requests that carried orders."""

    def __init__(self) -> None:
        self.all: list[OrderRequest] = []
        self._newest: OrderRequest | None = None

    def receive(self, body: bytes, now: float) -> None:
        """Note the orders of a request. A request without orders, or with invalid ones, is not noted."""
        self._newest = None
        try:
            sent = _read(body).variables
        except msgspec.DecodeError:
            return
        orders = [*sent.orders, *([sent.order] if sent.order else [])]
        real_time = [order.store_order_id for order in orders if order.creation_source == "REAL_TIME"]
        if orders:
            self._newest = OrderRequest(now, real_time, historical=len(orders) - len(real_time))
            self.all.append(self._newest)

    def mark_applied(self) -> None:
        """Note that the request that was received last is applied."""
        if self._newest:
            self._newest.applied = True

    @property
    def real_time_count(self) -> int:
        """How many orders were received as REAL_TIME, a repeated one each time."""
        return sum(len(request.real_time) for request in self.all)
