"""Contacts and orders as ActiveCampaign shows them; read only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import TypeVar

import msgspec

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.contacts import SUBSCRIBED, ListPlace
from kiva_stream.activecampaign.listings import read_listing_of_contact
from kiva_stream.activecampaign.responses.orders import parse_query
from kiva_stream.activecampaign.responses.rest import parse_by_contact_id
from kiva_stream.model.account_ids import AccountIds
from kiva_stream.model.contacts import ShownContact
from kiva_stream.model.ids import AcId, Email, OrderId
from kiva_stream.model.orders import ShownOrder

T = TypeVar("T")

ORDERS_AT_ONCE = 50  # in one document, at some 20 of its at most 15,000 tokens each
_SHOWN = (
    "fragment Shown on Order { storeCustomerId storeCreatedDate normalizedStatus storeStatus currency "
    "finalAmount discountsAmount creationSource "
    "lineItems { storeLineItemId productStorePrimaryId name category quantity priceAmount } }"
)


class _Contact(msgspec.Struct, rename="camel"):
    """A contact; one that was created from a telephone number has no address."""

    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    phone: str | None = None


class _FieldValue(msgspec.Struct):
    field: int
    value: str | None = None


class _LineItem(msgspec.Struct, rename="camel"):
    store_line_item_id: str | None = None
    product_store_primary_id: str | None = None
    name: str | None = None
    category: str | None = None
    quantity: int | None = None
    price_amount: Decimal | None = None

    def shown(self) -> tuple[str, str, str, str, int, Decimal]:
        """Return the item as `ShownOrder.lines` has it, prices in cents."""
        return (
            self.store_line_item_id or "",
            self.product_store_primary_id or "",
            self.name or "",
            self.category or "",
            self.quantity or 0,
            _cents(self.price_amount),
        )


class _Order(msgspec.Struct, rename="camel"):
    store_customer_id: str | None = None
    store_created_date: str | None = None
    normalized_status: str | None = None
    store_status: str | None = None
    currency: str | None = None
    final_amount: Decimal | None = None
    discounts_amount: Decimal | None = None
    creation_source: str | None = None
    line_items: list[_LineItem] | None = None

    def shown(self) -> ShownOrder:
        """Return the order in the form in which it is compared, amounts in cents."""
        return ShownOrder(
            customer_id=self.store_customer_id or "",
            created_at=self.store_created_date or "",
            normalized_status=self.normalized_status or "",
            store_status=self.store_status or "",
            currency=self.currency or "",
            total_cents=_cents(self.final_amount),
            discounts_cents=_cents(self.discounts_amount),
            source=self.creation_source or "",
            lines=tuple(item.shown() for item in self.line_items or ()),
        )


class ReadBacks:
    """Implements `ports.destination.ReadBacks` for one account; list, fields and connection are in `ids`."""

    def __init__(self, client: Client, ids: AccountIds) -> None:
        self._client = client
        self._list_id = ids.list_id
        self._connection_id = ids.connection_id
        self._fields = {number: name for name, number in ids.fields.items()}

    async def contact(self, contact: AcId) -> ShownContact:
        """Return a contact, by three requests; fields and lists that are not in `ids` are left out."""
        path = f"/contacts/{contact}"
        parse = partial(parse_by_contact_id, shape=_Contact, key="contact")
        person = await self._client.call("GET", path, parse=parse, low_priority=True)
        values = await self._listing(path, "fieldValues", list[_FieldValue])
        statuses = await self._listing(path, "contactLists", list[ListPlace])
        return ShownContact(
            email=Email((person.email or "").strip().lower()),
            first_name=person.first_name or "",
            last_name=person.last_name or "",
            phone=person.phone or "",
            fields={
                self._fields[each.field]: each.value or "" for each in values if each.field in self._fields
            },
            is_subscribed=ListPlace(self._list_id, SUBSCRIBED) in statuses,
        )

    async def orders(self, ids: Collection[OrderId]) -> dict[OrderId, ShownOrder]:
        """Read orders, up to ORDERS_AT_ONCE by one request."""
        found: dict[OrderId, ShownOrder] = {}
        left = iter(ids)
        while part := list(islice(left, ORDERS_AT_ONCE)):
            found |= await self._orders(part)
        return found

    async def _listing(self, path: str, name: str, shape: type[list[T]]) -> list[T]:
        parse = partial(parse_by_contact_id, shape=shape, key=name)
        return await read_listing_of_contact(self._client, f"{path}/{name}", parse, low_priority=True)

    async def _orders(self, ids: Sequence[OrderId]) -> dict[OrderId, ShownOrder]:
        variables: dict[str, object] = {f"o{index}": str(order) for index, order in enumerate(ids)}
        body = {"query": query(len(ids)), "variables": {"connection": self._connection_id, **variables}}
        parse = partial(parse_query, shape=_Order)
        rows = await self._client.call("POST", "/ecom/graphql", body, parse=parse, low_priority=True)
        found = ((order, rows.get(f"o{index}")) for index, order in enumerate(ids))
        return {order: row.shown() for order, row in found if row is not None}


def query(count: int) -> str:
    """Return a GraphQL document for so many orders; the variables $o0, $o1, … are the shop's ids of them."""
    names = [f"o{index}" for index in range(count)]
    declared = " ".join(f"${name}: String" for name in names)
    asked = " ".join(
        f"{name}: getOrder(legacyConnectionId: $connection, storeOrderId: ${name}) {{ ...Shown }}"
        for name in names
    )
    return f"query ShownOrders($connection: Int {declared}) {{ {asked} }} {_SHOWN}"


def _cents(amount: Decimal | None) -> Decimal:
    return (amount or Decimal(0)) * 100
