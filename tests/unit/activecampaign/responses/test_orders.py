"""What GraphQL's answers about orders mean."""

from __future__ import annotations

import pytest

from kiva_stream.activecampaign.responses.orders import parse_upserted_orders
from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.errors import AccountRefused, BatchTooLarge, KindRefused, OrdersRejected, Rejected, TryLater
from kiva_stream.model.ids import OrderId
from tests.unit.activecampaign.responses.builders import (
    HTML,
    Thing,
    answer,
    is_accepted,
    parse_orders,
    parse_things,
    raised,
)

ACCEPTED = {"data": {"bulkUpsertOrdersAsync": {"recordId": "b8d0"}}}


def faulty(message: object, extensions: object = None, data: object = None) -> dict[str, object]:
    return {"errors": [{"message": message, "extensions": extensions}], "data": data}


@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize("errors", [{}, {"errors": []}, {"errors": None}])
def test_orders_are_accepted_when_there_is_a_record_and_no_error(
    status: int, errors: dict[str, object]
) -> None:
    response = answer(status, ACCEPTED | errors)
    assert is_accepted(lambda each: parse_upserted_orders(each, {OrderId(4)}), response)


@pytest.mark.parametrize("status", [200, 201, 400, 422])
def test_orders_named_by_the_extensions_are_at_fault(status: int) -> None:
    named = {
        "order-storeOrderId-4": "finalAmount: must not be null for ann@example.org",
        "0-storeOrderId-5-lineItems": ["a", "b"],
        "order-storeOrderId-6": "of another batch",
        "order-storeOrderId-": "no id",
        "order-storeRecurringPaymentId-4": "no order",
        "classification": "x",
    }
    error = raised(parse_orders, answer(status, faulty("Validation errors", named)))

    assert isinstance(error, OrdersRejected)
    assert error.reasons == {4: "finalAmount: must not be null for [address]", 5: "['a', 'b']"}
    assert "Validation errors" in error.reply


def test_a_connection_given_as_the_reason_of_an_order_is_the_accounts_trouble() -> None:
    named = {"order-storeOrderId-4": "connection 1 does not exist", "order-storeOrderId-5": "no"}
    error = raised(parse_orders, answer(200, faulty("Validation errors", named)))

    assert type(error) is KindRefused
    assert "run check, then setup" in str(error)


def test_a_reason_that_quotes_an_orders_own_text_about_a_connection_is_the_orders() -> None:
    named = {"order-storeOrderId-4": 'no product of the name "Connection not found"'}
    assert isinstance(raised(parse_orders, answer(200, faulty("Validation errors", named))), OrdersRejected)


def test_orders_named_by_several_errors_are_all_at_fault() -> None:
    errors = [
        {"message": "Validation errors", "extensions": {"order-storeOrderId-4": "no"}},
        {"message": "Validation errors"},
        {"message": "Validation errors", "extensions": {"order-storeOrderId-5": "no"}},
    ]
    error = raised(parse_orders, answer(200, {"errors": errors}))

    assert isinstance(error, OrdersRejected)
    assert list(error.reasons) == [4, 5]


def test_an_order_whose_id_begins_like_another_is_not_that_one() -> None:
    named = {"order-storeOrderId-44": "no", f"order-storeOrderId-{'4' * 5_000}": "no"}
    error = raised(parse_orders, answer(400, faulty("Validation errors", named)))

    assert isinstance(error, OrdersRejected)
    assert error.reasons == {}


@pytest.mark.parametrize(
    "response",
    [
        answer(400, {"errors": [{"title": "Bad Request"}]}),
        answer(422, {"errors": "a bare text"}),
        answer(422),
        answer(409, b"\xff"),
    ],
)
def test_a_batch_refused_without_an_order_named_has_no_reasons(response: Response) -> None:
    error = raised(parse_orders, response)

    assert isinstance(error, OrdersRejected)
    assert error.reasons == {}
    assert error.reply.startswith(str(response.status))


@pytest.mark.parametrize(
    "body",
    [
        faulty("Internal Server Error(s) while executing query"),
        faulty("Validation errors", {}),
        faulty("Validation errors", ["order-storeOrderId-4"]),
        faulty("Validation errors", {"order-storeOrderId-6": "of another batch"}),
        faulty("Validation errors", data={"bulkUpsertOrdersAsync": None}),
        ACCEPTED | faulty("partly", data=ACCEPTED["data"]),
        faulty("Connection to the database was reset"),
        faulty(None),
    ],
)
def test_an_error_of_graphql_that_names_no_order_is_no_answer_about_orders(body: dict[str, object]) -> None:
    error = raised(parse_orders, answer(200, body))

    assert type(error) is TryLater
    assert error.is_unanswered


def test_an_error_of_graphql_about_a_rate_is_throttling() -> None:
    error = raised(parse_orders, answer(200, faulty("Rate limit exceeded, try again later")))

    assert isinstance(error, TryLater)
    assert error.after_s == 30


@pytest.mark.parametrize(
    "message",
    [
        "Ecommerce is not enabled",
        "E-commerce is not available on your plan",
        "The connection was not found",
        "Connection 7 does not exist",
        "Invalid legacyConnectionId",
        "Unauthorized",
        "The API key lacks a permission",
    ],
)
def test_an_error_of_graphql_about_what_all_orders_need_refuses_the_account(message: str) -> None:
    assert type(raised(parse_orders, answer(200, faulty(message)))) is KindRefused


@pytest.mark.parametrize(
    "response",
    [
        answer(413),
        answer(413, HTML),
        answer(413, {"message": "Payload Too Large"}),
        answer(200, faulty("More than 15000 grammar tokens have been presented.")),
        answer(400, faulty("More than 15000 grammar tokens have been presented.")),
        answer(500, faulty("More than 15000 grammar tokens have been presented.")),
        answer(200, faulty("The request body is too large")),
        answer(422, faulty("Query too long")),
    ],
)
def test_an_error_about_the_size_of_the_batch_makes_it_too_large(response: Response) -> None:
    assert type(raised(parse_orders, response)) is BatchTooLarge


@pytest.mark.parametrize("message", ["quantity is too large", "The name of the order is too long"])
def test_a_value_that_is_too_large_does_not_make_the_batch_so(message: str) -> None:
    assert type(raised(parse_orders, answer(400, faulty(message)))) is OrdersRejected


def test_an_order_that_is_named_for_its_size_is_at_fault_not_the_batch() -> None:
    named = {"order-storeOrderId-4": "too large"}

    assert (
        type(raised(parse_orders, answer(200, faulty("The request is too large", named)))) is OrdersRejected
    )


@pytest.mark.parametrize(
    "response",
    [
        answer(200, {"data": None}),
        answer(200, {"data": {}}),
        answer(200, {"data": {"bulkUpsertOrdersAsync": None}}),
        answer(200, {"data": {"bulkUpsertOrdersAsync": {"recordId": None}}}),
        answer(200, {"data": {"upsertOrder": {"id": "1"}}}),
        answer(500, faulty("Internal Server Error")),
        answer(503, faulty("Validation errors", {"order-storeOrderId-4": "no"})),
    ],
)
def test_orders_without_a_record_or_an_error_are_tried_later(response: Response) -> None:
    assert type(raised(parse_orders, response)) is TryLater


@pytest.mark.parametrize("status", [404, 405])
def test_orders_sent_to_an_address_without_an_api_refuse_the_account(status: int) -> None:
    assert type(raised(parse_orders, answer(status, {}))) is AccountRefused


def test_a_query_returns_what_is_there_and_none_for_what_is_not() -> None:
    assert parse_things(answer(200, {"data": {"a": {"id": "4"}, "b": None}})) == {"a": Thing(4), "b": None}


def test_an_error_that_says_not_found_refuses_no_query() -> None:
    faults = [{"message": "Order not found", "path": ["b"]}]
    assert parse_things(answer(200, {"data": {"b": None}, "errors": faults})) == {"b": None}


def test_a_query_with_any_other_error_is_rejected() -> None:
    faults = [{"message": "Order not found"}, {"message": "Cannot query field"}]
    assert type(raised(parse_things, answer(200, {"data": {}, "errors": faults}))) is Rejected


@pytest.mark.parametrize("body", [{}, {"data": None}, {"data": {"a": {"id": "x"}}}, {"data": [1]}])
def test_a_query_answered_in_another_shape_is_tried_later(body: object) -> None:
    assert type(raised(parse_things, answer(200, body))) is TryLater
