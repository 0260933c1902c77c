"""The horizon: up to where the log can be read safely, and what keeps it from being read further.

A running transaction may still commit an entry with its txid, so no txid from that of the oldest running
transaction on is safe to read. Without `source.horizon` the log is read by id alone, as long as ids go up: a
truncated table that restarts its sequence, or a sequence that is set back or cycles, begins them anew.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from kiva_stream.model.bounds import bound_text
from kiva_stream.model.positions import DAY1, HighWaterMark, Position
from kiva_stream.settings.sections import SourceSettings
from kiva_stream.source.source import Source

LATE = timedelta(seconds=10)  # an id may be taken so long before its entry is inserted
BETWEEN_S = 1.0  # for a query that an index on `inserted_at` answers in milliseconds


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

    async def restart(self, after: Position, read_by: datetime) -> str | None:
        """Return a sentence if the ids of a log that is read by id have begun anew, else None.

        `after` is up to where it was read, and no entry up to there was inserted after `read_by`. Only the
        lowest and the highest entry are looked at; `inserted_later` looks between them.
        """
        if self.is_used:
            return None
        site_id, _ = self._arguments
        for row in await self._source.fetch("ends_of_log", site_id):
            if row["id"] <= after.id and row["inserted_at"] > read_by:
                return (
                    f"The ids of the log have begun anew: the entry 0:{row['id']} was inserted at "
                    f"{row['inserted_at']:%Y-%m-%d %H:%M}, when the log had been read up to {after}. "
                    f"{_remedy(row['id'])}"
                )
        return None

    async def inserted_later(self, after: Position, read_by: datetime) -> str | None:
        """Return a sentence about entries up to `after` that were inserted too late to be read, or None.

        They came more than LATE after `read_by`. Without an index on `inserted_at` the query of a long log
        takes too long, and is given up.
        """
        if self.is_used:
            return None
        site_id, _ = self._arguments
        arguments = site_id, after.id, read_by + LATE
        rows = await self._source.fetch_if_quick("inserted_later", *arguments, within_s=BETWEEN_S)
        for row in rows or ():
            if row["count"]:
                return (
                    f"{row['count']:,} entries up to {after}, the first of them 0:{row['first_id']}, were "
                    "inserted after the log had been read up to there, and are not read unless their ids "
                    f"were missing shortly before. If ids have begun anew: {_remedy(row['first_id'])}"
                )
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


def _remedy(log_id: int) -> str:
    """Return what to do to have an entry read."""
    to = bound_text(Position(0, max(log_id - 1, 0)))
    return f"Stop kiva-stream, and run `kiva-stream rewind --to {to} --resend`."
