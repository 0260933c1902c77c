"""Contacts in the sandbox: upserts, look-ups, moves, lists and tags."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.sandbox import Caller

ANN = "ann@example.org"
LIST = {
    "name": "all customers",
    "stringid": "all-customers",
    "sender_url": "https://shop.example",
    "sender_reminder": "You are a customer.",
}


def sync(caller: Caller, email: str = ANN, **fields: object) -> tuple[int, dict[str, object]]:
    status, answer = caller.call("POST", "/contact/sync", {"contact": {"email": email, **fields}})
    return status, answer


def test_a_contact_is_created_with_201_and_updated_with_200() -> None:
    caller = Caller()

    assert sync(caller, firstName="Ann", lastName="Lee", phone="1")[0] == 201
    status, answer = sync(caller, firstName="Anna")

    assert status == 200
    contact = answer["contact"]
    assert isinstance(contact, dict)
    assert (contact["firstName"], contact["lastName"], contact["phone"]) == ("Anna", "Lee", "1")


def test_an_address_is_one_contact_whatever_its_case() -> None:
    caller = Caller()
    sync(caller, "Ann@Example.org")

    assert sync(caller, "ANN@example.ORG")[0] == 200
    assert len(caller.shop.contacts) == 1


def test_a_sync_answers_only_the_field_values_it_set() -> None:
    caller = Caller()
    for title in ("Kiva Status", "Kiva Customer ID"):
        caller.call("POST", "/fields", {"field": {"title": title, "type": "text"}})
    sync(caller, fieldValues=[{"field": "1", "value": "active"}])

    _, answer = sync(caller, fieldValues=[{"field": 2, "value": "17"}])
    _, stored = caller.call("GET", "/contacts/1/fieldValues")

    assert [(row["field"], row["value"]) for row in rows(answer["fieldValues"])] == [("2", "17")]
    assert [(row["field"], row["value"]) for row in stored["fieldValues"]] == [("1", "active"), ("2", "17")]


def test_a_value_for_an_unknown_field_is_ignored_and_counted() -> None:
    caller = Caller()

    status, answer = sync(caller, fieldValues=[{"field": "9", "value": "x"}])

    assert (status, answer["fieldValues"]) == (201, [])
    assert caller.shop.tally.breaches == {"unknown_field": 1}


@pytest.mark.parametrize("setting", ["invalid_emails", "failing_emails"])
def test_a_refused_address_is_422(setting: str) -> None:
    caller = Caller()
    caller.shop.change(**{setting: frozenset({ANN})})

    status, answer = sync(caller, "Ann@example.org")

    assert status == 422
    assert rows(answer["errors"])[0]["code"] == "email_invalid"
    assert caller.shop.tally.breaches == {}


def test_a_sync_accepts_an_excluded_address() -> None:
    assert sync(Caller(excluded_emails=frozenset({ANN})))[0] == 201


def test_a_full_account_refuses_a_new_contact_and_updates_an_existing_one() -> None:
    caller = Caller(contact_limit=1)
    sync(caller)

    assert sync(caller, "bob@example.org")[0] == 422
    assert sync(caller)[0] == 200


def test_a_contact_is_found_by_its_address() -> None:
    caller = Caller()
    caller.contact("bob@example.org")
    caller.contact(ANN)

    _, answer = caller.call("GET", "/contacts", query={"email": "Ann@example.org"})
    _, nobody = caller.call("GET", "/contacts", query={"email": "eve@example.org"})

    assert [row["id"] for row in answer["contacts"]] == ["2"]
    assert nobody == {"contacts": [], "meta": {"total": "0"}}


def test_contacts_are_paged_by_id() -> None:
    caller = Caller()
    for number in range(30):
        caller.contact(f"c{number}@example.org")
    caller.call("DELETE", "/contacts/12")

    _, first = caller.call("GET", "/contacts")
    _, above = caller.call("GET", "/contacts", query={"id_greater": "10", "orders[id]": "ASC", "limit": "3"})
    _, newest = caller.call("GET", "/contacts", query={"orders[id]": "DESC", "limit": "2", "offset": "1"})

    assert len(first["contacts"]) == 20
    assert [row["id"] for row in above["contacts"]] == ["11", "13", "14"]
    assert above["meta"]["total"] == "19"
    assert [row["id"] for row in newest["contacts"]] == ["29", "28"]


def test_a_contact_moves_to_a_free_address_and_keeps_its_events() -> None:
    caller = Caller(tracking_enabled=True, event_names=("Customer cancelled",))
    ann = caller.contact(ANN)
    caller.event(ANN)

    assert caller.call("PUT", f"/contacts/{ann}", {"contact": {"email": "Anna@example.org"}})[0] == 200
    caller.event("anna@example.org")

    assert caller.call("GET", "/contacts", query={"email": ANN})[1]["contacts"] == []
    assert caller.call("GET", f"/contacts/{ann}")[1]["contact"]["email"] == "anna@example.org"
    assert len(caller.shop.events_of("anna@example.org")) == 2


def test_a_contact_cannot_move_to_the_address_of_another() -> None:
    caller = Caller()
    caller.contact(ANN)
    bob = caller.contact("bob@example.org")

    status, answer = caller.call("PUT", f"/contacts/{bob}", {"contact": {"email": ANN}})

    assert (status, answer["errors"][0]["code"]) == (422, "duplicate")
    assert caller.call("PUT", f"/contacts/{bob}", {"contact": {"email": "bob@example.org"}})[0] == 200


def test_a_deleted_contact_has_no_tags_and_its_id_is_not_used_again() -> None:
    caller = Caller(tracking_enabled=True, event_names=("Customer cancelled",))
    ann = caller.contact(ANN)
    tag(caller, ann)

    assert caller.call("DELETE", f"/contacts/{ann}") == (200, {})

    assert caller.call("GET", f"/contacts/{ann}")[0] == 404
    assert "SubscriberTag" in caller.call("DELETE", "/contactTags/1")[1]["message"]
    caller.event(ANN)
    assert len(caller.shop.events_without_contact) == 1
    assert caller.contact(ANN) == ann + 1


@pytest.mark.parametrize("part", ["", "/contactTags", "/contactLists", "/fieldValues"])
def test_every_call_about_an_unknown_contact_is_404(part: str) -> None:
    status, answer = Caller().call("GET", f"/contacts/7{part}")

    assert (status, answer) == (404, {"message": "No Result found for Subscriber with id 7"})


def test_a_list_status_is_set_and_may_resubscribe_a_contact() -> None:
    caller = Caller()
    ann = caller.contact(ANN)
    caller.call("POST", "/lists", {"list": LIST})

    for status in (2, 1):
        caller.call("POST", "/contactLists", {"contactList": {"list": 1, "contact": ann, "status": status}})
        _, answer = caller.call("GET", f"/contacts/{ann}/contactLists")
        assert [(row["list"], row["status"]) for row in answer["contactLists"]] == [("1", str(status))]


def test_a_list_status_needs_a_contact_and_a_list() -> None:
    caller = Caller()
    ann = caller.contact(ANN)
    caller.call("POST", "/lists", {"list": LIST})

    def status_of(list_id: int, contact_id: int) -> int:
        body = {"contactList": {"list": list_id, "contact": contact_id, "status": 1}}
        return caller.call("POST", "/contactLists", body)[0]

    assert status_of(1, 99) == 404
    assert status_of(9, ann) == 404


def test_tagging_twice_gives_the_same_link() -> None:
    caller = Caller()
    ann = caller.contact(ANN)

    first, second = tag(caller, ann), tag(caller, ann)

    assert (first[0], second[0]) == (201, 200)
    assert first[1] == second[1]


def test_a_tag_is_removed_by_its_link_once() -> None:
    caller = Caller()
    ann = caller.contact(ANN)
    caller.call("POST", "/tags", {"tag": {"tag": "no order", "tagType": "contact"}})
    tag(caller, ann, name="open order")

    assert caller.call("DELETE", "/contactTags/1") == (200, {})
    assert caller.call("GET", f"/contacts/{ann}/contactTags")[1] == {"contactTags": []}
    status, answer = caller.call("DELETE", "/contactTags/1")
    assert (status, answer) == (404, {"message": "No Result found for SubscriberTag with id 1"})


def test_tagging_needs_a_contact_and_a_tag() -> None:
    caller = Caller()
    ann = caller.contact(ANN)

    assert caller.call("POST", "/contactTags", {"contactTag": {"contact": ann, "tag": 9}})[0] == 422
    status, answer = caller.call("POST", "/contactTags", {"contactTag": {"contact": 99, "tag": 9}})
    assert (status, answer["errors"][0]["detail"]) == (404, "Contact not found")


def tag(caller: Caller, contact_id: int, name: str = "open order") -> tuple[int, dict[str, object]]:
    _, answer = caller.call("POST", "/tags", {"tag": {"tag": name, "tagType": "contact"}})
    body = {"contactTag": {"contact": contact_id, "tag": answer["tag"]["id"]}}
    status, linked = caller.call("POST", "/contactTags", body)
    return status, linked["contactTag"]


def rows(value: object) -> list[dict[str, object]]:
    assert isinstance(value, list)
    return value


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"phone": "12"}, "/data/attributes/phone"),
        ({"fieldValues": [{"field": "7", "value": "12"}]}, "/data/attributes/fieldValues/7"),
    ],
)
def test_an_invalid_value_is_422_and_named(fields: dict[str, Any], pointer: str) -> None:
    caller = Caller(invalid_values=frozenset({"12"}))

    status, answer = sync(caller, **fields)

    assert (status, rows(answer["errors"])[0]["source"]) == (422, {"pointer": pointer})
    assert caller.shop.contacts.find(ANN) is None


def test_a_full_account_says_so_and_points_to_no_attribute() -> None:
    caller = Caller(contact_limit=1)
    sync(caller)

    status, answer = sync(caller, "bob@example.org")

    assert status == 422
    assert answer == {"errors": [{"title": "You have reached your contact limit.", "detail": ""}]}
