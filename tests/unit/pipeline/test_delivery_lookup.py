"""Look-ups: whether an event is in its contact's tracking log."""

from __future__ import annotations

import pytest

from kiva_stream.errors import PermissionRefused, Rejected
from kiva_stream.model.contacts import ContactStatus
from kiva_stream.model.ids import AcId, CustomerId
from kiva_stream.model.tracked_events import LoggedEvent
from kiva_stream.pipeline.delivery_lookup import TrackingLogLookup
from tests.fakes.destination_contacts import FakeContacts
from tests.fakes.state_contacts import FakeLinks
from tests.support.entries import LOGGED_OUT, contact, eventdata


class FakeTrackingLogs:
    """Implements TrackingLogs; who has none is not there any more."""

    def __init__(self, **logs: list[LoggedEvent]) -> None:
        self.logs = {AcId(int(key[1:])): rows for key, rows in logs.items()}

    async def events(self, contact: AcId, *, low_priority: bool = False) -> list[LoggedEvent]:
        assert not low_priority
        if contact not in self.logs:
            raise Rejected("gone", "no such contact")
        return self.logs[contact]


async def found(logs: FakeTrackingLogs, known: AcId | None, there: bool = True) -> bool | None:
    """Return whether a look-up finds the event of place 1; whether the id is `known` or found by address."""
    ann, links, contacts = contact(), FakeLinks(ContactStatus.LINKED), FakeContacts()
    await links.link({CustomerId(1): ann.email})
    if known is not None:
        links.ac_ids[ann.id] = known
    if there:
        contacts.add(ann.email)
    return await TrackingLogLookup(links, contacts, logs).has_arrived(ann, LOGGED_OUT.ac_name, eventdata(1))


SAME = LoggedEvent(LOGGED_OUT.ac_name, f"{eventdata(1)}", None)


async def test_an_event_is_known_by_its_name_its_moment_and_its_mark() -> None:
    assert await found(FakeTrackingLogs(_7=[SAME]), AcId(7))
    other_name = SAME._replace(name="Something else")
    other_mark = SAME._replace(eventdata=eventdata(2))
    other_moment = SAME._replace(eventdata=eventdata(1).replace("17:00:00", "17:00:01"))
    foreign = SAME._replace(eventdata="what others sent")
    logs = FakeTrackingLogs(_7=[other_name, other_mark, other_moment, foreign])
    assert not await found(logs, AcId(7))


async def test_a_contact_whose_id_is_not_known_is_found_by_its_address() -> None:
    assert await found(FakeTrackingLogs(_101=[SAME]), None)


async def test_where_there_is_no_log_to_look_into_nothing_has_arrived() -> None:
    assert not await found(FakeTrackingLogs(), AcId(7))
    assert not await found(FakeTrackingLogs(_101=[SAME]), None, there=False)


class Forbidden(FakeContacts, FakeTrackingLogs):
    """An account whose key's user may look up neither contacts nor tracking logs."""

    def __init__(self) -> None:
        FakeContacts.__init__(self)
        self.forbidden = {"find"}

    async def events(self, contact: AcId, *, low_priority: bool = False) -> list[LoggedEvent]:  # noqa: ARG002
        raise PermissionRefused("403")


@pytest.mark.parametrize("known", [None, AcId(7)])
async def test_a_look_up_that_is_forbidden_cannot_say(known: AcId | None) -> None:
    ann, links, account = contact(), FakeLinks(ContactStatus.LINKED), Forbidden()
    await links.link({CustomerId(1): ann.email})
    if known is not None:
        links.ac_ids[ann.id] = known
    lookup = TrackingLogLookup(links, account, account)
    assert await lookup.has_arrived(ann, LOGGED_OUT.ac_name, eventdata(1)) is None


LONG = f"reason={'x' * 250}"


@pytest.mark.parametrize("lost", [1, 3, 5])
async def test_an_event_whose_listed_data_is_cut_is_known_by_what_lies_within(lost: int) -> None:
    tail = eventdata(1)
    whole = LONG[: 250 + lost - len(f"; {tail}")] + f"; {tail}"
    cut = SAME._replace(eventdata=whole[:250])
    assert await found(FakeTrackingLogs(_7=[cut]), AcId(7))
    other_moment = cut._replace(eventdata=cut.eventdata.replace("17:00:00", "17:00:01"))
    short = cut._replace(eventdata=cut.eventdata[50:])
    assert not await found(FakeTrackingLogs(_7=[other_moment, short]), AcId(7))
