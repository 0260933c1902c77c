"""Answers about the tracking log of a contact: the events that ActiveCampaign received for it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.activecampaign.responses.rest import parse_by_contact_id


class TrackingLogRow(msgspec.Struct):
    """An event in a contact's tracking log; ids grow in the order of arrival."""

    id: int
    name: str = msgspec.field(name="type")
    eventdata: str = msgspec.field(name="value", default="")
    tstamp: Any = None

    @property
    def received_at(self) -> datetime | None:
        """When ActiveCampaign received it; None if the time is missing or cannot be read."""
        try:
            at = datetime.fromisoformat(str(self.tstamp))
        except ValueError:
            return None
        return at if at.tzinfo else at.replace(tzinfo=UTC)


def parse_tracking_log(response: Response) -> list[TrackingLogRow]:
    """Return a page of a contact's tracking log. Raises as `parse_by_contact_id`."""
    return parse_by_contact_id(response, list[TrackingLogRow], key="trackingLogs")
