"""The whole table of what ActiveCampaign's answers mean, row by row."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from kiva_stream.activecampaign.responses import (
    SAID_CHARS,
    Duplicate,
    Reply,
    TagLink,
    UnknownEventName,
    event,
    found,
    linked,
    links,
    logged,
    of_contact,
    page,
    queried,
    queued,
    renamed,
    report,
    rest,
    still_unknown,
    synced,
    unlinked,
    upserted,
)
from kiva_stream.errors import (
    AccountRefused,
    AddressTaken,
    BatchTooLarge,
    ContactGone,
    DeliveryError,
    OrdersRejected,
    Rejected,
    RowsRejected,
    TryLater,
    UnknownOutcome,
)
from kiva_stream.model.bulk_imports import AcceptedImport, ImportReport, ImportState
from kiva_stream.model.ids import Email, OrderId

HTML = b"<html><body><h1>We are currently having some issues.</h1></body></html>"
DUPLICATE = {"errors": [{"title": "in use", "code": "duplicate", "source": {"pointer": "/data"}}]}


def answer(status: int, body: object = b"", retry_after: str | None = None) -> Reply:
    return Reply(status, body if isinstance(body, bytes) else msgspec.json.encode(body), retry_after)


def refused(message: str, status: int = 200) -> Reply:
    return answer(status, {"success": 0, "message": message})


def raised(read: Callable[[Reply], Any], reply: Reply) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        read(reply)
    return caught.value


class Thing(msgspec.Struct):
    id: int


read_thing = partial(rest, shape=Thing)
read_import = partial(queued, count=3)
read_orders = partial(upserted, ids={OrderId(4), OrderId(5)})
TAG_READERS = [links, linked, unlinked]
read_query = partial(queried, shape=Thing)
REST_READERS = [
    *(read_thing, read_import, report, page, synced, renamed),
    *(*TAG_READERS, logged, read_orders, read_query),
]
ALL_READERS = [event, *REST_READERS]


# --- events


@pytest.mark.parametrize(
    "body",
    [
        {"success": 1, "message": "Event spawned"},
        {"success": 1},
        {"success": "1", "message": "Event spawned"},
        b"1",
        b" 1\n",
    ],
)
def test_an_event_is_done_when_the_body_says_so(body: object) -> None:
    event(answer(200, body))
    event(answer(201, body))


@pytest.mark.parametrize(
    "message",
    [
        "An account ID must be provided.",
        "Invalid event key.",
        "Unknown event key",
        "Event tracking is not enabled.",
        "Tracking is disabled for this actid",
        "Authentication failed",
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_what_holds_for_every_event_refuses_the_account(message: str, status: int) -> None:
    assert type(raised(event, refused(message, status))) is AccountRefused


@pytest.mark.parametrize(
    "message",
    [
        "Unknown event name.",
        "Unknown event for this account",
        "Event 'Customer cancelled' does not exist",
        "The event is not registered",
        "Invalid event",
    ],
)
def test_a_name_that_is_not_known_is_told_from_the_rest(message: str) -> None:
    error = raised(event, refused(message))

    assert type(error) is UnknownEventName
    assert error.said == message


@pytest.mark.parametrize("body", [b"0", {"success": 0}, {"success": "0"}, {"success": 0, "message": ""}])
def test_a_bare_0_counts_as_an_unknown_name_first(body: object) -> None:
    error = raised(event, answer(200, body))

    assert type(error) is UnknownEventName
    assert error.said == ""


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("", AccountRefused),
        ("Unknown event name: event tracking is off", AccountRefused),
        ("Unknown event name.", Rejected),
    ],
)
def test_a_name_unknown_after_its_registration_is_the_events_fault_only_if_the_answer_says_so(
    said: str, meaning: type[DeliveryError]
) -> None:
    assert type(still_unknown(UnknownEventName(said))) is meaning


def test_any_other_success_0_rejects_the_event_with_what_was_said() -> None:
    error = raised(event, refused("Event could not be saved."))

    assert type(error) is Rejected
    assert "Event could not be saved." in error.reply


@pytest.mark.parametrize(
    "reply",
    [
        answer(200, HTML),
        answer(200, b""),
        answer(200, {"ok": True}),
        answer(200, {"success": 7}),
        answer(200, {"success": True}),
        answer(200, b"\xff\xfe"),
        answer(204),
        answer(302, b""),
        answer(404, HTML),
        answer(400, {"success": 1}),
        *(answer(status, body) for status in (408, 425, 499) for body in (b"", {"success": 0})),
        *(answer(status) for status in (500, 502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 590)),
        answer(500, {"success": 1}),
        answer(500, {"success": 0, "message": "Invalid event key."}),
        answer(503, HTML),
    ],
)
def test_an_event_whose_answer_does_not_say_whether_it_is_recorded_is_of_unknown_outcome(
    reply: Reply,
) -> None:
    assert type(raised(event, reply)) is UnknownOutcome


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("body", [{}, b"", {"message": "no"}, {"success": 0, "message": "no"}])
def test_any_other_refusal_of_one_event_rejects_it(status: int, body: object) -> None:
    assert type(raised(event, answer(status, body))) is Rejected


@pytest.mark.parametrize("status", [404, 405, 406, 409, 410, 413, 415, 421, 451])
@pytest.mark.parametrize("body", [{}, b"", b"404 page not found", {"success": 0, "message": "no"}])
def test_what_no_event_caused_is_about_the_address_and_rejects_none(status: int, body: object) -> None:
    error = raised(event, answer(status, body))

    assert type(error) is AccountRefused
    assert "event_url" in str(error)


# --- what events and the rest share


@pytest.mark.parametrize("read", ALL_READERS)
@pytest.mark.parametrize("body", [b"", HTML, {"message": "Too Many Requests"}, {"success": 0}])
@pytest.mark.parametrize(
    ("status", "retry_after", "after_s"),
    [
        (429, "30", 30),
        (429, "0", 0),
        (503, "7", 7),
        (429, None, 30),
        (503, "Sun, 06 Nov 1994 08:49:37 GMT", 30),
    ],
)
def test_throttling_says_how_long_the_account_waits(
    read: Callable[[Reply], Any], body: object, status: int, retry_after: str | None, after_s: float
) -> None:
    error = raised(read, answer(status, body, retry_after))

    assert type(error) is TryLater
    assert error.after_s == after_s


@pytest.mark.parametrize("read", ALL_READERS)
@pytest.mark.parametrize("status", [401, 402, 403])
@pytest.mark.parametrize("body", [b"", {"message": "Forbidden"}, {"success": 0}, HTML])
def test_401_402_and_403_refuse_the_account(read: Callable[[Reply], Any], status: int, body: object) -> None:
    assert type(raised(read, answer(status, body))) is AccountRefused


# --- everything else


def test_the_body_is_what_was_asked_for() -> None:
    assert rest(answer(200, {"id": "7", "more": []}), Thing) == Thing(7)
    assert rest(answer(201, {"id": 7}), Thing) == Thing(7)


@pytest.mark.parametrize("read", REST_READERS)
@pytest.mark.parametrize(
    "reply",
    [
        answer(200, HTML),
        answer(200, b""),
        answer(200, {"surprise": 1}),
        answer(200, b"\xff"),
        answer(204),
        answer(301),
        answer(400, HTML),
        answer(404, HTML),
        answer(408),
        answer(425),
        answer(499, {"message": "Client Closed Request"}),
        *(answer(status) for status in (500, 502, 503, 504, 520, 521, 525, 526, 590)),
        answer(500, {"id": 1, "batchId": "x", "status": "completed"}),
    ],
)
def test_what_cannot_be_read_or_answered_now_is_asked_again(
    read: Callable[[Reply], Any], reply: Reply
) -> None:
    error = raised(read, reply)

    assert type(error) is TryLater
    assert error.after_s is None


@pytest.mark.parametrize(
    "reply",
    [
        answer(422, {"errors": [{"title": "Email is not valid", "code": "email_invalid"}]}),
        answer(422, {"errors": "a bare text"}),
        answer(422, {"errors": [{"title": "The connection service was not provided."}]}),
        answer(422, b"\xff"),
        answer(422),
        answer(400, {"errors": [{"status": 400, "title": "Bad Request"}]}),
        answer(400, DUPLICATE),
        answer(409, {}),
        answer(413, {}),
    ],
)
def test_a_refusal_of_one_object_rejects_it(reply: Reply) -> None:
    assert type(raised(read_thing, reply)) is Rejected


def test_an_object_asked_for_by_its_id_may_not_be_there() -> None:
    reply = answer(404, {"message": "No Result found for Subscriber with id 1"})

    assert type(raised(partial(of_contact, shape=Thing), reply)) is ContactGone
    assert type(raised(partial(rest, shape=Thing, is_of_one=True), reply)) is Rejected


@pytest.mark.parametrize("read", [read_thing, read_import])
@pytest.mark.parametrize("status", [404, 405, 406, 410, 415, 421, 451])
@pytest.mark.parametrize("body", [{}, b"", b"404 page not found", {"message": "Not Found"}])
def test_an_address_where_nobody_answers_is_about_the_settings_and_rejects_nothing(
    read: Callable[[Reply], Any], status: int, body: object
) -> None:
    error = raised(read, answer(status, body))

    assert type(error) is AccountRefused
    assert "api_url" in str(error)


@pytest.mark.parametrize("status", [405, 410])
def test_an_import_is_not_lost_because_the_address_is_wrong(status: int) -> None:
    assert type(raised(report, answer(status))) is AccountRefused


def test_a_duplicate_says_that_it_is_there() -> None:
    assert type(raised(read_thing, answer(422, DUPLICATE))) is Duplicate


# --- bulk import


@pytest.mark.parametrize("word", ["success", "Success"])
def test_an_accepted_import_has_an_id(word: str) -> None:
    reply = answer(200, {word: 1, "queued_contacts": 3, "batchId": "b-1"})

    assert queued(reply, 3) == AcceptedImport("b-1", is_short=False)


@pytest.mark.parametrize("count", [0, 2, "2"])
def test_an_import_that_leaves_contacts_out_is_short(count: object) -> None:
    reply = answer(200, {"success": 5, "queued_contacts": count, "batchId": "b-1"})

    assert queued(reply, 3) == AcceptedImport("b-1", is_short=True)


def test_an_import_that_does_not_say_how_many_is_taken_as_whole() -> None:
    assert queued(answer(200, {"batchId": "b-1"}), 3) == AcceptedImport("b-1", is_short=False)


@pytest.mark.parametrize(
    "body",
    [
        {
            "success": 0,
            "message": "Rate limit exceeded.",
            "failureReasons": ["Up to 100 imports may be requested per minute. Please try again later."],
        },
        {"success": 0, "message": "Rate limit exceeded."},
        {"success": 0, "message": "", "failureReasons": ["Up to 20 imports may be requested per minute."]},
    ],
)
def test_throttling_in_the_disguise_of_a_400_is_tried_later(body: object) -> None:
    assert type(raised(read_import, answer(400, body))) is TryLater


@pytest.mark.parametrize("number", [2, "2"])
def test_rows_that_refuse_an_import_are_counted_from_0(number: object) -> None:
    reasons = [{"contact": number, "failureReason": "Email bob@example.org is invalid."}, {"contact": 3}]
    error = raised(read_import, answer(400, {"success": 0, "message": "no", "failureReasons": reasons}))

    assert isinstance(error, RowsRejected)
    assert error.reasons == {1: "Email [address] is invalid.", 2: ""}


@pytest.mark.parametrize(
    "reply",
    [
        answer(400, {"success": 0, "message": "The list does not exist."}),
        answer(400, {"success": 0, "message": "no", "failureReasons": ["The contact limit is reached."]}),
        answer(400, {"success": 0, "message": "no", "failureReasons": [{"contact": 0}, {"contact": 4}]}),
        answer(400, b"\xff"),
        answer(404, {"message": "no such thing"}),
        answer(422, {"errors": []}),
    ],
)
def test_an_import_refused_for_no_fault_of_its_rows_is_the_accounts_matter(reply: Reply) -> None:
    assert type(raised(read_import, reply)) is AccountRefused


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (False, ImportState.RUNNING),
        ("waiting", ImportState.RUNNING),
        ("claimed", ImportState.RUNNING),
        ("active", ImportState.RUNNING),
        ("completed", ImportState.COMPLETED),
        ("failed", ImportState.LOST),
        ("interrupted", ImportState.LOST),
    ],
)
def test_an_import_has_come_as_far_as_its_status_says(status: object, state: ImportState) -> None:
    assert report(answer(200, {"status": status, "success": ["1"], "failure": []})).state is state


def test_the_failures_of_an_import_are_lower_case_addresses() -> None:
    reply = answer(200, {"status": "completed", "success": [], "failure": ["Ann@Example.org", " bob@x.org"]})

    assert report(reply) == ImportReport(ImportState.COMPLETED, frozenset({"ann@example.org", "bob@x.org"}))


@pytest.mark.parametrize(
    "reply",
    [
        answer(404, {"message": "No Result found for ContactImport with id x"}),
        answer(400, {"success": 0, "message": "'batchId' is a required field."}),
    ],
)
def test_an_import_that_nobody_knows_is_lost(reply: Reply) -> None:
    assert report(reply) == ImportReport(ImportState.LOST)


@pytest.mark.parametrize("status", ["done", None, 3])
def test_an_import_status_that_is_not_known_is_asked_again(status: object) -> None:
    assert type(raised(report, answer(200, {"status": status}))) is TryLater


# --- contacts


ANN = Email("ann@example.org")


@pytest.mark.parametrize(
    ("contacts", "found_id"),
    [
        ([], None),
        ([{"id": "1", "email": "Ann@Example.org"}], 1),
        ([{"id": "1", "email": "joann@example.org"}], None),
        ([{"id": "1", "email": "joann@example.org"}, {"id": 2, "email": "ann@example.org"}], 2),
        ([{"id": "1", "email": None}], None),
    ],
)
def test_a_contact_is_found_by_its_whole_address(contacts: object, found_id: int | None) -> None:
    assert found(answer(200, {"contacts": contacts}), ANN) == found_id


def test_an_address_that_cannot_be_looked_up_is_of_no_contact() -> None:
    assert found(answer(422, {"errors": []}), ANN) is None


@pytest.mark.parametrize("read", [partial(found, email=ANN), page])
@pytest.mark.parametrize("body", [{}, {"contacts": [{}]}, {"contacts": [{"email": "ann@example.org"}]}, b""])
def test_a_look_up_that_says_nothing_is_asked_again(read: Callable[[Reply], Any], body: object) -> None:
    assert type(raised(read, answer(200, body))) is TryLater


def test_a_page_of_contacts_has_their_addresses_in_lower_case_and_keeps_the_last_id() -> None:
    contacts = [
        {"id": "3", "email": " Ann@Example.org", "firstName": "Ann"},
        {"id": "5", "email": ""},
        {"id": "7", "email": None},
        {"id": "8"},
    ]

    assert page(answer(200, {"contacts": contacts, "meta": {"total": "4"}})) == {"ann@example.org": 3, "": 8}


def test_a_page_without_contacts_is_the_last() -> None:
    assert page(answer(200, {"contacts": []})) == {}


@pytest.mark.parametrize("number", ["115", 115])
@pytest.mark.parametrize("status", [200, 201])
def test_the_id_of_a_contact_is_read_from_what_was_created_or_updated(status: int, number: object) -> None:
    assert synced(answer(status, {"contact": {"id": number, "email": "x"}, "fieldValues": []})) == 115


@pytest.mark.parametrize("body", [{}, {"contact": {}}, {"contact": None}, HTML])
def test_a_contact_without_an_id_is_asked_for_again(body: object) -> None:
    assert type(raised(synced, answer(200, body))) is TryLater


def test_a_contact_that_is_refused_is_rejected() -> None:
    assert type(raised(synced, answer(422, {"errors": [{"code": "email_invalid"}]}))) is Rejected


def test_a_contact_has_its_new_address_when_the_answer_shows_it() -> None:
    renamed(answer(200, {"contact": {"id": "1"}}))


@pytest.mark.parametrize(
    ("reply", "meaning"),
    [
        (answer(422, DUPLICATE), AddressTaken),
        (answer(404, {"message": "No Result found for Subscriber with id 1"}), ContactGone),
        (answer(404), ContactGone),
        (answer(404, HTML), TryLater),
        (answer(422, {"errors": [{"code": "email_invalid"}]}), Rejected),
        (answer(405), AccountRefused),
        (answer(200, {}), TryLater),
        (answer(500), TryLater),
    ],
)
def test_an_address_is_refused_for_what_the_answer_says(reply: Reply, meaning: type[DeliveryError]) -> None:
    assert type(raised(renamed, reply)) is meaning


def test_the_address_that_is_taken_is_not_repeated() -> None:
    body = {"errors": [{"title": "ann@example.org is in use", "code": "duplicate"}]}
    error = raised(renamed, answer(422, body))

    assert isinstance(error, AddressTaken)
    assert "[address] is in use" in error.reply


# --- tags


def test_the_links_of_a_contact_are_its_tags_with_their_ids() -> None:
    rows = [{"id": "31", "contact": "1", "tag": "11"}, {"id": 32, "contact": 1, "tag": 12}]

    assert links(answer(200, {"contactTags": rows})) == [TagLink(31, 11), TagLink(32, 12)]
    assert links(answer(200, {"contactTags": []})) == []


@pytest.mark.parametrize("status", [200, 201])
def test_a_tag_that_was_put_on_has_a_link(status: int) -> None:
    assert linked(answer(status, {"contacts": [], "contactTag": {"id": "31", "tag": "11"}})) == 31


@pytest.mark.parametrize(
    "reply",
    [
        answer(200, {}),
        answer(404, {"message": "No Result found for SubscriberTag with id 1"}),
        answer(404, {"errors": [{"status": 404, "detail": "Not found"}]}),
    ],
)
def test_a_tag_that_is_off_is_off(reply: Reply) -> None:
    unlinked(reply)


@pytest.mark.parametrize("read", [links, linked])
def test_a_contact_to_tag_may_be_gone(read: Callable[[Reply], Any]) -> None:
    reply = answer(404, {"errors": [{"status": 404, "title": "Not Found", "detail": "Contact not found"}]})

    assert type(raised(read, reply)) is ContactGone


@pytest.mark.parametrize("read", TAG_READERS)
@pytest.mark.parametrize("status", [400, 422])
def test_a_refusal_of_a_tag_is_about_one_contact(read: Callable[[Reply], Any], status: int) -> None:
    error = raised(read, answer(status, {"errors": [{"title": "No tag id provided"}]}))

    assert type(error) is Rejected
    assert "No tag id provided" in error.reply


@pytest.mark.parametrize("read", TAG_READERS)
@pytest.mark.parametrize("reply", [answer(500), answer(404, HTML), answer(200, HTML), answer(200, b"")])
def test_an_answer_about_a_tag_that_cannot_be_read_is_asked_again(
    read: Callable[[Reply], Any], reply: Reply
) -> None:
    assert type(raised(read, reply)) is TryLater


# --- orders

ACCEPTED = {"data": {"bulkUpsertOrdersAsync": {"recordId": "b8d0"}}}


def faulty(message: object, extensions: object = None, data: object = None) -> dict[str, object]:
    return {"errors": [{"message": message, "extensions": extensions}], "data": data}


@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize("errors", [{}, {"errors": []}, {"errors": None}])
def test_orders_are_accepted_when_there_is_a_record_and_no_error(
    status: int, errors: dict[str, object]
) -> None:
    upserted(answer(status, ACCEPTED | errors), {OrderId(4)})


@pytest.mark.parametrize("status", [200, 201, 400, 422])
def test_orders_that_the_extensions_name_are_at_fault(status: int) -> None:
    named = {
        "order-storeOrderId-4": "finalAmount: must not be null for ann@example.org",
        "0-storeOrderId-5-lineItems": ["a", "b"],
        "order-storeOrderId-6": "of another batch",
        "order-storeOrderId-": "no id",
        "order-storeRecurringPaymentId-4": "no order",
        "classification": "x",
    }
    error = raised(read_orders, answer(status, faulty("Validation errors", named)))

    assert isinstance(error, OrdersRejected)
    assert error.reasons == {4: "finalAmount: must not be null for [address]", 5: "['a', 'b']"}
    assert "Validation errors" in error.reply


def test_orders_may_be_named_by_several_errors() -> None:
    errors = [
        {"message": "Validation errors", "extensions": {"order-storeOrderId-4": "no"}},
        {"message": "Validation errors"},
        {"message": "Validation errors", "extensions": {"order-storeOrderId-5": "no"}},
    ]
    error = raised(read_orders, answer(200, {"errors": errors}))

    assert isinstance(error, OrdersRejected)
    assert list(error.reasons) == [4, 5]


def test_an_order_whose_id_begins_like_another_is_not_that_one() -> None:
    named = {"order-storeOrderId-44": "no", f"order-storeOrderId-{'4' * 5_000}": "no"}
    error = raised(read_orders, answer(200, faulty("Validation errors", named)))

    assert isinstance(error, OrdersRejected)
    assert error.reasons == {}


@pytest.mark.parametrize(
    "reply",
    [
        answer(200, faulty("Internal Server Error(s) while executing query")),
        answer(200, faulty("Validation errors", {})),
        answer(200, faulty("Validation errors", ["order-storeOrderId-4"])),
        answer(200, faulty("Validation errors", {"order-storeOrderId-6": "of another batch"})),
        answer(200, faulty("Validation errors", data={"bulkUpsertOrdersAsync": None})),
        answer(200, ACCEPTED | faulty("partly", data=ACCEPTED["data"])),
        answer(200, faulty(None)),
        answer(400, {"errors": [{"title": "Bad Request"}]}),
        answer(422, {"errors": "a bare text"}),
        answer(422),
        answer(409, b"\xff"),
    ],
)
def test_a_batch_that_is_refused_without_a_name_names_none(reply: Reply) -> None:
    error = raised(read_orders, reply)

    assert isinstance(error, OrdersRejected)
    assert error.reasons == {}
    assert error.reply.startswith(str(reply.status))


@pytest.mark.parametrize(
    "reply",
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
def test_a_batch_may_be_too_large(reply: Reply) -> None:
    assert type(raised(read_orders, reply)) is BatchTooLarge


@pytest.mark.parametrize("message", ["quantity is too large", "The name of the order is too long"])
def test_a_value_that_is_too_large_does_not_make_the_batch_so(message: str) -> None:
    assert type(raised(read_orders, answer(200, faulty(message)))) is OrdersRejected


def test_an_order_that_is_named_for_its_size_is_at_fault_not_the_batch() -> None:
    named = {"order-storeOrderId-4": "too large"}

    assert type(raised(read_orders, answer(200, faulty("The request is too large", named)))) is OrdersRejected


@pytest.mark.parametrize(
    "reply",
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
def test_orders_of_which_the_answer_says_nothing_are_sent_again(reply: Reply) -> None:
    assert type(raised(read_orders, reply)) is TryLater


@pytest.mark.parametrize("status", [404, 405])
def test_orders_are_not_at_fault_where_nobody_answers(status: int) -> None:
    assert type(raised(read_orders, answer(status))) is AccountRefused


# --- secrets


@pytest.mark.parametrize(
    ("read", "status", "body"),
    [
        (event, 200, {"success": 0, "message": "refused: {}"}),
        (event, 200, {"success": 0, "message": "Unknown event name of {}"}),
        (event, 200, {"success": 0, "message": "Invalid event key {}"}),
        (event, 500, {"trace": "{}"}),
        (event, 429, {"trace": "{}"}),
        (event, 404, {"trace": "{}"}),
        (read_thing, 403, {"message": "{}"}),
        (read_thing, 422, {"errors": [{"title": "{}"}]}),
        (read_thing, 422, {"errors": [{"title": "{}", "code": "duplicate"}]}),
        (read_thing, 200, {"title": "{}"}),
        (read_thing, 502, {"title": "{}"}),
        (read_import, 400, {"message": "no", "failureReasons": [{"contact": 1, "failureReason": "{}"}]}),
        (read_import, 400, {"message": "{}"}),
        (read_import, 400, {"message": "Rate limit exceeded. {}"}),
        (report, 500, {"title": "{}"}),
        (renamed, 422, {"errors": [{"title": "{}", "code": "duplicate"}]}),
        (renamed, 404, {"message": "{}"}),
        (linked, 422, {"message": "{}"}),
        (read_orders, 200, {"errors": [{"message": "{}"}]}),
        (read_orders, 200, {"errors": [{"message": "no", "extensions": {"x-storeOrderId-4": "{}"}}]}),
        (read_orders, 422, {"message": "{}"}),
        (read_orders, 413, {"message": "{}"}),
        (read_orders, 200, {"data": None, "more": "{}"}),
    ],
)
@pytest.mark.parametrize(
    "secret", ["tok+en/1", "tok%2Ben%2F1", "event-key", "ann.o'nym+x@example.org", "ann%40example.org"]
)
def test_no_error_repeats_a_secret_or_an_address(
    read: Callable[[Reply], Any], status: int, body: object, secret: str
) -> None:
    text = msgspec.json.encode(body).decode().replace("{}", f"x {secret} y")
    error = raised(read, Reply(status, text.encode(), None, ("tok+en/1", "event-key")))
    kept = f"{error} {vars(error)} {error.__cause__!r}"

    assert secret not in kept
    assert "example.org" not in kept


def test_a_reply_does_not_show_its_secrets() -> None:
    assert "event-key" not in repr(Reply(200, b"the event-key", None, ("event-key",)))


def test_only_the_beginning_of_an_answer_is_kept() -> None:
    error = raised(read_thing, answer(422, b"{" + b"long\n" * 1_000))

    assert isinstance(error, Rejected)
    assert len(error.reply) <= SAID_CHARS + 4
    assert "\n" not in error.reply


# --- queries


def test_a_query_tells_what_is_there_and_what_is_not() -> None:
    assert read_query(answer(200, {"data": {"a": {"id": "4"}, "b": None}})) == {"a": Thing(4), "b": None}


def test_a_query_that_finds_nothing_may_say_so_as_an_error() -> None:
    faults = [{"message": "Order not found", "path": ["b"]}]
    assert read_query(answer(200, {"data": {"b": None}, "errors": faults})) == {"b": None}


def test_a_query_that_is_refused_is_rejected_whatever_it_tells_besides() -> None:
    faults = [{"message": "Order not found"}, {"message": "Cannot query field"}]
    assert type(raised(read_query, answer(200, {"data": {}, "errors": faults}))) is Rejected


@pytest.mark.parametrize("body", [{}, {"data": None}, {"data": {"a": {"id": "x"}}}, {"data": [1]}])
def test_a_query_of_another_shape_is_asked_again(body: object) -> None:
    assert type(raised(read_query, answer(200, body))) is TryLater
