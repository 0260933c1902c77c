"""Earlier runs: what they left of the entries that this run reads again or looks up."""

from __future__ import annotations

from collections.abc import Callable, Collection

from kiva_stream.model.checkpoint import Leftovers
from kiva_stream.model.outcomes import Outcome
from kiva_stream.model.positions import Position
from kiva_stream.pipeline.watermark import Watermark
from kiva_stream.ports.state import Ledger


class EarlierRuns:
    """What earlier runs committed above the watermark at which this run starts, and events in doubt."""

    def __init__(self, ledger: Ledger, watermark: Watermark, left: Leftovers) -> None:
        self._ledger = ledger
        self._watermark = watermark
        self._start = watermark.position
        self._outcomes_to = left.earlier_outcomes_to
        self._discarded = left.discarded
        self._outcomes: dict[Position, Outcome] = {}  # of entries under way from the producer to the batcher
        self.in_doubt = set(left.in_doubt)

    async def read(self, until: Position) -> None:
        """Read the outcomes of the entries that are read next: above the newest one so far, up to a position.

        Raises CheckpointError.
        """
        newest = self._watermark.newest
        if newest < self._outcomes_to:
            self._outcomes |= await self._ledger.earlier_outcomes(newest, until)

    @property
    def is_reread(self) -> bool:
        """Whether what is read next was read by an earlier run."""
        return self._watermark.newest < self._outcomes_to

    def take_outcome(self, position: Position) -> Outcome | None:
        """Return the outcome that an entry has of an earlier run, and forget it."""
        return self._outcomes.pop(position, None) if self._outcomes else None

    def will_be_reread(self, position: Position) -> bool:
        """Return whether the batcher will yet get an entry that has an outcome of an earlier run.

        Either the producer has read the entry, with its outcome, or it has yet to read it, and the entry lies
        where earlier runs may have kept outcomes.
        """
        return position in self._outcomes or self._watermark.newest < position <= self._outcomes_to

    def may_reopen(self, position: Position) -> bool:
        """Return whether a dead letter that is read again may get another outcome: not a discarded one."""
        return position not in self._discarded

    def forget_in_doubt(
        self, resolved: Collection[Position], will_be_decided: Callable[[Position], bool]
    ) -> None:
        """Forget events in doubt that have their outcome, though this run did not send them.

        `resolved` are the reopened entries that the next commit resolves. `will_be_decided` returns whether
        an entry that left its span has no outcome yet.

        | the entry                                                           | is in doubt |
        |---------------------------------------------------------------------|-------------|
        | is one of `resolved`                                                | no more     |
        | will be decided                                                     | still       |
        | is neither, and lies above the watermark                            | still       |
        | is neither, and was passed by the watermark in this run             | no more     |
        | is neither, and lies at or below the start: it is not reopened yet  | still       |
        """
        if self.in_doubt:
            self.in_doubt.difference_update(resolved)
            passed = {each for each in self.in_doubt if self._start < each <= self._watermark.position}
            self.in_doubt.difference_update(each for each in passed if not will_be_decided(each))
