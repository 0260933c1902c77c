"""The tracking log of a contact: the only way to learn whether an event arrived whose answer was lost."""

from __future__ import annotations

from urllib.parse import urlencode

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.listings import PAGE_ROWS
from kiva_stream.activecampaign.responses.tracking_logs import TrackingLogRow, parse_tracking_log
from kiva_stream.model.ids import AcId
from kiva_stream.model.tracked_events import LoggedEvent

FULL_PAGES = frozenset({PAGE_ROWS, 20})  # 20: of a listing that ignores `limit` ("Pagination")


class TrackingLogs:
    """Implements `ports.destination.TrackingLogs` for one account."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def events(self, contact: AcId, *, low_priority: bool = False) -> list[LoggedEvent]:
        """Return the events of a contact's log, each once, in the order of their ids.

        ActiveCampaign documents neither whether the log has pages nor its order. A page is the last if it has
        no new row, or is not as long as a full page.
        """
        rows: dict[int, TrackingLogRow] = {}
        read = 0
        while True:
            query = urlencode({"limit": PAGE_ROWS, "offset": read})
            path = f"/contacts/{contact}/trackingLogs?{query}"
            page = await self._client.call("GET", path, parse=parse_tracking_log, low_priority=low_priority)
            new = {row.id: row for row in page if row.id not in rows}
            rows |= new
            read += len(page)
            if not new or len(page) not in FULL_PAGES:
                return [
                    LoggedEvent(row.name, row.eventdata, row.received_at) for _, row in sorted(rows.items())
                ]
