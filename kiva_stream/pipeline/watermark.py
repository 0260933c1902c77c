"""The watermark over what was read. It does no I/O.

Spans are tracked in log order, and passed in that order, each when no entry of it is pending any more.
"""

from __future__ import annotations

from collections import Counter, deque

from kiva_stream.model.outcomes import Counted, Span
from kiva_stream.model.positions import Position


class Watermark:
    """The highest position at or below which every entry has its outcome, or is parked."""

    def __init__(self, position: Position) -> None:
        self.position = position
        self.width = 0  # entries between the watermark and the newest one read
        self.newest = position  # the newest one read
        self._spans: deque[Span] = deque()

    @property
    def pending(self) -> int:
        """How many of the entries that were read have no outcome yet, and are not parked."""
        return sum(span.pending for span in self._spans)

    @property
    def ahead(self) -> Counter[Counted]:
        """The counts of the entries above the watermark that have their outcome."""
        ahead: Counter[Counted] = Counter()
        for span in self._spans:
            ahead.update(span.counts)
        return ahead

    def span_of(self, position: Position) -> Span | None:
        """Return the span of an entry above the watermark; None: the entry is passed, or not read."""
        if not self.position < position <= self.newest:
            return None
        return next(span for span in self._spans if position <= span.last)

    def track(self, last: Position, size: int) -> Span:
        """Add the span of the next entries in log order; `last` is the position of the last of them."""
        span = Span(last, size)
        self._spans.append(span)
        self.width += size
        self.newest = last
        return span

    def advance(self) -> Counter[Counted]:
        """Pass the spans whose entries all have their outcome; return their counts."""
        passed: Counter[Counted] = Counter()
        while self._spans and self._spans[0].pending == 0:
            span = self._spans.popleft()
            self.position = span.last
            self.width -= span.size
            passed.update(span.counts)
        return passed
