"""Events in a contact's tracking log at ActiveCampaign, and the mark by which kiva_stream finds its own.

ActiveCampaign does not document how long eventdata may be. In the example of a tracking log in its API
reference, values end at 250 characters in the middle of a word: what lies beyond seems to be cut off.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

EVENTDATA_BYTES = 250  # the longest that is sent; earlier versions sent up to 255
_MARK = re.compile(r"(?:^|; )at=([^;]*); log=(-?[0-9]{1,19})\s*$")


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


def shows(eventdata: str, mark: Mark) -> bool:
    """Return whether listed eventdata has a mark; of one that was cut, what lies within is compared."""
    if mark_of(eventdata) == mark:
        return True
    at, tail = f"at={mark.at}; ", eventdata[eventdata.rfind("at=") :]
    return is_cut(eventdata) and tail.startswith(at) and f"{at}log={mark.log}".startswith(tail)


def is_cut(eventdata: str) -> bool:
    """Return whether listed eventdata may lack its end."""
    return len(eventdata.encode(errors="replace")) >= EVENTDATA_BYTES
