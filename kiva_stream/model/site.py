"""A site: one box company."""

from __future__ import annotations

from datetime import datetime

import msgspec


class Site(msgspec.Struct, frozen=True):
    """One box company: a row of `sites`."""

    id: int
    name: str
    timezone: str
    currency: str
    admin_base_url: str
    launched_at: datetime  # midnight of `launched_on` in the site's timezone
