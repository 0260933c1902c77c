"""Pages: what one stage hands to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kiva_stream.model.classifications import Classification
from kiva_stream.model.entries import Change, Entry, ReopenedEntries
from kiva_stream.model.outcomes import Span


class Page(NamedTuple):
    """Consecutive entries of the log; or changes, or entries outside the log's order."""

    span: Span
    entries: list[Entry]
    changes: Sequence[Change] = ()
    reopened: ReopenedEntries | None = None  # if given, `entries` are theirs


class ClassifiedPage(NamedTuple):
    """A page with the classification of each of its entries."""

    span: Span
    classifications: list[tuple[Entry, Classification]]
    changes: Sequence[Change] = ()
    reopened: ReopenedEntries | None = None
