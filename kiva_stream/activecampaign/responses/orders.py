"""GraphQL's answers about orders. GraphQL refuses with a 200 and `errors`, beside which `data` may stand."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any, TypeVar

import msgspec

from kiva_stream.activecampaign.responses.response import Response, mask
from kiva_stream.activecampaign.responses.rest import Fault, faults, parse_rest
from kiva_stream.activecampaign.responses.statuses import TOO_LARGE, retry_after_s
from kiva_stream.errors import BatchTooLarge, KindRefused, OrdersRejected, Rejected, TryLater
from kiva_stream.model.ids import OrderId

T = TypeVar("T")

# ActiveCampaign documents none of these texts. "grammar tokens" and the keys of `extensions` are what its own
# WooCommerce plugin looks for.
_ORDER_KEY = re.compile(r"[^-]*-storeOrderId-(-?[0-9]{1,19})(?![0-9])")
_LARGE_BATCH = re.compile(
    r"grammar tokens|\b(request|payload|body|entity|document|query|batch)\b.* too (large|big|long)",
    re.IGNORECASE,
)
_RATE = re.compile(r"\b(rate limit|too many requests|throttl)", re.IGNORECASE)
# Texts about what all orders need: the connection, e-commerce, the plan, the key.
_ACCOUNT = re.compile(
    r"\b(e-?commerce|deep data)\b.* not (enabled|available|allowed)"
    r"|\bconnection\b.* (not found|not exist|not provided|deleted|disabled|inactive|invalid)"
    r"|\b(invalid|unknown|no such|missing) (legacy ?)?connection"
    r"|\byour plan\b|\bunauthori[sz]ed\b|\bforbidden\b|\b(lacks?|no|not|without)\b.* permission\b"
    r"|\b(invalid|wrong|missing) api (key|token)\b",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"\"[^\"]*\"|\{[^}]*\}")
_NOT_FOUND = re.compile(r"\b(not found|does not exist|no such)\b", re.IGNORECASE)


class _Accepted(msgspec.Struct):
    record: str = msgspec.field(name="recordId")


class _Upserted(msgspec.Struct):
    accepted: _Accepted | None = msgspec.field(name="bulkUpsertOrdersAsync")


class _Upsert(msgspec.Struct):
    data: _Upserted | None = None


def parse_upserted_orders(response: Response, ids: Collection[OrderId]) -> None:
    """Return if ActiveCampaign accepted the batch of these orders.

    Otherwise, by what the errors of a 200 say, or as `parse_rest`:

    | the errors (the first row that applies)                    | raises                                  |
    |------------------------------------------------------------|-----------------------------------------|
    | give an order the connection, e-commerce, plan, key as its | KindRefused: all orders share these     |
    | reason                                                     |                                         |
    | name orders of the batch                                   | OrdersRejected, with these              |
    | name none, and speak of the size; or the status is 413     | BatchTooLarge                           |
    | name none, and speak of a rate                             | TryLater, after the usual wait          |
    | name none, and speak of connection, e-commerce, plan, key  | KindRefused                             |
    | name none, and say anything else; or there is no record    | TryLater: it is not about the orders    |

    A 400 or 422 is OrdersRejected too, with the orders that it names, if any.
    """
    found = faults(response)
    reasons = _reasons_by_order(found, ids, response.secrets)
    if any(_says(_ACCOUNT, reason) for reason in reasons.values()):
        raise _account_refused(response)
    if not reasons and (response.status == TOO_LARGE or _any_says(_LARGE_BATCH, found)):
        raise BatchTooLarge(
            f"ActiveCampaign finds a batch of {len(ids)} orders too large: {response.excerpt()}"
        )
    try:
        answer = parse_rest(response, dict[str, Any]) if found else parse_rest(response, _Upsert)
    except Rejected:
        raise _batch_rejected(reasons, response) from None
    if reasons:
        raise _batch_rejected(reasons, response)
    if _any_says(_RATE, found):
        raise TryLater(f"ActiveCampaign throttles orders: {response.excerpt()}", retry_after_s(response))
    if _any_says(_ACCOUNT, found):
        raise _account_refused(response)
    if not (isinstance(answer, _Upsert) and answer.data and answer.data.accepted):
        raise TryLater(f"ActiveCampaign does not say whether it took the orders: {response.excerpt()}")


def parse_query(response: Response, shape: type[T]) -> dict[str, T | None]:
    """Return what a GraphQL query found, each as `shape`, by the query's aliases; None: not there.

    Errors that say "not found" are no refusal: the schema does not tell whether a missing order is null or an
    error. Raises Rejected if the query is refused, otherwise as `parse_rest`.
    """
    if not all(_NOT_FOUND.search(str(fault.message)) for fault in faults(response)):
        parse_rest(response, dict[str, Any])
        raise Rejected("ActiveCampaign refuses a query", response.excerpt())
    return parse_rest(response, dict[str, shape | None], key="data")  # type: ignore[valid-type]


def _reasons_by_order(
    named: Iterable[Fault], ids: Collection[OrderId], secrets: Iterable[str]
) -> dict[int, str]:
    """Return why orders of the batch were refused; the keys of the extensions are `x-storeOrderId-ID`."""
    extensions = (fault.extensions for fault in named if isinstance(fault.extensions, dict))
    keys = ((_ORDER_KEY.match(key), why) for each in extensions for key, why in each.items())
    reasons = {int(key[1]): mask(str(why), secrets) for key, why in keys if key}
    return {order: why for order, why in reasons.items() if order in ids}


def _any_says(pattern: re.Pattern[str], found: Iterable[Fault]) -> bool:
    """Return whether a message says this."""
    return any(_says(pattern, str(fault.message)) for fault in found)


def _says(pattern: re.Pattern[str], text: str) -> bool:
    """Return whether a text says this, apart from what it quotes, which may be an order's own text."""
    return bool(pattern.search(_QUOTED.sub("", text)))


def _account_refused(response: Response) -> KindRefused:
    return KindRefused(f"ActiveCampaign takes no orders; run check, then setup: {response.excerpt()}")


def _batch_rejected(reasons: dict[int, str], response: Response) -> OrdersRejected:
    excerpt = response.excerpt()
    return OrdersRejected(f"ActiveCampaign refused a batch of orders: {excerpt}", reasons, excerpt)
