"""The site: one row of the shop's `sites`."""

from __future__ import annotations

from kiva_stream.errors import SourceError
from kiva_stream.model.site import Site
from kiva_stream.source.source import Source


async def read_site(source: Source, site_id: int) -> Site:
    """Return the site of an id. Raises SourceError when there is none, or the source cannot be read."""
    for row in await source.fetch("site", site_id):
        return Site(**row)
    raise SourceError(
        f"There is no site {site_id} in the shop's database: set source.site_id to an id of its table sites."
    )
