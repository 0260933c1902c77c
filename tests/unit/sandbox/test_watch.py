"""What the sandbox counts of a client's mistakes that ActiveCampaign would accept."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from kiva_stream.sandbox.activecampaign.contract import JSON_TYPE
from kiva_stream.sandbox.activecampaign.service import API_PREFIX, EVENT_PATH, Request
from tests.support.sandbox import SHOP, Caller
from tests.unit.sandbox.test_contacts import ANN, LIST

BOB = "bob@example.org"
TAGS = ("open order", "closed order", "no order", "VIP")
SYNC = ("POST", "/contact/sync", {"contact": {"email": ANN}})
IMPORT = ("POST", "/import/bulk_import", {"contacts": [{"email": BOB}, {"email": ANN}]})


def request(method: str, path: str, body: Mapping[str, object] | None = None) -> Request:
    sent = b"" if body is None else msgspec.json.encode(body)
    return Request(method, API_PREFIX + path, {}, SHOP.api_token, JSON_TYPE, sent)


@pytest.fixture
def caller() -> Caller:
    """An account with tags 1 to 4 and a list; Ann is contact 1."""
    caller = Caller()
    for name in TAGS:
        caller.call("POST", "/tags", {"tag": {"tag": name, "tagType": "contact"}})
    caller.call("POST", "/lists", {"list": LIST})
    caller.contact(ANN)
    return caller


def tag(caller: Caller, tag_id: int) -> int:
    body = {"contactTag": {"contact": "1", "tag": str(tag_id)}}
    return int(caller.call("POST", "/contactTags", body)[1]["contactTag"]["id"])


def subscribe(caller: Caller, status: int) -> None:
    caller.call("POST", "/contactLists", {"contactList": {"list": 1, "contact": 1, "status": status}})


def test_two_week_tags_at_once_are_an_overlap(caller: Caller) -> None:
    tag(caller, 1)
    tag(caller, 4)
    tag(caller, 1)
    assert caller.shop.watch.tag_overlaps == 0
    tag(caller, 2)
    assert caller.shop.watch.tag_overlaps == 1


def test_a_swap_that_deletes_first_is_no_overlap(caller: Caller) -> None:
    link = tag(caller, 1)
    caller.call("DELETE", f"/contactTags/{link}")
    tag(caller, 2)
    assert caller.shop.watch.tag_overlaps == 0


def test_an_import_that_adds_a_second_week_tag_makes_an_overlap(caller: Caller) -> None:
    tag(caller, 1)
    caller.call("POST", "/import/bulk_import", {"contacts": [{"email": ANN, "tags": ["no order"]}]})
    caller.now += 10
    caller.call("GET", "/contacts")
    assert caller.shop.watch.tag_overlaps == 1


def test_a_subscription_after_an_unsubscription_is_counted(caller: Caller) -> None:
    subscribe(caller, 1)
    subscribe(caller, 2)
    subscribe(caller, 2)
    assert caller.shop.watch.resubscribed == 0
    subscribe(caller, 1)
    assert caller.shop.watch.resubscribed == 1


def test_an_import_and_a_sync_resubscribe_no_contact(caller: Caller) -> None:
    subscribe(caller, 2)
    caller.call("POST", "/import/bulk_import", {"contacts": [{"email": ANN, "subscribe": [{"listid": 1}]}]})
    caller.now += 10
    caller.call(*SYNC)
    assert caller.shop.watch.resubscribed == 0
    assert caller.call("GET", "/contacts/1/contactLists")[1]["contactLists"][0]["status"] == "2"


@pytest.mark.parametrize(
    "other",
    [
        SYNC,
        IMPORT,
        ("PUT", "/contacts/1", {"contact": {"firstName": "Ann"}}),
        ("POST", "/contactLists", {"contactList": {"list": 1, "contact": 1, "status": 2}}),
        ("POST", "/contactTags", {"contactTag": {"contact": "1", "tag": "1"}}),
        ("DELETE", "/contactTags/1", None),
    ],
)
def test_a_contact_in_two_writes_at_once_is_counted(
    caller: Caller, other: tuple[str, str, Mapping[str, object] | None]
) -> None:
    tag(caller, 1)
    with caller.service.under_way(request(*SYNC)), caller.service.under_way(request(*other)):
        pass
    assert caller.shop.watch.contacts_in_two_requests == 1


def test_writes_one_after_the_other_or_of_two_contacts_are_not_counted(caller: Caller) -> None:
    bob = ("POST", "/contact/sync", {"contact": {"email": BOB}})
    with caller.service.under_way(request(*SYNC)), caller.service.under_way(request(*bob)):
        pass
    with caller.service.under_way(request(*SYNC)):
        pass
    assert caller.shop.watch.contacts_in_two_requests == 0


def test_a_read_of_a_contact_is_no_write(caller: Caller) -> None:
    with caller.service.under_way(request(*SYNC)):
        for path in ("/contacts/1", "/contacts/1/contactTags"):
            with caller.service.under_way(request("GET", path)):
                pass
    assert caller.shop.watch.contacts_in_two_requests == 0


def test_a_move_writes_both_addresses(caller: Caller) -> None:
    move = ("PUT", "/contacts/1", {"contact": {"email": BOB}})
    bob = ("POST", "/contact/sync", {"contact": {"email": BOB}})
    with caller.service.under_way(request(*move)), caller.service.under_way(request(*bob)):
        pass
    assert caller.shop.watch.contacts_in_two_requests == 1


def test_an_import_is_under_way_until_it_is_completed(caller: Caller) -> None:
    caller.call(*IMPORT)
    caller.now += 2.9
    with caller.service.under_way(request(*SYNC)):
        pass
    caller.now += 0.1
    with caller.service.under_way(request(*SYNC)):
        pass
    assert caller.shop.watch.contacts_in_two_requests == 1


def test_a_refused_import_and_an_interrupted_one_are_not_under_way(caller: Caller) -> None:
    caller.shop.change(invalid_emails=frozenset({BOB}))
    assert caller.call(*IMPORT)[0] == 400
    caller.shop.change(invalid_emails=frozenset())
    _, queued = caller.call(*IMPORT)
    caller.shop.imports[queued["batchId"]].interrupted = True
    with caller.service.under_way(request(*SYNC)):
        pass
    assert caller.shop.watch.contacts_in_two_requests == 0


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"contact":7}', b'{"contacts":[{}]}', b'{"contact":{}}'])
def test_a_broken_body_writes_no_contact(caller: Caller, body: bytes) -> None:
    for path in ("/contact/sync", "/import/bulk_import", "/contactTags"):
        with caller.service.under_way(request("POST", path)._replace(body=body)):
            pass
    assert caller.shop.watch.contacts_in_two_requests == 0


def test_requests_that_could_change_something_are_counted(caller: Caller) -> None:
    before = caller.shop.watch.changing_requests
    caller.call("GET", "/contacts")
    caller.call("POST", "/ecom/graphql", {"query": "{ searchOrder { id } }"})
    caller.service.answer(Request("POST", EVENT_PATH, {}, None, JSON_TYPE, b""))
    assert caller.shop.watch.changing_requests == before

    caller.call(*SYNC)
    caller.call("DELETE", "/contactTags/9")
    caller.call("POST", "/ecom/graphql", {"query": 'mutation { deleteProduct(id: "1") { id } }'})
    assert caller.shop.watch.changing_requests == before + 3
