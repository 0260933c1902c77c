"""Events in a contact's tracking log at ActiveCampaign, and the mark by which kiva_stream finds its own."""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

_MARK = re.compile(r"(?:^|; )at=([^;]*); log=([0-9]{1,19})\s*$")


class LoggedEvent(NamedTuple):
    """An event in the tracking log of its contact."""

    name: str
    eventdata: str
    at: datetime | None  # when ActiveCampaign received it; None: unknown


class Mark(NamedTuple):
    """The end of an event's eventdata, which identifies the entry that it was sent for."""

    at: str  # as `stamp` wrote it
    log: int  # the entry's id


def mark_of(eventdata: str) -> Mark | None:
    """Return the `at=` and the last `log=` of eventdata; None if kiva_stream did not write it."""
    found = _MARK.search(eventdata)
    return Mark(found[1], int(found[2])) if found else None
