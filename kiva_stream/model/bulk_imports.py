"""Bulk imports of contacts that ActiveCampaign accepted."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec

from kiva_stream.model.ids import ContactId


class AcceptedImport(NamedTuple):
    """ActiveCampaign's answer to an import that it accepted."""

    id: str
    is_short: bool  # fewer contacts were queued than were sent, and the answer does not name them


class OpenImport(msgspec.Struct, frozen=True):
    """An import that ActiveCampaign accepted: its contacts, each with the fingerprint of what was sent."""

    id: str
    fingerprints: dict[ContactId, bytes]
    is_short: bool  # see AcceptedImport
    unsubscribed: frozenset[ContactId] = frozenset()  # the contacts that it unsubscribes


class ImportState(StrEnum):
    """How far an accepted bulk import has come."""

    RUNNING = "running"
    COMPLETED = "completed"
    LOST = "lost"  # failed, interrupted or forgotten: to be sent again


class ImportReport(msgspec.Struct, frozen=True):
    """What ActiveCampaign says of an accepted bulk import."""

    state: ImportState
    failures: frozenset[str] = frozenset()  # lower-case addresses of the contacts that failed
