"""The shop's delivery weeks: which one is current, and the statuses of the orders of a week."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

from kiva_stream.model.ids import CustomerId
from kiva_stream.source.source import Source


class DeliveryWeeks:
    """Implements the port Weeks for one site. Every call raises SourceError."""

    def __init__(self, source: Source, site_id: int) -> None:
        self._source = source
        self._site_id = site_id

    async def current(self) -> date:
        """Return the week opened last by the database's clock; before the first, today's at the site."""
        rows = await self._source.fetch("current_week", self._site_id)
        return rows[0][0]  # type: ignore[no-any-return]  # date

    async def is_opened(self) -> bool:
        """Return whether the shop has ever opened a week."""
        rows = await self._source.fetch("has_opened_week", self._site_id)
        return rows[0][0]  # type: ignore[no-any-return]  # boolean

    async def statuses(self, customers: Collection[CustomerId], week: date) -> dict[CustomerId, set[str]]:
        """Return statuses by customer."""
        rows = await self._source.fetch("week_statuses", self._site_id, list(customers), week)
        return {CustomerId(row["customer_id"]): set(row["statuses"]) for row in rows}
