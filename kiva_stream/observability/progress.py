"""Progress of a backfill, as frozen records for hooks."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from kiva_stream.model.positions import Position
from kiva_stream.observability.logs import log


class Progress(msgspec.Struct, frozen=True):
    """How far a backfill has come. A hook gets one about once a second, and one at the end."""

    phase: str  # contacts | orders | events | tags | done
    entries_read: int
    outcomes: int  # entries that have their outcome
    events_sent: int
    contacts_done: int
    watermark: Position
    per_second: float  # over the last seconds, of what is counted in this phase
    entries_total: int | None = None  # up to the high-water mark; None: not known
    contacts_total: int | None = None
    orders_done: int = 0
    orders_total: int | None = None

    @property
    def done(self) -> int:
        """The number that this phase has done: contacts, orders, or entries with their outcome."""
        return {"contacts": self.contacts_done, "orders": self.orders_done}.get(self.phase, self.outcomes)

    @property
    def total(self) -> int | None:
        """The number that this phase has to do; None when it is not known."""
        totals = {"contacts": self.contacts_total, "orders": self.orders_total}
        return totals.get(self.phase, self.entries_total)

    @property
    def left_s(self) -> float | None:
        """The seconds left of this phase at this rate; None when they are not known."""
        if self.total is None or self.per_second <= 0:
            return None
        return max(self.total - self.done, 0) / self.per_second


OnProgress = Callable[[Progress], None]


class ProgressLog:
    """A hook that logs a line at first, then every `every_s` seconds, and whenever the phase changes."""

    def __init__(self, every_s: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._phase: str | None = None
        self._next_at = 0.0

    def __call__(self, progress: Progress) -> None:
        """Log the progress, unless the last line is too recent and of the same phase."""
        now = self._clock()
        if progress.phase == self._phase and now < self._next_at:
            return
        self._phase, self._next_at = progress.phase, now + self._every_s
        log.info("progress", **_fields(progress))


def _fields(progress: Progress) -> dict[str, object]:
    known = msgspec.structs.asdict(progress) | {
        "left_s": progress.left_s,
        "watermark": str(progress.watermark),
    }
    return {name: value for name, value in known.items() if value is not None}
