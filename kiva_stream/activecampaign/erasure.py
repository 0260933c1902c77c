"""Deletion of what ActiveCampaign has of a person: the contact, and a customer's orders."""

from __future__ import annotations

import msgspec

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.listings import read_rows
from kiva_stream.activecampaign.responses.rest import parse_deleted
from kiva_stream.model.account_ids import AccountIds
from kiva_stream.model.ids import AcId, CustomerId, OrderId


class _Row(msgspec.Struct):
    id: int
    externalid: str = ""


class Erasure:
    """Deletes at one account, whose connection to the shop is in `ids`.

    Every call outlasts throttling and outages. It raises AccountRefused, and Rejected if ActiveCampaign
    refuses the deletion. ActiveCampaign documents no call that deletes a store customer: it is deleted with
    the contact.
    """

    def __init__(self, client: Client, ids: AccountIds) -> None:
        self._client = client
        self._connection_id = ids.connection_id

    async def delete_contact(self, contact: AcId) -> bool:
        """Delete a contact; return whether it existed."""
        return await self._client.call("DELETE", f"/contacts/{contact}", parse=parse_deleted)

    async def delete_orders(self, customer: CustomerId) -> set[OrderId]:
        """Delete all orders of a customer of the shop; return the shop's ids of the deleted ones.

        They are listed again until nothing new is found: one that ignores its offset shows 100 at a time.
        """
        found: dict[int, OrderId] = {}
        while new := dict((await self._orders(customer)).items() - found.items()):
            for order in new:
                await self._client.call("DELETE", f"/ecomOrders/{order}", parse=parse_deleted)
            found |= new
        return set(found.values())

    async def _orders(self, customer: CustomerId) -> dict[int, OrderId]:
        """Return the orders of a customer: the shop's ids by ActiveCampaign's."""
        query = {"filters[externalid]": str(customer), "filters[connectionid]": str(self._connection_id)}
        orders: dict[int, OrderId] = {}
        for store_customer in await read_rows(self._client, "ecomCustomers", list[_Row], query=query):
            of_customer = {"filters[customerid]": str(store_customer.id)}
            rows = await read_rows(self._client, "ecomOrders", list[_Row], query=of_customer)
            ours = [row for row in rows if row.externalid.removeprefix("-").isdecimal()]
            orders |= {row.id: OrderId(int(row.externalid)) for row in ours}
        return orders
