"""Orders in the sandbox: GraphQL documents, asynchronous writes, refusals."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kiva_stream.sandbox.activecampaign import Fault, FaultKind
from kiva_stream.sandbox.activecampaign.contract import JSON_TYPE
from kiva_stream.sandbox.activecampaign.service import API_PREFIX, Request
from tests.support.sandbox import SHOP, Caller

LATER = "mutation Push($orders: [OrderInput]) { bulkUpsertOrdersAsync(orders: $orders) { recordId } }"
NOW = "mutation Push($order: OrderInput) { upsertOrder(order: $order) { id storeOrderId finalAmount } }"
GET = """query Get($id: String) { getOrder(legacyConnectionId: 1, storeOrderId: $id) {
    storeOrderId finalAmount normalizedStatus currency lineItems { name quantity priceAmount } } }"""
CONNECTION = {
    "service": "kiva_logic",
    "externalid": "1",
    "name": "Shop",
    "logoUrl": "https://shop.example/logo.png",
    "linkUrl": "https://shop.example",
}


def order(number: str = "7", **changes: object) -> dict[str, object]:
    return {
        "legacyConnectionId": 1,
        "storeOrderId": number,
        "storeCustomerId": "17",
        "email": "ann@example.org",
        "orderNumber": number,
        "creationSource": "HISTORICAL",
        "storeCreatedDate": "2024-03-02T05:00:00Z",
        "normalizedStatus": "COMPLETED",
        "currency": "eur",
        "finalAmount": 31.5,
        "lineItems": [{"name": "Box M", "category": "menu", "quantity": 1, "priceAmount": 29.0}],
        **changes,
    }


def shop(**settings: object) -> Caller:
    caller = Caller()
    caller.shop.change(**settings)
    caller.call("POST", "/connections", {"connection": CONNECTION})
    return caller


def run(caller: Caller, query: str, **variables: object) -> dict[str, Any]:
    status, answer = caller.call("POST", "/ecom/graphql", {"query": query, "variables": variables})
    assert status == 200
    return dict(answer)


def test_orders_are_accepted_now_and_written_later() -> None:
    caller = shop(order_delay_s=2.0)

    answer = run(caller, LATER, orders=[order("7"), order("8")])

    assert answer["data"]["bulkUpsertOrdersAsync"]["recordId"]
    assert "errors" not in answer
    caller.now += 1.99
    assert run(caller, GET, id="7") == {"data": {"getOrder": None}}
    caller.now += 0.01
    assert run(caller, GET, id="7")["data"]["getOrder"] == {
        "storeOrderId": "7",
        "finalAmount": 31.5,
        "normalizedStatus": "COMPLETED",
        "currency": "eur",
        "lineItems": [{"name": "Box M", "quantity": 1, "priceAmount": 29.0}],
    }
    assert len(caller.shop.orders) == 2


def test_the_contact_of_an_order_exists_at_once_with_the_name_in_the_order() -> None:
    caller = shop()

    run(caller, LATER, orders=[order(customerData={"firstName": "Ann"}, shippingAddress={"lastName": "Lee"})])

    ann = caller.shop.contacts.find("ann@example.org")
    assert ann
    assert (ann.first_name, ann.last_name) == ("Ann", "Lee")


def test_an_order_is_updated_by_its_key_and_keeps_what_is_not_sent() -> None:
    caller = shop()
    first = run(caller, NOW, order=order(storeStatus="open"))
    second = run(caller, NOW, order=order(finalAmount=40))

    stored = caller.shop.orders.get((1, "7"))
    assert first["data"]["upsertOrder"]["id"] == second["data"]["upsertOrder"]["id"]
    assert len(caller.shop.orders) == 1
    assert stored
    assert (stored["finalAmount"], stored["storeStatus"]) == (40.0, "open")


def test_one_invalid_order_refuses_the_whole_batch_and_is_named() -> None:
    caller = shop(invalid_orders=frozenset({"8"}))

    answer = run(caller, LATER, orders=[order("7"), order("8")])

    assert answer["errors"][0]["message"] == "Validation errors"
    assert answer["errors"][0]["extensions"] == {"order-storeOrderId-8": "the order is invalid"}
    caller.now += 60.0
    assert len(caller.shop.orders) == 0
    assert caller.shop.contacts.find("ann@example.org") is None
    assert caller.shop.tally.breaches == {}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"legacyConnectionId": 9}, "connection 9 does not exist"),
        ({"finalAmount": -1}, "finalAmount must not be negative"),
        ({"currency": "euro"}, "currency must have 3 letters"),
        ({"email": ""}, "email is required"),
        ({"creationSource": None}, "creationSource is required"),
        ({"storeCreatedDate": "2024-03-02"}, "storeCreatedDate must be ISO 8601 in UTC"),
    ],
)
def test_an_order_that_cannot_be_stored_is_invalid(changes: dict[str, object], why: str) -> None:
    answer = run(shop(), LATER, orders=[order() | changes])

    assert answer["errors"][0]["extensions"] == {"order-storeOrderId-7": why}


@pytest.mark.parametrize(
    "changes",
    [
        {"storeOrderId": 7},
        {"finalAmount": "much"},
        {"finalAmount": True},
        {"normalizedStatus": "DONE"},
        {"total": 1},
        {"lineItems": [{"quantity": 1.5}]},
    ],
)
def test_variables_that_do_not_fit_the_schema_are_a_breach(changes: dict[str, object]) -> None:
    caller = shop()

    answer = run(caller, LATER, orders=[order() | changes])

    assert answer["errors"]
    assert caller.shop.tally.breaches == {"graphql": 1}


@pytest.mark.parametrize("query", ["{ searchOrder { nothing } }", "{ searchOrder {", "{ orders { id } }"])
def test_a_document_that_does_not_fit_the_schema_is_a_breach(query: str) -> None:
    caller = shop()

    assert run(caller, query)["errors"]
    assert caller.shop.tally.breaches == {"graphql": 1}


def test_an_unknown_mutation_is_an_error_and_a_breach() -> None:
    caller = shop()

    answer = run(caller, 'mutation { deleteProduct(id: "1") { id } }')

    assert answer["errors"][0]["message"] == "deleteProduct is not offered"
    assert caller.shop.tally.breaches == {"unknown_operation": 1}


def test_a_document_of_more_than_15_000_tokens_is_refused_and_one_of_as_many_is_not() -> None:
    def message(notes: int) -> str:
        fields = 'storeOrderId: "7" legacyConnectionId: 1 storeCreatedDate: "" finalAmount: 1'  # 12 tokens
        texts = '"" ' * notes
        query = f"mutation {{ upsertOrder(order: {{{fields} notes: [{texts}]}}) {{ id }} }}"  # 17 tokens more
        return str(run(shop(), query)["errors"][0]["message"])

    assert message(14_971) == "Validation errors"
    assert message(14_972) == "More than 15000 grammar tokens"


def test_an_order_that_overtakes_its_earlier_version_is_counted() -> None:
    caller = shop(order_delay_s=2.0)
    run(caller, LATER, orders=[order()])
    run(caller, LATER, orders=[order()])
    assert caller.shop.orders.overtaken == 1

    caller.now += 2.0
    run(caller, LATER, orders=[order()])
    assert caller.shop.orders.overtaken == 1


def test_orders_are_searched_and_paged_by_the_filter() -> None:
    caller = shop(order_delay_s=0.0)
    run(caller, LATER, orders=[order(str(n), email=f"c{n % 2}@example.org") for n in range(6)])
    query = "query Find($filter: OrderFilter) { searchOrder(filter: $filter) { storeOrderId } }"

    def found(**conditions: object) -> list[str]:
        return [row["storeOrderId"] for row in run(caller, query, filter=conditions)["data"]["searchOrder"]]

    assert found(email={"value": "c1@example.org", "filterOperator": "EQ"}) == ["1", "3", "5"]
    assert found(email={"value": "c0"}) == []
    assert found(
        email={"value": "c0", "filterOperator": "CONTAINS"}, pagination={"offset": 1, "limit": 1}
    ) == ["2"]
    assert found(orderNumber={"value": "4"}, legacyConnectionId={"value": 1}) == ["4"]
    assert found(orderNumber={"value": "4"}, legacyConnectionId={"value": 2}) == []


def test_a_page_of_more_than_100_orders_is_refused() -> None:
    answer = run(shop(), "{ searchOrder(filter: {pagination: {limit: 101}}) { id } }")

    assert "limit from 1 to 100" in answer["errors"][0]["message"]


@pytest.mark.parametrize("settings", [{"max_orders_per_batch": 2}, {"max_order_batch_bytes": 1_000}])
def test_a_batch_too_large_is_refused_as_a_whole_and_is_no_breach(settings: dict[str, int]) -> None:
    caller = shop(order_delay_s=0.0, **settings)

    refused = run(caller, LATER, orders=[order(str(n)) for n in range(3)])
    accepted = run(caller, LATER, orders=[order(str(n)) for n in range(2)])

    assert [error["message"] for error in refused["errors"]] == ["More than 15000 grammar tokens"]
    assert refused["data"] is None
    assert "errors" not in accepted
    caller.now += 1.0
    assert [row["storeOrderId"] for row in caller.shop.orders] == ["0", "1"]
    assert caller.shop.tally.breaches == {}


def test_a_batch_may_be_refused_without_naming_the_order_at_fault() -> None:
    caller = shop(unnamed_orders=frozenset({"8"}))

    answer = run(caller, LATER, orders=[order("7"), order("8")])

    assert answer["errors"][0]["message"] == "Internal server error"
    assert "extensions" not in answer["errors"][0]
    caller.now += 60.0
    assert len(caller.shop.orders) == 0


def test_an_order_belongs_to_the_contact_of_its_address_also_after_a_move() -> None:
    caller = shop(order_delay_s=0.0)
    run(caller, LATER, orders=[order("7"), order("8", storeCustomerId="18"), order("9")])
    caller.now += 1.0
    caller.call("PUT", "/contacts/1", {"contact": {"email": "anna@example.org"}})

    assert [(owner.contact_id, owner.customer_id) for owner, _ in caller.shop.orders.owned()] == [
        (1, "17"),
        (1, "18"),
        (1, "17"),
    ]
    assert caller.shop.orders.customers() == {1: ["17", "18"]}


def test_an_order_of_nine_items_takes_less_than_half_a_kilobyte() -> None:
    caller = shop(order_delay_s=0.0)
    names = ("Kale", "Apples", "Bok Choy", "Sweet Potatoes", "Leeks", "Corn", "Dill", "Mint", "Oat Milk")
    lines = [
        {
            "storeLineItemId": str(1_000_000_000 + n),
            "productStorePrimaryId": str(1_000 + n),
            "name": name,
            "category": "menu",
            "quantity": 1,
            "priceAmount": 0.25 * n,
        }
        for n, name in enumerate(names)
    ]
    run(caller, LATER, orders=[order("7", lineItems=lines)])
    caller.now += 1.0

    assert caller.shop.orders.size_bytes < 400
    stored = caller.shop.orders.get((1, "7"))
    assert stored
    assert stored["lineItems"] == lines


def test_an_account_without_ecommerce_refuses_every_document() -> None:
    caller = shop(ecommerce_enabled=False)

    assert run(caller, LATER, orders=[order()])["errors"][0]["message"] == "Ecommerce is not enabled"
    assert run(caller, "{ __typename }")["errors"][0]["message"] == "Ecommerce is not enabled"
    assert caller.shop.tally.breaches == {}


def test_a_full_account_refuses_the_orders_of_a_new_contact() -> None:
    caller = shop(contact_limit=1)
    run(caller, LATER, orders=[order()])

    refused = run(caller, LATER, orders=[order(), order("8", email="new@example.org")])

    assert refused["errors"][0]["message"] == "You have reached your contact limit."
    assert "errors" not in run(caller, LATER, orders=[order("8")])


def test_a_deleted_connection_takes_its_orders_along_also_those_still_to_be_written() -> None:
    caller = shop()
    run(caller, LATER, orders=[order()])
    caller.now += 10
    run(caller, LATER, orders=[order("8")])

    caller.shop.disconnect(1)
    caller.now += 10

    assert len(caller.shop.orders) == 0
    (error,) = run(caller, LATER, orders=[order("9")])["errors"]
    assert error["extensions"] == {"order-storeOrderId-9": "connection 1 does not exist"}


def test_orders_received_as_real_time_are_counted_by_request_applied_or_not() -> None:
    caller = shop(invalid_orders=frozenset({"9"}))
    purchase = {"creationSource": "REAL_TIME"}

    run(caller, LATER, orders=[order("7"), order("8", **purchase)])
    run(caller, LATER, orders=[order("8", **purchase), order("9", **purchase)])
    run(caller, "{ searchOrder { id } }")

    noted = caller.shop.order_requests
    assert [(each.real_time, each.historical, each.applied) for each in noted.all] == [
        (["8"], 1, True),
        (["8", "9"], 0, False),
    ]
    assert noted.real_time_count == 3


def test_orders_are_noted_before_a_fault_and_not_applied_by_it() -> None:
    fault = Fault(path="/ecom/graphql", kind=FaultKind.HTML_503, count=1)
    caller = Caller(fault)
    caller.shop.connections.add({"service": "kiva_logic", "externalid": "1"})

    body = msgspec.json.encode({"query": LATER, "variables": {"orders": [order(creationSource="REAL_TIME")]}})
    caller.send(Request("POST", f"{API_PREFIX}/ecom/graphql", {}, SHOP.api_token, JSON_TYPE, body))

    (noted,) = caller.shop.order_requests.all
    assert (noted.real_time, noted.applied) == (["7"], False)


@pytest.mark.parametrize(
    ("setting", "source", "status"),
    [
        ({}, "REAL_TIME", "paid"),
        ({"order_source_is_kept": True}, "HISTORICAL", "paid"),
        ({"orders_are_replaced": True}, "REAL_TIME", None),
    ],
)
def test_an_order_may_keep_its_source_and_lose_what_an_update_does_not_say(
    setting: dict[str, object], source: str, status: str | None
) -> None:
    caller = shop(**setting)
    run(caller, LATER, orders=[order(storeStatus="paid")])
    caller.now += 10
    run(caller, LATER, orders=[order(creationSource="REAL_TIME")])
    caller.now += 10
    caller.shop.agenda.advance(caller.now)

    (kept,) = caller.shop.orders
    assert (kept["creationSource"], kept.get("storeStatus")) == (source, status)
