"""Week tags as a kind of request: it is paused while ActiveCampaign refuses all tags."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio.lowlevel

from kiva_stream.model.contacts import DueContact
from kiva_stream.model.ids import ContactId
from kiva_stream.observability.incidents import Incidents
from kiva_stream.sync.request_kinds import RequestKind

TagKind = RequestKind[ContactId, DueContact]  # of a contact whose tag turns out to be refused


def tag_kind(
    incidents: Incidents,
    probe_every_s: float,
    before_probe: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint,
) -> TagKind:
    """Return the kind of one account's week tags."""
    return TagKind(
        "tags",
        "week tags",
        "Run `kiva-stream setup`, and look at the permissions of the key's user.",
        incidents=incidents,
        probe_every_s=probe_every_s,
        before_probe=before_probe,
    )
