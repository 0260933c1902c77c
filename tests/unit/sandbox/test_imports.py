"""Bulk imports in the sandbox: asynchronous, limited, refused as a whole or failing by the row."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.sandbox import Caller

ANN = "ann@example.org"
BOB = "bob@example.org"
LIST = {
    "name": "all customers",
    "stringid": "all-customers",
    "sender_url": "https://shop.example",
    "sender_reminder": "You are a customer.",
}


def import_rows(caller: Caller, *rows: dict[str, object]) -> tuple[int, Any]:
    return caller.call("POST", "/import/bulk_import", {"contacts": rows, "exclude_automations": True})


def info(caller: Caller, queued: dict[str, Any]) -> dict[str, Any]:
    status, answer = caller.call("GET", "/import/info", query={"batchId": queued["batchId"]})
    assert status == 200
    return dict(answer)


def completed(caller: Caller, *rows: dict[str, object]) -> dict[str, Any]:
    _, queued = import_rows(caller, *rows)
    caller.now += 10.0
    return info(caller, queued)


def test_an_import_is_answered_as_queued() -> None:
    status, answer = import_rows(Caller(), {"email": ANN}, {"email": BOB})

    assert status == 200
    assert answer["success"] == 1
    assert answer["queued_contacts"] == 2


def test_an_import_is_false_for_a_second_then_waiting_active_and_completed() -> None:
    caller = Caller(import_duration_s=3.0)
    _, queued = import_rows(caller, {"email": ANN})

    statuses = []
    for elapsed in (0.0, 0.99, 1.0, 1.99, 2.0, 2.99, 3.0, 60.0):
        caller.now = 1_000_000.0 + elapsed
        statuses.append(info(caller, queued)["status"])

    assert statuses == [False, False, "waiting", "waiting", "active", "active", "completed", "completed"]


def test_the_contacts_of_an_import_exist_when_it_is_completed_and_not_before() -> None:
    caller = Caller(import_duration_s=3.0, tracking_enabled=True, event_names=("Customer cancelled",))
    import_rows(caller, {"email": ANN})

    caller.now += 2.99
    caller.event(ANN)
    caller.now += 0.01
    caller.event(ANN)

    assert len(caller.shop.events_without_contact) == 1
    assert len(caller.shop.events) == 1


def test_an_import_of_no_duration_is_completed_at_once() -> None:
    caller = Caller(import_duration_s=0.0)
    _, queued = import_rows(caller, {"email": ANN})

    assert info(caller, queued)["status"] == "completed"
    assert len(caller.shop.contacts) == 1


def test_a_row_writes_names_fields_lists_and_tags() -> None:
    caller = Caller()
    caller.call("POST", "/fields", {"field": {"title": "Kiva Customer ID", "type": "text"}})
    for name in ("all customers", "friends"):
        caller.call("POST", "/lists", {"list": {**LIST, "name": name, "stringid": name.replace(" ", "-")}})

    completed(
        caller,
        {
            "email": ANN,
            "first_name": "Ann",
            "last_name": "Lee",
            "phone": "1",
            "fields": [{"id": 1, "value": "17"}],
            "subscribe": [{"listid": 1}],
            "unsubscribe": [{"listid": "2"}],
            "tags": ["open order"],
        },
    )

    ann = caller.shop.contacts.find(ANN)
    assert ann
    assert (ann.first_name, ann.last_name, ann.phone) == ("Ann", "Lee", "1")
    assert (ann.fields, ann.lists, ann.tags) == ({1: "17"}, {1: 1, 2: 2}, {1: 1})
    assert [row["tag"] for row in caller.shop.tags.where()] == ["open order"]


def test_an_import_keeps_attributes_that_it_does_not_have() -> None:
    caller = Caller()
    completed(caller, {"email": ANN, "first_name": "Ann", "phone": "1"})

    completed(caller, {"email": ANN.upper(), "last_name": "Lee"})

    ann = caller.shop.contacts.find(ANN)
    assert ann
    assert (ann.first_name, ann.last_name, ann.phone) == ("Ann", "Lee", "1")


def test_only_new_contacts_are_named_by_a_completed_import() -> None:
    caller = Caller()
    caller.contact(ANN)

    assert completed(caller, {"email": ANN}, {"email": BOB}) == {
        "status": "completed",
        "success": ["2"],
        "failure": [],
    }


def test_one_invalid_address_refuses_the_whole_import_and_is_named_by_its_row() -> None:
    caller = Caller(invalid_emails=frozenset({BOB}))

    status, answer = import_rows(caller, {"email": ANN}, {"email": "Bob@Example.org"})

    assert status == 400
    assert answer["failureReasons"] == [
        {"contact": 2, "failureReason": "Email address Bob@Example.org is invalid."}
    ]
    caller.now += 10.0
    assert len(caller.shop.contacts) == 0
    assert caller.shop.tally.breaches == {}


def test_a_row_that_is_not_to_contract_refuses_the_whole_import_and_is_a_breach() -> None:
    caller = Caller()

    status, answer = import_rows(
        caller, {"email": ANN}, {"email": "no address"}, {"email": BOB, "firstName": "B"}
    )

    assert status == 400
    assert [reason["contact"] for reason in answer["failureReasons"]] == [2, 3]
    assert caller.shop.tally.breaches == {"schema": 1}


def test_more_than_250_rows_are_refused() -> None:
    caller = Caller()
    rows: list[dict[str, object]] = [{"email": f"c{number}@example.org"} for number in range(251)]

    status, answer = import_rows(caller, *rows)

    assert status == 400
    assert isinstance(answer["failureReasons"][0], str)
    assert caller.shop.tally.breaches == {"schema": 1}
    assert import_rows(caller, *rows[:250])[0] == 200


@pytest.mark.parametrize(("size_bytes", "status"), [(399_999, 200), (400_000, 400)])
def test_a_body_of_400_000_bytes_is_refused(size_bytes: int, status: int) -> None:
    caller = Caller()
    empty = len('{"contacts":[{"email":"ann@example.org","first_name":""}],"exclude_automations":true}')

    assert import_rows(caller, {"email": ANN, "first_name": "x" * (size_bytes - empty)})[0] == status


def test_the_101st_import_of_a_minute_is_a_400_and_a_breach_of_the_import_limit() -> None:
    caller = Caller()
    for _ in range(100):
        assert import_rows(caller, {"email": ANN}, {"email": BOB})[0] == 200
    caller.now += 59.9

    status, answer = import_rows(caller, {"email": ANN}, {"email": BOB})

    assert status == 400
    assert answer["message"] == "Rate limit exceeded."
    assert answer["failureReasons"] == [
        "Up to 100 imports may be requested per minute. Please try again later."
    ]
    assert caller.shop.tally.breaches == {"import_limit": 1}
    caller.now += 0.1
    assert import_rows(caller, {"email": ANN}, {"email": BOB})[0] == 200


def test_imports_of_one_contact_have_a_limit_of_their_own() -> None:
    caller = Caller(single_imports_per_minute=2)
    statuses = [import_rows(caller, {"email": ANN})[0] for _ in range(3)]

    assert statuses == [200, 200, 400]
    assert import_rows(caller, {"email": ANN}, {"email": BOB})[0] == 200


def test_import_limits_can_be_switched_off() -> None:
    caller = Caller(bulk_imports_per_minute=0)

    assert all(import_rows(caller, {"email": ANN}, {"email": BOB})[0] == 200 for _ in range(150))


def test_an_import_does_not_resubscribe_an_unsubscribed_contact() -> None:
    caller = Caller()
    caller.call("POST", "/lists", {"list": LIST})
    completed(caller, {"email": ANN, "unsubscribe": [{"listid": 1}]})

    report = completed(
        caller, {"email": ANN, "first_name": "Ann", "subscribe": [{"listid": 1}]}, {"email": BOB}
    )

    assert report["failure"] == [ANN]
    ann = caller.shop.contacts.find(ANN)
    assert ann
    assert (ann.lists, ann.first_name) == ({1: 2}, "")
    assert caller.shop.contacts.find(BOB)


def test_an_excluded_address_fails_only_when_it_is_subscribed() -> None:
    caller = Caller(excluded_emails=frozenset({ANN}))
    caller.call("POST", "/lists", {"list": LIST})

    assert completed(caller, {"email": ANN, "subscribe": [{"listid": 1}]})["failure"] == [ANN]
    assert completed(caller, {"email": ANN, "unsubscribe": [{"listid": 1}]})["failure"] == []


def test_an_excluded_address_may_be_left_out_without_being_named() -> None:
    caller = Caller(excluded_emails=frozenset({ANN}), excluded_are_not_queued=True)

    status, queued = import_rows(caller, {"email": ANN.upper()}, {"email": BOB})
    caller.now += 10.0

    assert (status, queued["queued_contacts"]) == (200, 1)
    assert info(caller, queued) == {"status": "completed", "success": ["1"], "failure": []}
    assert not caller.shop.contacts.find(ANN)
    assert caller.shop.contacts.find(BOB)


def test_a_failing_address_ends_among_the_failures() -> None:
    caller = Caller(failing_emails=frozenset({ANN}))

    report = completed(caller, {"email": ANN}, {"email": BOB})

    assert (report["failure"], report["success"]) == ([ANN], ["1"])


def test_a_list_that_does_not_exist_fails_the_row() -> None:
    assert completed(Caller(), {"email": ANN, "subscribe": [{"listid": 9}]})["failure"] == [ANN]


def test_the_contact_limit_fails_new_contacts_only() -> None:
    caller = Caller(contact_limit=1)
    caller.contact(ANN)

    assert completed(caller, {"email": ANN}, {"email": BOB})["failure"] == [BOB]


def test_a_value_for_an_unknown_field_is_ignored_and_counted() -> None:
    caller = Caller()

    assert completed(caller, {"email": ANN, "fields": [{"id": 9, "value": "x"}]})["failure"] == []
    assert caller.shop.tally.breaches == {"unknown_field": 1}


def test_an_interrupted_import_has_that_status_and_imports_nothing() -> None:
    caller = Caller()
    _, queued = import_rows(caller, {"email": ANN})
    caller.shop.imports[queued["batchId"]].interrupted = True
    caller.now += 10.0

    assert info(caller, queued)["status"] == "interrupted"
    assert len(caller.shop.contacts) == 0


def test_asking_for_an_unknown_import_is_404_and_for_none_400() -> None:
    caller = Caller()

    assert caller.call("GET", "/import/info", query={"batchId": "x"})[0] == 404
    assert caller.call("GET", "/import/info") == (
        400,
        {"success": 0, "message": "'batchId' is a required field."},
    )


def test_the_overview_counts_imports_by_day_in_text() -> None:
    caller = Caller()
    import_rows(caller, {"email": ANN})
    caller.now += 10.0
    import_rows(caller, {"email": ANN}, {"email": BOB})

    _, answer = caller.call("GET", "/import/bulk_import")

    assert answer == {
        "outstanding": [{"forDate": "1970-01-12", "batches": "1", "contacts": "2"}],
        "recentlyCompleted": [{"forDate": "1970-01-12", "batches": "1", "contacts": "1"}],
    }


def test_an_empty_value_clears_a_field() -> None:
    caller = Caller()
    caller.call("POST", "/fields", {"field": {"title": "Kiva Cancel Date", "type": "date"}})
    for value in ("2026-03-01", ""):
        completed(caller, {"email": "ann@example.org", "fields": [{"id": 1, "value": value}]})

    _, stored = caller.call("GET", "/contacts/1/fieldValues")
    assert [row["value"] for row in stored["fieldValues"]] == [""]
    caller.call("PUT", "/contacts/1", {"contact": {"fieldValues": [{"field": "1", "value": "2026-03-02"}]}})
    body = {"email": "ann@example.org", "fieldValues": [{"field": "1", "value": ""}]}
    assert caller.call("POST", "/contact/sync", {"contact": body})[1]["fieldValues"][0]["value"] == ""


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"phone": "12"}, "Phone number 12 is invalid."),
        ({"fields": [{"id": 7, "value": "12"}]}, "The value 12 of field 7 is invalid."),
    ],
)
def test_an_invalid_value_refuses_the_whole_import_and_is_named_by_its_row(
    row: dict[str, object], reason: str
) -> None:
    caller = Caller(invalid_values=frozenset({"12"}))

    status, answer = import_rows(caller, {"email": ANN}, {"email": "bob@example.org", **row})

    assert status == 400
    assert answer["failureReasons"] == [{"contact": 2, "failureReason": reason}]


def test_an_import_may_count_its_bad_rows_from_zero() -> None:
    caller = Caller(invalid_emails=frozenset({ANN}), rows_counted_from=0)

    assert import_rows(caller, {"email": ANN})[1]["failureReasons"][0]["contact"] == 0


def test_an_address_may_interrupt_its_import() -> None:
    caller = Caller(interrupting_emails=frozenset({ANN}))

    ended = completed(caller, {"email": ANN}, {"email": "bob@example.org"})

    assert ended["status"] == "interrupted"
    assert len(caller.shop.contacts) == 0


@pytest.mark.parametrize(
    ("exclude", "ignored", "entered"), [(False, False, 1), (True, False, 0), (True, True, 1)]
)
def test_an_import_may_start_an_automation_for_the_contacts_that_it_creates(
    *, exclude: bool, ignored: bool, entered: int
) -> None:
    caller = Caller(automation_starts=True, exclusion_is_ignored=ignored, import_duration_s=0)
    body = {"contacts": [{"email": ANN}], "exclude_automations": exclude}

    caller.call("POST", "/import/bulk_import", body)
    caller.call("POST", "/import/bulk_import", body)

    _, answer = caller.call("GET", "/contacts/1/contactAutomations")
    assert len(answer["contactAutomations"]) == entered
