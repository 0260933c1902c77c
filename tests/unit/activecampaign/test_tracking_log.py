"""How a contact's tracking log is read back, and by what an event is known in it. In virtual time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.tracking_log import TrackingLogs
from kiva_stream.errors import ContactGone, KivaStreamError
from kiva_stream.events.payload import render
from kiva_stream.model.event_catalog import CATALOG
from kiva_stream.model.ids import AcId
from kiva_stream.model.tracked_events import LoggedEvent, Mark, mark_of
from kiva_stream.ports import destination
from kiva_stream.settings.sections import ActiveCampaignSettings
from tests.support.http_answers import Answers
from tests.support.virtual_time import now, run

API = "https://account.example/api/3"
SETTINGS = ActiveCampaignSettings(
    api_url="https://account.example", api_token="the-token", event_actid="25550001", event_key="the-key"
)
ANN = AcId(4)
AT = datetime(2018, 3, 4, 17, 2, 10, tzinfo=UTC)


def row(number: int, **other: object) -> dict[str, Any]:
    kept = {"id": str(number), "type": "Login", "value": f"at=x; log={number}", "contact": "4"}
    return {**kept, "tstamp": "2026-11-26T01:00:00+00:00", **other}


def read(*pages: tuple[int, Sequence[dict[str, Any]]], total: str | None = None) -> list[LoggedEvent]:
    """Return the log of a contact that has these pages, each with the offset it is asked for by.

    With a `total`, each page says how many events all pages have.
    """
    meta = {} if total is None else {"meta": {"total": total}}

    async def story() -> list[LoggedEvent]:
        with Answers() as answers:
            for offset, rows in pages:
                url = f"{API}/contacts/4/trackingLogs?limit=100&offset={offset}"
                answers.add(url, "GET", payload={"trackingLogs": rows, **meta})
            async with Client(SETTINGS, clock=now) as client:
                logs: destination.TrackingLogs = TrackingLogs(client)
                return await logs.events(ANN)

    return run(story())


def numbers(events: Sequence[LoggedEvent]) -> Iterator[int]:
    for event in events:
        mark = mark_of(event.eventdata)
        assert mark
        yield mark.log


def test_an_event_is_listed_with_its_name_its_data_and_when_it_arrived() -> None:
    listed = [row(1, type="Signed up", value="a=b; at=x; log=9", tstamp="2018-03-04T12:02:10-05:00")]
    assert read((0, listed)) == [LoggedEvent("Signed up", "a=b; at=x; log=9", AT)]


def test_an_event_that_is_listed_in_other_letters_has_the_name_of_the_catalogue() -> None:
    name = CATALOG.ac_names()[0]
    listed = [row(1, type=name.upper()), row(2, type=name), row(3, type="PAGE visited")]
    assert [event.name for event in read((0, listed))] == [name, name, "PAGE visited"]


def test_a_log_that_says_how_many_it_lists_is_read_to_that_number() -> None:
    rows = [row(number) for number in range(9)]
    assert list(numbers(read((0, rows[:4]), (4, rows[4:5]), (5, rows[5:]), total="9"))) == list(range(9))


@pytest.mark.parametrize("tstamp", ["yesterday", "", None, 7])
def test_a_time_that_cannot_be_read_is_none(tstamp: object) -> None:
    assert read((0, [row(1, tstamp=tstamp)]))[0].at is None


def test_a_log_in_pages_is_read_to_its_end() -> None:
    rows = [row(number) for number in range(250)]
    events = read((0, rows[:100]), (100, rows[100:200]), (200, rows[200:]))
    assert list(numbers(events)) == list(range(250))


def test_a_log_whose_pages_are_shorter_than_asked_is_read_to_its_end() -> None:
    rows = [row(number) for number in range(25)]
    assert list(numbers(read((0, rows[:20]), (20, rows[20:])))) == list(range(25))


def test_a_log_that_is_not_paged_is_read_once() -> None:
    rows = [row(number) for number in range(100)]
    assert len(read((0, rows), (100, rows))) == 100


def test_a_log_that_lists_the_newest_first_is_put_in_order_of_arrival() -> None:
    assert list(numbers(read((0, [row(10), row(9), row(2)])))) == [2, 9, 10]


def test_an_event_that_another_page_listed_already_is_not_a_second_one() -> None:
    rows = [row(number) for number in range(150, 0, -1)]  # and one arrives between the two pages
    events = read((0, rows[:100]), (100, rows[99:]))
    assert list(numbers(events)) == list(range(1, 151))


def failure(status: int) -> type[BaseException]:
    async def story() -> None:
        with Answers() as answers:
            url = f"{API}/contacts/4/trackingLogs?limit=100&offset=0"
            answers.add(url, "GET", status=status, body=b"{}", repeat=True)
            async with Client(SETTINGS, clock=now, patience_s=1) as client:
                await TrackingLogs(client).events(ANN)

    with pytest.raises(KivaStreamError) as caught:
        run(story())
    return caught.type


def test_reading_the_log_of_a_contact_that_is_gone_raises_contact_gone() -> None:
    assert failure(404) is ContactGone


@given(st.text(), st.sampled_from(["", "admin"]), st.integers(0, 2**63 - 1))
def test_eventdata_ends_in_the_mark_of_its_entry(text: str, by: str, log_id: int) -> None:
    value = text.replace(";", ",")
    eventdata, _ = render({"reason": value}, by=by, at=AT, log_id=log_id)
    assert mark_of(eventdata) == Mark("2018-03-04T17:02:10Z", log_id)


@pytest.mark.parametrize(
    ("eventdata", "mark"),
    [
        ("at=2018-03-04T17:02:10Z; log=12345", Mark("2018-03-04T17:02:10Z", 12345)),
        ("to=log=1, at=2; at=x; log=7", Mark("x", 7)),
        ("", None),
        ("log=5", None),
        ("at=2018-03-04T17:02:10Z", None),
        ("at=x; log=7; by=them", None),
        ("a page visited", None),
    ],
)
def test_the_mark_is_the_at_and_the_last_log_of_eventdata(eventdata: str, mark: Mark | None) -> None:
    assert mark_of(eventdata) == mark
