"""The week tag that a contact should have: its desired state, pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import chain

from kiva_stream.model.week_tags import WeekTag


def week_tag(statuses: Iterable[Collection[str]]) -> WeekTag:
    """Return the tag of a contact by the statuses of its customers' orders of the current week."""
    found = set(chain.from_iterable(statuses))
    if "open" in found:
        return WeekTag.OPEN
    return WeekTag.CLOSED if found & {"closed", "complete"} else WeekTag.NONE
