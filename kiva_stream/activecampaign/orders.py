"""Orders, in batches through GraphQL.

ActiveCampaign advises against writing orders through REST, since they are not copied to the objects that its
automations read ("Orders" in its API reference).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

from kiva_stream.activecampaign.circuit_breaker import BeforeProbe
from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.responses.orders import parse_upserted_orders
from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.activecampaign.responses.rest import parse_rest
from kiva_stream.errors import KindRefused, Rejected, Unanswered
from kiva_stream.model.account_ids import AccountIds
from kiva_stream.model.orders import DesiredOrder, LineItem
from kiva_stream.ports.destination import Around

# With variables the document stays this short, however many orders there are. ActiveCampaign refuses
# documents of more than 15,000 tokens (its WooCommerce plugin counts them). A variable may be stricter than
# the argument, whose nullability is not documented (the GraphQL specification allows that).
QUERY = (
    "mutation UpsertOrders($orders: [OrderInput!]!) { bulkUpsertOrdersAsync(orders: $orders) { recordId } }"
)


class OrderBatches:
    """Implements `ports.destination.OrderUploads` for one account; `ids` has its connection to the shop.

    While orders are refused, each call raises what `before_probe` raises before a probe.
    """

    def __init__(self, client: Client, ids: AccountIds, before_probe: BeforeProbe | None = None) -> None:
        self._client = client
        self._connection_id = ids.connection_id
        # Orders can be refused, or the service behind them be down, while all other calls are answered.
        self._breaker = client.new_breaker(
            "orders", client.new_pause(), incident="orders", before_probe=before_probe
        )

    async def answers(self) -> bool:
        """See OrderUploads.answers."""
        parse = partial(parse_rest, shape=dict[str, Any], key="data")
        try:
            await self._call({"query": "{ __typename }"}, parse, tries=1, is_suspect=True)
        except Unanswered:
            return False
        except (Rejected, KindRefused):
            pass  # a refusal is an answer
        return True

    async def upsert(
        self,
        orders: Sequence[DesiredOrder],
        *,
        around: Around = nullcontext,
        tries: float = math.inf,
        is_suspect: bool = False,
    ) -> None:
        """Upsert orders; a batch whose answer was lost is sent again."""
        inputs = [order_input(order, self._connection_id) for order in orders]
        body = {"query": QUERY, "variables": {"orders": inputs}}
        parse = partial(parse_upserted_orders, ids={order.id for order in orders})
        await self._call(body, parse, tries=tries, is_suspect=is_suspect, around=around)

    async def _call(
        self,
        body: object,
        parse: Callable[[Response], object],
        *,
        tries: float,
        is_suspect: bool,
        around: Around = nullcontext,
    ) -> None:
        await self._client.call(
            "POST",
            "/ecom/graphql",
            body,
            parse=parse,
            tries=tries,
            breaker=self._breaker,
            is_suspect=is_suspect,
            around=around,
        )


def order_input(order: DesiredOrder, connection_id: int) -> dict[str, Any]:
    """Return an order as an `OrderInput` of ActiveCampaign's GraphQL schema.

    It contains no names: ActiveCampaign documents that it would overwrite the contact's names with them. It
    contains no empty texts, which ActiveCampaign's own plugins leave out too, and neither `acceptsMarketing`
    nor a list: of these an order must change nothing.
    """
    return _filled(
        {
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
    )


def _line_item(line: LineItem) -> dict[str, Any]:
    return _filled(
        {
            "storeLineItemId": line.id,
            "productStorePrimaryId": line.product_id,
            "name": line.name,
            "category": line.category,
            "quantity": line.quantity,
            "priceAmount": _amount(line.price_cents),
        }
    )


def _filled(values: dict[str, Any]) -> dict[str, Any]:
    """Leave empty texts out."""
    return {name: value for name, value in values.items() if value != ""}


def _amount(cents: int) -> Decimal:
    """Return cents as an exact decimal of the currency, the unit of ActiveCampaign's GraphQL."""
    return Decimal(cents) / 100


def _moment(at: datetime) -> str:
    """Return a moment as text, in UTC, whole seconds. asyncpg reads infinity as a datetime without zone."""
    in_utc = at.astimezone(UTC) if at.tzinfo else at
    return f"{in_utc.replace(tzinfo=None).isoformat(timespec='seconds')}Z"
