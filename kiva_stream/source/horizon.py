"""The horizon: up to where the log can be read safely, and what keeps it from being read further.

A running transaction may still commit an entry with its txid, so no txid from that of the oldest running
transaction on is safe to read. Without `source.horizon` the log is read by id alone.
"""

from __future__ import annotations

from datetime import UTC, datetime

from kiva_stream.model.positions import DAY1, HighWaterMark, Position
from kiva_stream.settings.sections import SourceSettings
from kiva_stream.source.source import Source


class Horizon:
    """The horizon of one site's log. Every call raises SourceError when the source cannot be read."""

    def __init__(self, source: Source, settings: SourceSettings) -> None:
        self.is_used = settings.horizon  # if not, the log is read by id alone, and positions are (0, id)
        self._source = source
        self._arguments = settings.site_id, float(settings.delay_s)

    async def high_water_mark(self) -> HighWaterMark:
        """Return the newest position that is safe to read, and the moment at which the delay cuts."""
        for row in await self._source.fetch("high_water_mark", *self._arguments):
            return HighWaterMark(Position(row["txid"], row["id"]), row["inserted_before"])
        return HighWaterMark(DAY1, datetime.min.replace(tzinfo=UTC))

    async def obstacle(self, after: Position) -> str | None:
        """Return a sentence about what keeps the log from being read on above `after`, or None.

        An entry that is younger than `delay_s` is no obstacle.
        """
        site_id, delay_s = self._arguments
        for row in await self._source.fetch("next_entry", site_id, *after, delay_s):
            place = f"Reading stopped before the entry {row['txid']}:{row['id']}"
            if row["is_in_future"]:
                return (
                    f"{place}: its inserted_at {row['inserted_at']:%Y-%m-%d %H:%M} lies in the future, and "
                    "nothing behind it is read before then. Correct it at the shop."
                )
            if row["is_held_back"] and row["is_of_another_server"]:
                return (
                    f"{place}: no transaction of this server has its txid yet; the log was restored from a "
                    "dump or copied from another server, and its txids mean nothing here."
                )
            if row["is_held_back"]:
                writer = await self.oldest_writer() or "which has just ended, or is not shown"
                return f"{place}: a writing transaction that could still precede it is open: {writer}."
        return None

    async def oldest_writer(self) -> str | None:
        """Return a phrase that names the oldest writing transaction of the server, in any of its databases.

        The phrase says for how long it is open when the role may see that. None: there is none any more.
        """
        for row in await self._source.fetch("oldest_writer"):
            kind = "the prepared transaction" if row["application"] is None else "the session with pid"
            place = f"{kind} {row['name']} in the database {row['database']}"
            named = f"{place} ({row['application']})" if row["application"] else place
            return named if row["for_s"] is None else f"{named}, for {row['for_s']:.0f} s"
        return None
