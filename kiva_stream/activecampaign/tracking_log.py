"""The tracking log of a contact: the only way to learn whether an event arrived whose answer was lost."""

from __future__ import annotations

from urllib.parse import urlencode

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.listings import PAGE_ROWS, Progress, total_rows
from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.activecampaign.responses.tracking_logs import TrackingLogRow, parse_tracking_log
from kiva_stream.model.event_catalog import CATALOG
from kiva_stream.model.ids import AcId
from kiva_stream.model.tracked_events import LoggedEvent

_NAMES = {name.casefold(): name for name in CATALOG.ac_names()}


def _parse_page(response: Response) -> tuple[list[TrackingLogRow], int | None]:
    return parse_tracking_log(response), total_rows(response)


class TrackingLogs:
    """Implements `ports.destination.TrackingLogs` for one account."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def events(self, contact: AcId, *, low_priority: bool = False) -> list[LoggedEvent]:
        """Return the events of a contact's log, each once, in the order of their ids.

        ActiveCampaign documents neither whether the log has pages nor its order. A page without a new row is
        the last.
        """
        rows: dict[int, TrackingLogRow] = {}
        read = 0
        while True:
            query = urlencode({"limit": PAGE_ROWS, "offset": read})
            path = f"/contacts/{contact}/trackingLogs?{query}"
            page, total = await self._client.call(
                "GET", path, parse=_parse_page, low_priority=low_priority, awaits_permission=False
            )
            new = {row.id: row for row in page if row.id not in rows}
            rows |= new
            read += len(page)
            if not new or Progress(read, len(page), total).is_end:
                return [_event(row) for _, row in sorted(rows.items())]


def _event(row: TrackingLogRow) -> LoggedEvent:
    """Return the event of a row. The account may have an event's name in other letters: see `named`."""
    return LoggedEvent(_NAMES.get(row.name.casefold(), row.name), row.eventdata, row.received_at)
