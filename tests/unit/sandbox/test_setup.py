"""The calls that set an account up in the sandbox: tags, fields, lists, connections."""

from __future__ import annotations

import pytest

from kiva_stream.sandbox.activecampaign.responses import Response
from kiva_stream.sandbox.activecampaign.service import API_PREFIX, Request
from tests.support.sandbox import SHOP, Caller

LIST = {
    "name": "all customers",
    "stringid": "all-customers",
    "sender_url": "https://shop.example",
    "sender_reminder": "You are a customer.",
}
CONNECTION = {
    "service": "kiva_logic",
    "externalid": "1",
    "name": "Shop",
    "logoUrl": "https://shop.example/logo.png",
    "linkUrl": "https://shop.example",
}


def test_the_user_of_the_key_is_shown_to_that_key_alone() -> None:
    status, answer = Caller().call("GET", "/users/me")

    assert (status, answer["user"]["username"]) == (200, "shop")
    assert Caller().call("GET", "/users/me", token="wrong")[0] == 403


def test_a_tag_is_created_once_and_shown_again() -> None:
    caller = Caller()
    body = {"tag": {"tag": "open order", "tagType": "contact"}}

    created, repeated = caller.call("POST", "/tags", body), caller.call("POST", "/tags", body)

    assert (created[0], repeated[0]) == (201, 200)
    assert created[1] == repeated[1]


def test_tags_are_searched_by_a_part_of_the_name_or_all_of_it() -> None:
    caller = Caller()
    for name in ("open order", "reopen", "closed"):
        caller.call("POST", "/tags", {"tag": {"tag": name, "tagType": "contact"}})

    def names(**query: str) -> list[str]:
        return [row["tag"] for row in caller.call("GET", "/tags", query=query)[1]["tags"]]

    assert names(search="OPEN") == ["open order", "reopen"]
    assert names(**{"filters[search][eq]": "open"}) == []
    assert names(**{"filters[search][eq]": "reopen"}) == ["reopen"]


def test_a_field_title_is_unique_and_its_perstag_normalised() -> None:
    caller = Caller()
    body = {"field": {"title": "Kiva Customer ID", "type": "text", "perstag": "kiva_customer_id"}}

    status, answer = caller.call("POST", "/fields", body)
    again, refused = caller.call("POST", "/fields", body)

    assert (status, answer["field"]["perstag"]) == (201, "KIVACUSTOMERID")
    assert (again, refused["errors"][0]["code"]) == (422, "duplicate")


def test_fields_are_found_by_their_perstag() -> None:
    caller = Caller()
    for title in ("Kiva Status", "Kiva Birthday"):
        caller.call("POST", "/fields", {"field": {"title": title, "type": "text"}})

    _, answer = caller.call("GET", "/fields", query={"filters[perstag]": "KIVABIRTHDAY"})

    assert [row["title"] for row in answer["fields"]] == ["Kiva Birthday"]


def test_a_field_is_related_once_and_the_listing_shows_it() -> None:
    caller = Caller()
    caller.call("POST", "/fields", {"field": {"title": "Kiva Status", "type": "text"}})
    body = {"fieldRel": {"field": 1, "relid": 0}}

    assert caller.call("POST", "/fieldRels", body)[0] == 201
    assert caller.call("POST", "/fieldRels", body)[1]["errors"][0]["code"] == "duplicate"
    _, answer = caller.call("GET", "/fields")
    assert answer["fields"][0]["relations"] == ["1"]
    assert answer["fieldRels"] == [{"id": "1", "field": "1", "relid": "0"}]


@pytest.mark.parametrize(("field", "list_id"), [(9, 0), (1, 9)])
def test_a_relation_needs_a_field_and_a_list(field: int, list_id: int) -> None:
    caller = Caller()
    caller.call("POST", "/fields", {"field": {"title": "Kiva Status", "type": "text"}})

    assert caller.call("POST", "/fieldRels", {"fieldRel": {"field": field, "relid": list_id}})[0] == 404


def test_a_list_is_created_once() -> None:
    caller = Caller()

    assert caller.call("POST", "/lists", {"list": LIST})[0] == 201
    status, answer = caller.call("POST", "/lists", {"list": LIST})
    assert (status, answer["errors"][0]["code"]) == (422, "duplicate")


def test_lists_are_filtered_by_a_part_of_the_name() -> None:
    caller = Caller()
    for number, name in enumerate(("all customers", "all customers (old)", "friends")):
        caller.call("POST", "/lists", {"list": {**LIST, "name": name, "stringid": f"l{number}"}})

    _, answer = caller.call("GET", "/lists", query={"filters[name]": "All customers"})

    assert [row["name"] for row in answer["lists"]] == ["all customers", "all customers (old)"]


def test_a_connection_is_one_for_a_service_and_external_id() -> None:
    caller = Caller()
    created = caller.call("POST", "/connections", {"connection": CONNECTION})
    other = caller.call("POST", "/connections", {"connection": {**CONNECTION, "externalid": "2"}})

    repeated = caller.call("POST", "/connections", {"connection": CONNECTION})
    query = {"filters[service]": "kiva_logic", "filters[externalid]": "1"}
    _, found = caller.call("GET", "/connections", query=query)

    assert (created[0], other[0], repeated[0]) == (201, 201, 422)
    assert found["connections"] == [created[1]["connection"]]


@pytest.mark.parametrize("path", ["/tags", "/fields", "/lists", "/connections"])
def test_every_listing_is_paged_and_has_its_total_as_text(path: str) -> None:
    caller = Caller()
    name = path[1:]
    for number in range(23):
        caller.call("POST", path, {name[:-1]: body_of(name, number)})

    _, first = caller.call("GET", path)
    _, rest = caller.call("GET", path, query={"offset": "20", "limit": "100"})

    assert [row["id"] for row in first[name]] == [str(number) for number in range(1, 21)]
    assert [row["id"] for row in rest[name]] == ["21", "22", "23"]
    assert first["meta"]["total"] == "23"


def body_of(name: str, number: int) -> dict[str, str]:
    bodies = {
        "tags": {"tag": f"tag {number}", "tagType": "contact"},
        "fields": {"title": f"field {number}", "type": "text"},
        "lists": {**LIST, "stringid": f"l{number}"},
        "connections": {**CONNECTION, "externalid": str(number)},
    }
    return bodies[name]


def test_a_listing_may_be_shorter_than_asked_and_its_total_says_more() -> None:
    caller = Caller(most_rows_per_page=2)
    for name in ("one", "two", "three"):
        caller.call("POST", "/tags", {"tag": {"tag": name, "tagType": "contact"}})

    def page(offset: str) -> tuple[list[str], str]:
        _, answer = caller.call("GET", "/tags", query={"limit": "100", "offset": offset})
        return [row["tag"] for row in answer["tags"]], answer["meta"]["total"]

    assert page("0") == (["one", "two"], "3")
    assert page("2") == (["three"], "3")


def test_names_of_tags_and_fields_may_be_compared_without_case() -> None:
    caller = Caller(names_ignore_case=True)
    tags = [{"tag": {"tag": name, "tagType": "contact"}} for name in ("Open Order", "open order")]
    fields = [{"field": {"title": title, "type": "text"}} for title in ("KIVA status", "Kiva Status")]

    assert [caller.call("POST", "/tags", tag)[0] for tag in tags] == [201, 200]
    assert [caller.call("POST", "/fields", field)[0] for field in fields] == [201, 422]
    _, found = caller.call("GET", "/tags", query={"filters[search][eq]": "OPEN ORDER"})
    assert [row["tag"] for row in found["tags"]] == ["Open Order"]
    assert caller.shop.tag_named("oPEN oRDER", caller.now) == 1


@pytest.mark.parametrize("path", ["/tags/9", "/lists/9", "/connections/9", "/eventTrackingEvents/nothing"])
def test_what_does_not_exist_cannot_be_deleted(path: str) -> None:
    assert Caller().call("DELETE", path)[0] == 404


def test_a_deleted_tag_and_a_deleted_list_are_on_no_contact() -> None:
    caller = Caller()
    contact_id = caller.contact()
    caller.call("POST", "/tags", {"tag": {"tag": "open order", "tagType": "contact"}})
    caller.call("POST", "/lists", {"list": LIST})
    caller.call("POST", "/contactTags", {"contactTag": {"contact": contact_id, "tag": 1}})
    caller.call("POST", "/contactLists", {"contactList": {"list": 1, "contact": contact_id, "status": 1}})

    assert [caller.call("DELETE", path)[0] for path in ("/tags/1", "/lists/1")] == [200, 200]

    assert caller.call("GET", f"/contacts/{contact_id}/contactTags")[1]["contactTags"] == []
    assert caller.call("GET", f"/contacts/{contact_id}/contactLists")[1]["contactLists"] == []
    assert (len(caller.shop.tags), len(caller.shop.lists)) == (0, 0)


def test_a_deleted_connection_is_gone() -> None:
    caller = Caller(empty_urls_accepted=True)
    caller.call("POST", "/connections", {"connection": {**CONNECTION, "logoUrl": ""}})

    assert caller.call("DELETE", "/connections/1")[0] == 200
    assert len(caller.shop.connections) == 0


def test_empty_urls_of_a_connection_are_refused_unless_the_account_accepts_them() -> None:
    body = {"connection": {**CONNECTION, "logoUrl": ""}}

    assert Caller().call("POST", "/connections", body)[0] == 422
    assert Caller(empty_urls_accepted=True).call("POST", "/connections", body)[0] == 201


def test_a_repeated_tag_may_be_refused() -> None:
    caller = Caller(repeated_tag_refused=True)
    caller.call("POST", "/tags", {"tag": {"tag": "open order", "tagType": "contact"}})
    body = {"contactTag": {"contact": caller.contact(), "tag": 1}}

    assert [caller.call("POST", "/contactTags", body)[0] for _ in range(2)] == [201, 422]


def test_kinds_of_requests_may_be_counted_apart() -> None:
    def statuses(*, separate: bool) -> list[int]:
        caller = Caller(requests_per_second=1, separate_buckets=separate)
        graphql = caller.call("POST", "/ecom/graphql", {"query": "{ __typename }"})
        return [graphql[0], *(caller.call("GET", "/tags")[0] for _ in range(2))]

    assert statuses(separate=False) == [200, 429, 429]
    assert statuses(separate=True) == [200, 200, 429]


def test_a_429_may_have_no_headers() -> None:
    caller = Caller(requests_per_second=1, rate_limit_headers=False)
    request = Request("GET", f"{API_PREFIX}/tags", {}, SHOP.api_token, "", b"")

    answers = [caller.send(request) for _ in range(2)]

    assert [(each.status, dict(each.headers)) for each in answers if isinstance(each, Response)] == [
        (200, {}),
        (429, {}),
    ]
