"""The REST calls of Deep Data: they find and delete what was written through GraphQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kiva_stream.sandbox.activecampaign.account import Account
from kiva_stream.sandbox.activecampaign.calls import Call, Handlers, listing
from kiva_stream.sandbox.activecampaign.orders import OrderKey
from kiva_stream.sandbox.activecampaign.responses import Response, json_response, not_found


def find_customers(account: Account, call: Call) -> Response:
    """List the store customers that match the filters. A store customer exists while it has orders."""
    rows = [row for row in _customers(account) if _matches(row, call)]
    return listing("ecomCustomers", call.page(rows), len(rows))


def find_orders(account: Account, call: Call) -> Response:
    """List the orders that match the filters."""
    rows = [row for row in _orders(account) if _matches(row, call)]
    return listing("ecomOrders", call.page(rows), len(rows))


def delete_order(account: Account, call: Call) -> Response:
    """Delete one order, by ActiveCampaign's id of it."""
    for key, _, order in account.orders.items():
        if int(order["id"]) == call.path_id:
            account.orders.delete(key)
            return json_response({})
    raise not_found("EcomOrder", call.path_id)


def _customers(account: Account) -> Iterator[dict[str, Any]]:
    seen: set[OrderKey] = set()
    for (connection, _), owner, order in account.orders.items():
        key = connection, owner.customer_id
        if key not in seen:
            seen.add(key)
            yield {"id": _customer_id(key), **_identity(key, order)}


def _orders(account: Account) -> Iterator[dict[str, Any]]:
    for key, owner, order in account.orders.items():
        customer_id = _customer_id((key[0], owner.customer_id))
        yield {"id": order["id"], "customerid": customer_id, **_identity(key, order)}


def _identity(key: OrderKey, order: Mapping[str, Any]) -> dict[str, Any]:
    return {"connectionid": str(key[0]), "externalid": key[1], "email": order.get("email") or ""}


def _customer_id(key: OrderKey) -> str:
    """Return ActiveCampaign's id of a store customer, made of the connection's id and the shop's."""
    return f"{key[0]}{int(key[1] or 0):012}"


def _matches(row: Mapping[str, Any], call: Call) -> bool:
    asked = {
        name.removeprefix("filters[").removesuffix("]"): value
        for name, value in call.query.items()
        if name.startswith("filters[")
    }
    return all(str(row.get(name, "")) == value for name, value in asked.items())


HANDLERS: Handlers = {
    "findEcomCustomers": find_customers,
    "findEcomOrders": find_orders,
    "deleteEcomOrder": delete_order,
}
