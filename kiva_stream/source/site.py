"""The site: one row of the shop's `sites`, and what is wrong with it."""

from __future__ import annotations

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

from kiva_stream.errors import SourceError
from kiva_stream.model.site import Site
from kiva_stream.source.source import Source


async def read_site(source: Source, site_id: int) -> Site:
    """Return the site of an id.

    Raises SourceError when there is none, its timezone is unknown, or the source cannot be read.
    """
    site, obstacle = await read_site_in_any_timezone(source, site_id)
    if obstacle is not None:
        raise SourceError(obstacle)
    return site


async def read_site_in_any_timezone(source: Source, site_id: int) -> tuple[Site, str | None]:
    """Return the site of an id. If its timezone is unknown, it is in UTC, and a sentence says so.

    Raises SourceError when there is none, or the source cannot be read.
    """
    for row in await source.fetch("site", site_id):
        is_known = await _is_known(source, row["timezone"])
        zone = row["timezone"] if is_known else "UTC"
        launched_at = datetime.combine(row["launched_on"], time(), ZoneInfo(zone)).astimezone(UTC)
        columns = {**row, "timezone": zone, "launched_at": launched_at}
        del columns["launched_on"]
        return Site(**columns), None if is_known else _unknown(row["timezone"])
    raise SourceError(
        f"There is no site {site_id} in the shop's database: set source.site_id to an id of its table sites."
    )


async def _is_known(source: Source, timezone: str) -> bool:
    """Return whether both this machine and the shop's PostgreSQL know a timezone."""
    try:
        ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):  # ZoneInfo raises these, by what is wrong with the name
        return False
    return await source.accepts("in_timezone", timezone)


def _unknown(timezone: str) -> str:
    return (
        f"sites.timezone is {timezone!r}, which is no name of the IANA time zone database (such as "
        "America/Denver) that PostgreSQL and this machine know: correct it at the shop."
    )
