"""Orders through GraphQL. Documents are validated against the project's copy of the schema.

Asynchronous upserts are accepted at once and written `order_delay_s` later. One invalid order refuses the
whole batch: `errors[0].message` is "Validation errors", and its `extensions` name the invalid orders.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from functools import cache, partial
from importlib.resources import files
from typing import Any
from uuid import uuid4

import msgspec
from graphql import (
    ExecutionResult,
    GraphQLError,
    GraphQLScalarType,
    GraphQLSchema,
    build_schema,
    execute_sync,
    parse,
    validate,
)

from kiva_stream.sandbox.activecampaign.account import Account, Breach, SandboxAccount
from kiva_stream.sandbox.activecampaign.calls import Call, Handlers
from kiva_stream.sandbox.activecampaign.contacts import Contact
from kiva_stream.sandbox.activecampaign.orders import OrderKey
from kiva_stream.sandbox.activecampaign.responses import CONTACT_LIMIT, Response, json_response

MAX_TOKENS = 15_000
_TOO_LARGE = f"More than {MAX_TOKENS} grammar tokens"
_SWITCHED_OFF = "Ecommerce is not enabled"
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_CURRENCY = re.compile("[A-Za-z]{3}")
_REQUIRED = ("email", "creationSource", "orderNumber", "currency")  # the vendor's own plugin requires them

Order = Mapping[str, Any]


@cache
def schema() -> GraphQLSchema:
    """Return the schema. It is read and built at the first call."""
    built = build_schema(files(__package__).joinpath("contract", "ecom.graphql").read_text("utf-8"))
    # A scalar of a schema that is read from text accepts any value: replace it by a strict type of that name.
    strict = GraphQLScalarType("BigDecimal", parse_value=_amount)
    vars(built.type_map["BigDecimal"]).update(vars(strict))
    return built


def _amount(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise GraphQLError(f"BigDecimal cannot represent {value!r}")
    try:
        return float(Decimal(value))
    except InvalidOperation:
        raise GraphQLError(f"BigDecimal cannot represent {value!r}") from None


def graphql(account: Account, call: Call) -> Response:
    """Execute a document. An invalid one is answered with HTTP 200 and `errors`."""
    try:
        document = parse(call.body["query"], max_tokens=MAX_TOKENS)
    except GraphQLError as error:
        return _refused(account, [_token_error(error)])
    problems = validate(schema(), document)
    if problems:
        return _refused(account, problems)
    if not account.settings.ecommerce_enabled:
        return json_response({"errors": [GraphQLError(_SWITCHED_OFF).formatted], "data": None})
    if _is_too_large(account.settings, call.body.get("variables") or {}):
        return json_response({"errors": [GraphQLError(_TOO_LARGE).formatted], "data": None})
    result = execute_sync(
        schema(),
        document,
        _Resolvers(account, call.now).by_field(),
        variable_values=call.body.get("variables"),
        operation_name=call.body.get("operationName"),
    )
    return _executed(account, result)


def _token_error(error: GraphQLError) -> GraphQLError:
    if f"more than {MAX_TOKENS} tokens" in error.message:
        return GraphQLError(_TOO_LARGE)
    return error


def _is_too_large(settings: SandboxAccount, variables: Mapping[str, Any]) -> bool:
    """Return whether a batch has more orders or bytes than the account's settings allow. It is no breach."""
    most, most_bytes = settings.max_orders_per_batch, settings.max_order_batch_bytes
    orders = variables.get("orders") or ()
    too_many = 0 < most < len(orders)
    return too_many or (bool(most_bytes) and len(msgspec.json.encode(variables)) > most_bytes)


def _refused(account: Account, errors: Sequence[GraphQLError]) -> Response:
    account.tally.breach(Breach.GRAPHQL, errors[0].message)
    return json_response({"errors": [error.formatted for error in errors], "data": None})


def _executed(account: Account, result: ExecutionResult) -> Response:
    errors = result.errors or []
    if any(error.path is None for error in errors):  # no field was resolved: the variables are invalid
        return _refused(account, errors)
    return json_response(result.formatted)


class _Resolvers:
    """The resolvers of the fields of Query and Mutation, for one request."""

    def __init__(self, account: Account, now: float) -> None:
        self._account = account
        self._now = now

    def by_field(self) -> dict[str, Callable[..., object]]:
        """Return a resolver for every field. A field that is not offered counts as a breach."""
        offered: dict[str, Callable[..., object]] = {
            "upsertOrder": self.upsert,
            "bulkUpsertOrdersAsync": self.upsert_later,
            "getOrder": self.get,
            "searchOrder": self.search,
        }
        types = (schema().query_type, schema().mutation_type)
        fields = [name for kind in types if kind for name in kind.fields]
        return {name: offered.get(name, partial(self._not_offered, name)) for name in fields}

    def _not_offered(self, name: str, _info: object, **_arguments: object) -> None:
        self._account.tally.breach(Breach.UNKNOWN_OPERATION, f"GraphQL {name}")
        raise GraphQLError(f"{name} is not offered")

    def upsert(self, _info: object, order: Order) -> dict[str, Any]:
        """Write an order at once."""
        (contact_id,) = self._accept([order])
        return self._account.orders.write(_key(order), contact_id, _without_customer_data(order))

    def upsert_later(self, _info: object, orders: Sequence[Order]) -> dict[str, str]:
        """Accept orders and write them later. Their contacts are written at once."""
        contact_ids = self._accept(orders)
        at = self._now + self._account.settings.order_delay_s
        for order, contact_id in zip(orders, contact_ids, strict=True):
            key = _key(order)
            self._account.orders.accept(key)
            self._account.agenda.add(at, partial(self._write, key, contact_id, order))
        return {"recordId": str(uuid4())}

    def _write(self, key: OrderKey, contact_id: int, order: Order) -> None:
        settings, written = self._account.settings, _without_customer_data(order)
        before = self._account.orders.get(key) if settings.order_source_is_kept else None
        if before:
            written["creationSource"] = before["creationSource"]
        self._account.orders.write_accepted(key, contact_id, written, replace=settings.orders_are_replaced)

    def _accept(self, orders: Sequence[Order]) -> list[int]:
        """Return the ids of the orders' contacts. Raises GraphQLError when one of them is invalid."""
        wrong = {_error_key(order): why for order in orders if (why := self._why_invalid(order))}
        if wrong:
            raise GraphQLError("Validation errors", extensions=wrong)
        if any(order["storeOrderId"] in self._account.settings.unnamed_orders for order in orders):
            raise GraphQLError("Internal server error")
        if self._account.is_full and any(not self._account.contacts.find(order["email"]) for order in orders):
            raise GraphQLError(CONTACT_LIMIT)
        self._account.order_requests.mark_applied()
        return [self._contact(order).id for order in orders]

    def _contact(self, order: Order) -> Contact:
        contact, _ = self._account.upsert(order["email"], self._now)
        _set_name(contact, order)
        return contact

    def _why_invalid(self, order: Order) -> str:
        missing = [name for name in _REQUIRED if not order.get(name)]
        if missing:
            return f"{missing[0]} is required"
        if order["storeOrderId"] in self._account.settings.invalid_orders:
            return "the order is invalid"
        if order["legacyConnectionId"] not in self._account.connections:
            return f"connection {order['legacyConnectionId']} does not exist"
        if order["finalAmount"] < 0:
            return "finalAmount must not be negative"
        if not _CURRENCY.fullmatch(order["currency"]):
            return "currency must have 3 letters"
        is_instant = _INSTANT.fullmatch(order["storeCreatedDate"])
        return "" if is_instant else "storeCreatedDate must be ISO 8601 in UTC"

    def get(self, _info: object, **arguments: Any) -> dict[str, Any] | None:  # noqa: ANN401
        """Return one order, or null if there is none."""
        return self._account.orders.get((arguments["legacyConnectionId"], arguments["storeOrderId"]))

    def search(self, _info: object, filter: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:  # noqa: A002
        """Return a page of the orders that match the filter."""
        asked = dict(filter or {})
        page = asked.pop("pagination", None) or {}
        offset, limit = page.get("offset", 0), page.get("limit", 20)
        if offset < 0 or not 0 < limit <= 100:  # noqa: PLR2004  as documented
            raise GraphQLError("pagination: offset must be at least 0, limit from 1 to 100")
        found = [order for order in self._account.orders if _matches(order, asked)]
        return found[offset : offset + limit]


def _key(order: Order) -> OrderKey:
    return order["legacyConnectionId"], order["storeOrderId"]


def _error_key(order: Order) -> str:
    return f"order-storeOrderId-{order['storeOrderId']}"


def _without_customer_data(order: Order) -> dict[str, Any]:
    return {name: value for name, value in order.items() if name != "customerData"}


def _set_name(contact: Contact, order: Order) -> None:
    """Overwrite a contact's name and phone by those of its order, as documented."""
    for source in ("billingAddress", "shippingAddress", "customerData"):
        data = order.get(source) or {}
        contact.first_name = data.get("firstName") or contact.first_name
        contact.last_name = data.get("lastName") or contact.last_name
        contact.phone = data.get("phone") or contact.phone


def _matches(order: Order, asked: Mapping[str, Mapping[str, Any]]) -> bool:
    return all(
        _satisfies(order.get(name), condition.get("filterOperator", "EQ"), condition.get("value"))
        for name, condition in asked.items()
    )


def _satisfies(value: Any, operator: str, wanted: Any) -> bool:  # noqa: ANN401
    if operator == "CONTAINS":
        return str(wanted) in str(value)
    return bool(value == wanted)


HANDLERS: Handlers = {"ecomGraphql": graphql}
