"""Incidents: what is wrong just now, since when and why."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

IncidentKind = Literal[
    "activecampaign",
    "events",
    "imports",
    "new_contacts",
    "contacts",
    "orders",
    "permission",
    "tags",
    "parked",
    "key",
    "source",
    "horizon",
    "state",
]


class Incident(msgspec.Struct, frozen=True):
    """Something that is wrong just now."""

    kind: IncidentKind
    since: datetime
    why: str
