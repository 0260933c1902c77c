"""Erasure: what ActiveCampaign has of a person, deleted: a contact, and a customer's orders."""

from __future__ import annotations

from typing import Protocol, TypeVar
from urllib.parse import urlencode

import msgspec

from kiva_stream.activecampaign.account import AccountIds
from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.responses.rest import parse_deleted, parse_rest
from kiva_stream.model.ids import AcId, CustomerId, OrderId

PAGE_ROWS = 100  # the most ActiveCampaign lists at a time


class _Row(msgspec.Struct):
    id: int
    externalid: str = ""


class _Page(Protocol):
    @property
    def rows(self) -> list[_Row]: ...


class _StoreCustomers(msgspec.Struct):
    rows: list[_Row] = msgspec.field(name="ecomCustomers")


class _StoreOrders(msgspec.Struct):
    rows: list[_Row] = msgspec.field(name="ecomOrders")


P = TypeVar("P", bound=_Page)


class Erasure:
    """Deletes at one account, whose connection with the shop is in `ids`.

    Every call waits out throttling and outages, and raises AccountRefused, and Rejected when it is refused.
    Deep Data has no call that deletes a store customer: it goes with the contact.
    """

    def __init__(self, client: Client, ids: AccountIds) -> None:
        self._client = client
        self._connection_id = ids.connection_id

    async def delete_contact(self, contact: AcId) -> bool:
        """Delete a contact; return whether it was there."""
        return await self._client.call("DELETE", f"/contacts/{contact}", None, parse_deleted)

    async def delete_orders(self, customer: CustomerId) -> set[OrderId]:
        """Delete all orders of a customer of the shop; return the shop's ids of those that were there."""
        found = await self._orders(customer)
        for order in found:
            await self._client.call("DELETE", f"/ecomOrders/{order}", None, parse_deleted)
        return set(found.values())

    async def _orders(self, customer: CustomerId) -> dict[int, OrderId]:
        """Return the orders of a customer: the shop's ids by ActiveCampaign's."""
        named = {"externalid": str(customer), "connectionid": str(self._connection_id)}
        orders: dict[int, OrderId] = {}
        for store_customer in await self._all("/ecomCustomers", _StoreCustomers, named):
            rows = await self._all("/ecomOrders", _StoreOrders, {"customerid": str(store_customer.id)})
            orders |= {row.id: OrderId(int(row.externalid)) for row in rows if row.externalid.isdecimal()}
        return orders

    async def _all(self, path: str, shape: type[P], filters: dict[str, str]) -> list[_Row]:
        rows: list[_Row] = []
        asked = {f"filters[{name}]": value for name, value in filters.items()}
        while True:
            query = urlencode({**asked, "limit": PAGE_ROWS, "offset": len(rows)})
            page = await self._client.call(
                "GET", f"{path}?{query}", None, lambda reply: parse_rest(reply, shape)
            )
            rows += page.rows
            if len(page.rows) < PAGE_ROWS:
                return rows
