"""What ActiveCampaign shows of contacts and orders, to be compared with what it should; only ever read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import TypeVar

import msgspec

from kiva_stream.activecampaign.account import AccountIds
from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.contacts import SUBSCRIBED
from kiva_stream.activecampaign.responses.orders import parse_query
from kiva_stream.activecampaign.responses.rest import parse_by_contact_id
from kiva_stream.model.contacts import ShownContact
from kiva_stream.model.ids import AcId, Email, OrderId
from kiva_stream.model.orders import ShownOrder

T = TypeVar("T")

ORDERS_AT_ONCE = 50  # of one document: some 20 of its at most 15,000 tokens each
_SHOWN = (
    "fragment Shown on Order { storeCustomerId storeCreatedDate normalizedStatus storeStatus currency "
    "finalAmount discountsAmount creationSource "
    "lineItems { storeLineItemId productStorePrimaryId name category quantity priceAmount } }"
)


class _Contact(msgspec.Struct, rename="camel"):
    """Who a contact is; one that was made of a telephone number has no address."""

    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    phone: str | None = None


class _OneContact(msgspec.Struct):
    contact: _Contact


class _FieldValue(msgspec.Struct):
    field: int
    value: str | None = None


class _FieldValues(msgspec.Struct):
    values: list[_FieldValue] = msgspec.field(name="fieldValues")


class _Place(msgspec.Struct):
    """A contact's place on a list."""

    list: int
    status: int


class _Places(msgspec.Struct):
    places: list[_Place] = msgspec.field(name="contactLists")


class _LineItem(msgspec.Struct, rename="camel"):
    store_line_item_id: str | None = None
    product_store_primary_id: str | None = None
    name: str | None = None
    category: str | None = None
    quantity: int | None = None
    price_amount: Decimal | None = None

    def shown(self) -> tuple[str, str, str, str, int, Decimal]:
        """Return it as an OrderLine has it."""
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
        """Return it as it is to be compared."""
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
    """Implements `ports.ReadBacks` for one account, whose list, fields and connection are `ids`."""

    def __init__(self, client: Client, ids: AccountIds) -> None:
        self._client = client
        self._list_id = ids.list_id
        self._connection_id = ids.connection_id
        self._fields = {number: name for name, number in ids.fields.items()}

    async def contact(self, contact: AcId) -> ShownContact:
        """Return a contact: see `ports.ReadBacks`. Fields and lists of others are passed over."""
        who = (await self._of(contact, "", _OneContact)).contact
        values = (await self._of(contact, "/fieldValues", _FieldValues)).values
        places = (await self._of(contact, "/contactLists", _Places)).places
        return ShownContact(
            email=Email((who.email or "").strip().lower()),
            first_name=who.first_name or "",
            last_name=who.last_name or "",
            phone=who.phone or "",
            fields={
                self._fields[each.field]: each.value or "" for each in values if each.field in self._fields
            },
            is_subscribed=any(each.list == self._list_id and each.status == SUBSCRIBED for each in places),
        )

    async def orders(self, ids: Collection[OrderId]) -> dict[OrderId, ShownOrder]:
        """Return those of these orders that are there: see `ports.ReadBacks`."""
        found: dict[OrderId, ShownOrder] = {}
        left = iter(ids)
        while part := list(islice(left, ORDERS_AT_ONCE)):
            found |= await self._orders(part)
        return found

    async def _of(self, contact: AcId, part: str, shape: type[T]) -> T:
        read = partial(parse_by_contact_id, shape=shape)
        return await self._client.call("GET", f"/contacts/{contact}{part}", None, read, yields=True)

    async def _orders(self, ids: Sequence[OrderId]) -> dict[OrderId, ShownOrder]:
        variables: dict[str, object] = {f"o{place}": str(order) for place, order in enumerate(ids)}
        body = {"query": query(len(ids)), "variables": {"connection": self._connection_id, **variables}}
        read = partial(parse_query, shape=_Order)
        rows = await self._client.call("POST", "/ecom/graphql", body, read, yields=True)
        there = ((order, rows.get(f"o{place}")) for place, order in enumerate(ids))
        return {order: row.shown() for order, row in there if row is not None}


def query(count: int) -> str:
    """Return a document that asks for so many orders by the shop's ids of them, the variables $o0, $o1, …."""
    names = [f"o{place}" for place in range(count)]
    declared = " ".join(f"${name}: String" for name in names)
    asked = " ".join(
        f"{name}: getOrder(legacyConnectionId: $connection, storeOrderId: ${name}) {{ ...Shown }}"
        for name in names
    )
    return f"query ShownOrders($connection: Int {declared}) {{ {asked} }} {_SHOWN}"


def _cents(amount: Decimal | None) -> Decimal:
    return (amount or Decimal(0)) * 100
