"""Answers of the bulk import: whether it was accepted, and how far it has come."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal

import msgspec

from kiva_stream.activecampaign.responses.response import Response, addresses, mask
from kiva_stream.activecampaign.responses.rest import parse_rest
from kiva_stream.activecampaign.responses.statuses import retry_after_s
from kiva_stream.errors import Rejected, RowsRejected, TryLater
from kiva_stream.model.bulk_imports import AcceptedImport, ImportReport, ImportState

_THROTTLED = re.compile(r"rate limit|per minute", re.IGNORECASE)
_LEAST_QUOTED = 4  # characters; a shorter text may stand in any reason
_ROW_OF_POINTER = re.compile(r"/contacts/(\d+)(?:/|$)|^/data/(\d+)(?:/|$)")
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
    """A row that ActiveCampaign refuses; `contact` is its number, counted from 1 or from 0."""

    contact: int
    reason: str = msgspec.field(name="failureReason", default="")


class _ImportFault(msgspec.Struct):
    """Why an import was refused: rows at fault, or texts about the whole import."""

    message: str = ""
    reasons: list[_RowFault | str] = msgspec.field(name="failureReasons", default=[])

    def is_throttling(self) -> bool:
        texts = [self.message, *(reason for reason in self.reasons if isinstance(reason, str))]
        return any(map(_THROTTLED.search, texts))


class _Source(msgspec.Struct):
    """Where an error of the form of JSON:API lies."""

    pointer: str = ""


class _Error(msgspec.Struct):
    """An error of the form of JSON:API ("Errors" in ActiveCampaign's API reference)."""

    source: _Source | None = None


class _Errors(msgspec.Struct):
    """The other form of a refusal: errors with pointers."""

    errors: list[_Error] = []


class _Info(msgspec.Struct):
    """The progress of an import; its status is `false` in its first second ("Bulk import status info")."""

    status: Literal["waiting", "claimed", "active", "completed", "failed", "interrupted"] | bool
    failure: list[str] = []


class _Day(msgspec.Struct):
    """The imports of a day ("Bulk import status list"); numbers are strings."""

    batches: int = 0


def parse_accepted_import(response: Response, rows: Sequence[Collection[str]]) -> AcceptedImport:
    """Return the accepted import of `rows`; it is short if ActiveCampaign queued fewer contacts than these.

    Each row is given by its texts, its address first. Raises RowsRejected with the rows that may be at fault;
    Rejected if none is named; TryLater, also for throttling, which this call answers with a 400 ("Bulk import
    contacts"); and AccountRefused.
    """
    try:
        accepted = parse_rest(response, _Queued)
    except Rejected as refusal:
        fault = response.decode(_ImportFault) or _ImportFault()
        if fault.is_throttling():
            raise TryLater(
                f"bulk imports are throttled: {response.excerpt()}", retry_after_s(response)
            ) from None
        if reasons := _suspects(fault, rows, response.secrets) or _named(response, rows, refusal.reply):
            raise RowsRejected("ActiveCampaign refused rows of an import", reasons) from None
        raise
    is_short = accepted.contacts is not None and accepted.contacts < len(rows)
    return AcceptedImport(accepted.batch_id, is_short=is_short)


def _suspects(
    fault: _ImportFault, rows: Sequence[Collection[str]], secrets: tuple[str, ...]
) -> dict[int, str]:
    """Return the rows that an import may have been refused for, by index from 0, with the reasons.

    If the reason quotes a text that one of the two rows of a number has, it is this one.
    """
    found: dict[int, str] = {}
    for each in fault.reasons:
        if isinstance(each, _RowFault):
            pair = _rows_of_number(each.contact, len(rows))
            quoted = [index for index in pair if _quotes(each.reason, rows[index])]
            for index in quoted if len(quoted) == 1 else pair:
                found.setdefault(index, mask(each.reason, secrets))
    return found


def _named(response: Response, rows: Sequence[Collection[str]], reply: str) -> dict[int, str]:
    """Return the rows whose address a refusal has in a text, or whose number it has in a pointer."""
    texts = list(_texts(response.decode(Any)))
    quoted = {address for text in texts for address in addresses(text)}
    found = [index for index, row in enumerate(rows) if quoted.intersection(map(str.lower, row))]
    errors = (response.decode(_Errors) or _Errors()).errors
    numbers = [_number_in(each.source.pointer) for each in errors if each.source]
    pairs = [row for number in numbers if number is not None for row in _rows_of_number(number, len(rows))]
    return dict.fromkeys(found or pairs, reply)


def _rows_of_number(number: int, count: int) -> list[int]:
    """Return the rows that a number may mean, by index from 0.

    The number k may mean the k-th row or the one after it: ActiveCampaign does not document whether it counts
    from 1 or from 0.
    """
    return [index for index in (number - 1, number) if 0 <= index < count]


def _number_in(pointer: str) -> int | None:
    match = _ROW_OF_POINTER.search(pointer)
    return None if match is None else int(match[1] or match[2])


def _texts(body: object) -> Iterator[str]:
    """Yield the texts of a JSON body."""
    if isinstance(body, str):
        yield body
    elif isinstance(body, dict | list):
        for each in body.values() if isinstance(body, dict) else body:
            yield from _texts(each)


def _quotes(reason: str, texts: Collection[str]) -> bool:
    return any(len(text) >= _LEAST_QUOTED and text.lower() in reason.lower() for text in texts)


def parse_outstanding(response: Response) -> int:
    """Return how many imports have not ended. Raises TryLater, AccountRefused."""
    return sum(day.batches for day in parse_rest(response, list[_Day], key="outstanding"))


def parse_import_report(response: Response) -> ImportReport:
    """Return how far an import has come; one whose id is unknown is lost. Raises TryLater, AccountRefused."""
    try:
        info = parse_rest(response, _Info, by_id=True)
    except Rejected:
        return ImportReport(ImportState.LOST)
    failures = frozenset(address.strip().lower() for address in info.failure)
    return ImportReport(_STATES.get(str(info.status), ImportState.RUNNING), failures)
