"""Events as a contact's tracking log at ActiveCampaign lists them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

_MARK = re.compile(r"(?:^|; )at=([^;]*); log=([0-9]{1,19})\s*$")


class LoggedEvent(NamedTuple):
    """An event as the tracking log of its contact at ActiveCampaign lists it."""

    name: str
    eventdata: str
    at: datetime | None  # when ActiveCampaign received it; None: it does not say


class Mark(NamedTuple):
    """What tells an event from others of its name when it is read back."""

    at: str  # as `stamp` wrote it
    log: int  # the entry's id


def mark_of(eventdata: str) -> Mark | None:
    """Return the `at=` and the last `log=` of what an event says; None: it is none of ours."""
    found = _MARK.search(eventdata)
    return Mark(found[1], int(found[2])) if found else None
