"""The tracking log of a contact: the one way to learn whether an event whose answer was lost did arrive."""

from __future__ import annotations

from urllib.parse import urlencode

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.responses.tracking_logs import TrackingLogRow, parse_tracking_log
from kiva_stream.model.ids import AcId
from kiva_stream.model.tracked_events import LoggedEvent

PAGE_ROWS = 100  # the most ActiveCampaign lists at a time
FULL_PAGES = frozenset({PAGE_ROWS, 20})  # 20 rows come where a limit does nothing


class TrackingLogs:
    """Implements `ports.TrackingLogs` for one account."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def of(self, contact: AcId, *, yields: bool = False) -> list[LoggedEvent]:
        """Return what the log of a contact lists: see `ports.TrackingLogs`.

        Whether the log is paged is not documented, nor in which order it comes: rows are told apart, and put
        in order, by their ids, and a page without a new one is the last.
        """
        rows: dict[int, TrackingLogRow] = {}
        read = 0
        while True:
            query = urlencode({"limit": PAGE_ROWS, "offset": read})
            path = f"/contacts/{contact}/trackingLogs?{query}"
            page = await self._client.call("GET", path, None, parse_tracking_log, yields=yields)
            new = {row.id: row for row in page if row.id not in rows}
            rows |= new
            read += len(page)
            if not new or len(page) not in FULL_PAGES:
                return [_event(rows[row_id]) for row_id in sorted(rows)]


def _event(row: TrackingLogRow) -> LoggedEvent:
    return LoggedEvent(row.name, row.eventdata, row.received_at)
