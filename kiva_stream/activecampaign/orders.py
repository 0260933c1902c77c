"""Orders: batches of them through GraphQL, which is the copy that ActiveCampaign keeps orders by."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

from kiva_stream.activecampaign.account import AccountIds
from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.responses.orders import parse_upserted_orders
from kiva_stream.model.orders import DesiredOrder, LineItem

# With variables the document is as short as this, however many orders there are: ActiveCampaign counts its
# tokens. The variable's type is to be the argument's, nullable as it is.
QUERY = "mutation UpsertOrders($orders: [OrderInput]) { bulkUpsertOrdersAsync(orders: $orders) { recordId } }"


class OrderBatches:
    """Implements `ports.OrderUploads` for one account, whose connection with the shop is in `ids`."""

    def __init__(self, client: Client, ids: AccountIds) -> None:
        self._client = client
        self._connection_id = ids.connection_id

    async def upsert(self, orders: Sequence[DesiredOrder]) -> None:
        """Have orders written: see `ports.OrderUploads`. A batch whose answer was lost is sent again."""
        inputs = [order_input(order, self._connection_id) for order in orders]
        body = {"query": QUERY, "variables": {"orders": inputs}}
        read = partial(parse_upserted_orders, ids={order.id for order in orders})
        await self._client.call("POST", "/ecom/graphql", body, read)


def order_input(order: DesiredOrder, connection_id: int) -> dict[str, Any]:
    """Return an order as an `OrderInput` of ecom.graphql.

    It names nobody: ActiveCampaign would write an order's names over those of its contact.
    """
    return {
        "legacyConnectionId": connection_id,
        "storeOrderId": str(order.id),
        "orderNumber": str(order.id),
        "storeCustomerId": str(order.customer_id),
        "email": order.email,
        "storeCreatedDate": _moment(order.created_at),
        "creationSource": order.source.value,
        "normalizedStatus": order.normalized_status,
        "storeStatus": order.store_status,
        "currency": order.currency,
        "finalAmount": _amount(order.total_cents),
        "discountsAmount": _amount(order.discounts_cents),
        "lineItems": [_line_item(line) for line in order.lines],
    }


def _line_item(line: LineItem) -> dict[str, Any]:
    return {
        "storeLineItemId": line.id,
        "productStorePrimaryId": line.product_id,
        "name": line.name,
        "category": line.category,
        "quantity": line.quantity,
        "priceAmount": _amount(line.price_cents),
    }


def _amount(cents: int) -> Decimal:
    """Return cents as ActiveCampaign's decimals of the currency; the quotient is exact."""
    return Decimal(cents) / 100


def _moment(at: datetime) -> str:
    """Write a moment in UTC, whole seconds. asyncpg reads infinity as a datetime without a zone."""
    in_utc = at.astimezone(UTC) if at.tzinfo else at
    return f"{in_utc.replace(tzinfo=None).isoformat(timespec='seconds')}Z"
