"""Answers of the bulk import: whether it was accepted, and how far it has come."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from kiva_stream.activecampaign.responses.response import Response, mask
from kiva_stream.activecampaign.responses.rest import parse_rest
from kiva_stream.activecampaign.responses.statuses import retry_after_s
from kiva_stream.errors import AccountRefused, Rejected, RowsRejected, TryLater
from kiva_stream.model.bulk_imports import AcceptedImport, ImportReport, ImportState

_THROTTLED = re.compile(r"rate limit|per minute", re.IGNORECASE)
_STATES = {
    "completed": ImportState.COMPLETED,
    "failed": ImportState.LOST,
    "interrupted": ImportState.LOST,
}


class _Queued(msgspec.Struct):
    """An accepted import; ActiveCampaign documents the number of queued contacts, some answers lack it."""

    batch_id: str = msgspec.field(name="batchId")
    contacts: int | None = msgspec.field(name="queued_contacts", default=None)


class _RowFault(msgspec.Struct):
    """A row that ActiveCampaign refuses; `contact` counts from 1."""

    contact: int
    reason: str = msgspec.field(name="failureReason", default="")


class _ImportFault(msgspec.Struct):
    """Why an import was refused: rows at fault, or texts about the whole import."""

    message: str = ""
    reasons: list[_RowFault | str] = msgspec.field(name="failureReasons", default=[])

    def is_throttling(self) -> bool:
        texts = [self.message, *(reason for reason in self.reasons if isinstance(reason, str))]
        return any(map(_THROTTLED.search, texts))


class _Info(msgspec.Struct):
    """The progress of an import; its status is `false` in its first second ("Bulk import status info")."""

    status: Literal["waiting", "claimed", "active", "completed", "failed", "interrupted"] | bool
    failure: list[str] = []


def parse_accepted_import(response: Response, count: int) -> AcceptedImport:
    """Return the accepted import of `count` contacts; it is short if ActiveCampaign queued fewer than that.

    Raises RowsRejected with the rows at fault, by index from 0; TryLater, also for throttling, which this
    call answers with a 400 ("Bulk import contacts"); and AccountRefused, also if ActiveCampaign refuses the
    import but names no row, since it would refuse every other import too.
    """
    try:
        accepted = parse_rest(response, _Queued)
    except Rejected as refusal:
        fault = response.decode(_ImportFault) or _ImportFault()
        if fault.is_throttling():
            raise TryLater(
                f"bulk imports are throttled: {response.excerpt()}", retry_after_s(response)
            ) from None
        if rows := _refused_rows(fault, count, response.secrets):
            raise RowsRejected(f"ActiveCampaign refused {len(rows)} contacts of an import", rows) from None
        raise AccountRefused(f"ActiveCampaign refuses bulk imports: {refusal.reply}") from None
    is_short = accepted.contacts is not None and accepted.contacts < count
    return AcceptedImport(accepted.batch_id, is_short=is_short)


def _refused_rows(fault: _ImportFault, count: int, secrets: tuple[str, ...]) -> dict[int, str]:
    """Return why rows of the import were refused, by index from 0; rows it does not have are left out."""
    rows = [row for row in fault.reasons if isinstance(row, _RowFault) and 1 <= row.contact <= count]
    return {row.contact - 1: mask(row.reason, secrets) for row in rows}


def parse_import_report(response: Response) -> ImportReport:
    """Return how far an import has come; one whose id is unknown is lost. Raises TryLater, AccountRefused."""
    try:
        info = parse_rest(response, _Info, by_id=True)
    except Rejected:
        return ImportReport(ImportState.LOST)
    failures = frozenset(address.strip().lower() for address in info.failure)
    return ImportReport(_STATES.get(str(info.status), ImportState.RUNNING), failures)
