"""Event tracking in the sandbox: the switch, the names, the events, a contact's tracking log."""

from __future__ import annotations

import pytest

from kiva_stream.sandbox.activecampaign.events import EventLog, StrayEvent
from kiva_stream.sandbox.activecampaign.responses import Response
from tests.support.sandbox import Caller

NAME = "Customer cancelled"
SPAWNED = (200, {"success": 1, "message": "Event spawned"})


def tracking(**settings: object) -> Caller:
    caller = Caller(tracking_enabled=True, event_names=(NAME,))
    caller.shop.change(**settings)
    return caller


def test_a_new_account_refuses_events_until_tracking_is_switched_on() -> None:
    caller = Caller(event_names=(NAME,))
    caller.contact()

    assert caller.event() == (200, {"success": 0, "message": "Event tracking is not enabled."})
    assert caller.call("GET", "/eventTracking")[1] == {"eventTracking": {"enabled": False}}

    caller.call("PUT", "/eventTracking", {"eventTracking": {"enabled": True}})
    assert caller.event() == SPAWNED


def test_a_wrong_key_is_refused_with_200_and_success_0() -> None:
    caller = tracking()

    assert caller.event(key="another") == (200, {"success": 0, "message": "Invalid event key."})
    assert caller.event(actid="9") == (200, {"success": 0, "message": "Invalid event key."})
    assert caller.shop.tally.refused_events == {"Invalid event key.": 1}


def test_a_lost_event_is_in_no_log_and_a_lost_order_is_gone() -> None:
    caller = tracking()
    contact = caller.contact()
    caller.event(eventdata="first")
    caller.event(eventdata="second")
    caller.shop.orders.write((1, "41"), contact, {"storeOrderId": "41"})
    caller.shop.lose([1], ["41"])
    (left,) = caller.call("GET", f"/contacts/{contact}/trackingLogs")[1]["trackingLogs"]
    assert (left["value"], len(caller.shop.orders)) == ("second", 0)


def test_a_name_must_be_registered_before_its_event() -> None:
    caller = Caller(tracking_enabled=True)
    caller.contact()
    assert caller.event() == (200, {"success": 0, "message": "Unknown event name."})

    registered = caller.call("POST", "/eventTrackingEvents", {"eventTrackingEvent": {"name": NAME}})

    assert registered == (201, {"eventTrackingEvent": {"name": NAME}})
    assert caller.event() == SPAWNED


def test_a_name_is_registered_once() -> None:
    caller = tracking()

    status, answer = caller.call("POST", "/eventTrackingEvents", {"eventTrackingEvent": {"name": NAME}})

    assert (status, answer["errors"][0]["code"]) == (422, "duplicate")


def test_names_are_listed_twenty_to_a_page_unless_more_are_asked_for() -> None:
    caller = Caller(event_names=tuple(f"name {number}" for number in range(41)))

    _, first = caller.call("GET", "/eventTrackingEvents")
    _, rest = caller.call("GET", "/eventTrackingEvents", query={"limit": "100", "offset": "20"})

    assert [row["name"] for row in first["eventTrackingEvents"]] == [f"name {n}" for n in range(20)]
    assert [row["name"] for row in rest["eventTrackingEvents"]] == [f"name {n}" for n in range(20, 41)]
    assert first["meta"]["total"] == "41"


def test_events_are_kept_in_the_order_of_their_arrival_with_the_time() -> None:
    caller = tracking()
    ann, bob = caller.contact("ann@example.org"), caller.contact("bob@example.org")

    for email, log in (("ann@example.org", 1), ("bob@example.org", 2), ("ann@example.org", 3)):
        caller.now += 0.5
        caller.event(email, eventdata=f"log={log}")

    events = list(caller.shop.events)
    assert [(event.seq, event.contact_id, event.eventdata) for event in events] == [
        (1, ann, "log=1"),
        (2, bob, "log=2"),
        (3, ann, "log=3"),
    ]
    assert [event.received_at for event in events] == [1_000_000.5, 1_000_001.0, 1_000_001.5]
    assert [event.seq for event in caller.shop.events_of("Ann@Example.org")] == [1, 3]


def test_an_event_needs_no_eventdata() -> None:
    caller = tracking()
    caller.contact()

    assert caller.event(eventdata="") == SPAWNED
    assert caller.shop.events[1].eventdata == ""


def test_an_event_of_an_unknown_address_is_answered_with_success_and_is_a_stray() -> None:
    caller = tracking()

    assert caller.event("eve@example.org", eventdata="log=1") == SPAWNED

    assert len(caller.shop.events) == 0
    assert caller.shop.events_without_contact == [StrayEvent(1_000_000.0, "eve@example.org", NAME, "log=1")]


def test_an_account_may_answer_plain_ones_and_zeros() -> None:
    caller = tracking(plain_event_replies=True)
    caller.contact()

    assert caller.post_event() == Response(b"1", content_type="text/plain")
    assert caller.post_event(event="Another") == Response(b"0", content_type="text/plain")


def test_the_tracking_log_shows_the_events_of_one_contact() -> None:
    caller = tracking()
    ann = caller.contact("ann@example.org")
    caller.contact("bob@example.org")
    caller.event("bob@example.org")
    caller.event("ann@example.org", eventdata="fee=5; log=2")

    _, answer = caller.call("GET", f"/contacts/{ann}/trackingLogs")

    assert answer["meta"] == {"total": "1"}
    assert answer["trackingLogs"] == [
        {
            "id": "2",
            "type": NAME,
            "value": "fee=5; log=2",
            "tstamp": "1970-01-12T13:46:40+00:00",
            "contact": str(ann),
        }
    ]


def test_the_tracking_log_is_paged() -> None:
    caller = tracking()
    ann = caller.contact()
    for log in range(25):
        caller.event(eventdata=f"log={log}")

    _, first = caller.call("GET", f"/contacts/{ann}/trackingLogs")
    _, last = caller.call("GET", f"/contacts/{ann}/trackingLogs", query={"offset": "20", "limit": "100"})

    assert [row["value"] for row in first["trackingLogs"]] == [f"log={log}" for log in range(20)]
    assert [row["value"] for row in last["trackingLogs"]] == [f"log={log}" for log in range(20, 25)]
    assert last["meta"]["total"] == "25"


def test_the_tracking_log_shows_an_event_only_after_its_delay() -> None:
    caller = tracking(tracking_log_delay_s=10.0)
    ann = caller.contact()
    caller.event()

    caller.now += 9.0
    assert caller.call("GET", f"/contacts/{ann}/trackingLogs")[1]["meta"]["total"] == "0"
    caller.now += 1.0
    assert caller.call("GET", f"/contacts/{ann}/trackingLogs")[1]["meta"]["total"] == "1"


def test_the_tracking_log_of_an_unknown_contact_is_404() -> None:
    status, answer = Caller().call("GET", "/contacts/7/trackingLogs")

    assert (status, answer) == (404, {"message": "No Result found for Subscriber with id 7"})


def test_an_event_log_takes_the_memory_of_its_columns_and_no_more() -> None:
    log = EventLog()
    for number in range(1000):
        log.add(float(number), number, name=NAME, eventdata="x" * 50)

    assert log.size_bytes <= 1000 * (50 + 24)
    assert log.longest_bytes == 50
    assert log.count_by_name() == {NAME: 1000}


def test_an_event_log_returns_events_unchanged_whatever_the_script() -> None:
    log = EventLog()
    texts = ["", "grün; 30 °C", "💐", "plain"]
    for text in texts:
        log.add(1.0, 1, name=NAME, eventdata=text)

    assert [event.eventdata for event in log] == texts
    assert log.longest_bytes == len("grün; 30 °C".encode())


@pytest.mark.parametrize("seq", [0, 2, -1])
def test_an_event_log_has_no_other_sequence_numbers(seq: int) -> None:
    log = EventLog()
    log.add(1.0, 1, name=NAME, eventdata="")

    with pytest.raises(IndexError):
        log[seq]


@pytest.mark.parametrize(
    ("settings", "shown"),
    [({"tracking_log_characters": 3}, "aéi"), ({"tracking_log_bytes": 3}, "aé"), ({}, "aéiou")],
)
def test_a_tracking_log_may_show_the_beginning_of_a_value_only(settings: dict[str, int], shown: str) -> None:
    caller = tracking(**settings)
    contact_id = caller.contact()
    caller.event(eventdata="aéiou")

    _, answer = caller.call("GET", f"/contacts/{contact_id}/trackingLogs")

    assert [row["value"] for row in answer["trackingLogs"]] == [shown]
    assert [event.eventdata for event in caller.shop.events] == ["aéiou"]


@pytest.mark.parametrize(
    ("setting", "recorded", "registered"), [("dropped", 0, False), ("registered", 1, True)]
)
def test_an_unknown_name_may_be_dropped_or_registered(
    setting: str, recorded: int, *, registered: bool
) -> None:
    caller = tracking(unknown_event_names=setting)
    caller.contact()

    assert caller.event(event="New name") == SPAWNED

    assert len(caller.shop.events) == recorded
    assert ("New name" in caller.shop.event_names) == registered


def test_an_event_of_an_address_without_contact_may_create_one_or_be_refused() -> None:
    creating, refusing = tracking(events_create_contacts=True), tracking(unknown_contact_refusal="Who?")

    assert creating.event() == SPAWNED
    assert creating.shop.contacts.find("ann@example.org")
    assert refusing.event() == (200, {"success": 0, "message": "Who?"})


def test_a_name_is_deleted_by_its_encoded_text() -> None:
    caller = tracking()

    assert caller.call("DELETE", "/eventTrackingEvents/Customer%20cancelled")[0] == 200
    assert list(caller.shop.event_names) == []
