"""Checkpoint and dead letters in memory: see Ledger and ContactDeadLetters of `ports/state.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import anyio
import anyio.lowlevel

from kiva_stream.errors import CheckpointError
from kiva_stream.model.checkpoint import Commit, Leftovers, ParkedBehind
from kiva_stream.model.dead_letters import DeadLetter
from kiva_stream.model.ids import ContactId, CustomerId
from kiva_stream.model.outcomes import CONTACT_REASONS, DELIVERED, PARKED, Outcome, Reason
from kiva_stream.model.positions import DAY1, Position


class FakeLedger:
    """Implements Ledger; is kept from run to run. Commits from number `fails_at` on (the first is 1) fail.

    With `keeps_failed` the first that fails is kept all the same, as when only its answer was lost.
    Commits with outcomes of events wait for `gate`, if it is set; with `gates_all` all commits do.
    """

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self.dead_letters: dict[Position, DeadLetter] = {}  # without those reopened
        self.parked: dict[Position, ContactId] = {}
        self.earlier: dict[Position, Outcome] = {}  # kept before the first commit
        self.fails_at: int | None = None
        self.keeps_failed = False
        self.gate: anyio.Event | None = None
        self.gates_all = False
        self.asked = 0  # calls of `commit`

    async def commit(self, commit: Commit) -> None:
        await anyio.lowlevel.checkpoint()
        self.asked += 1
        if self.gate is not None and (self.gates_all or commit.delivered):
            await self.gate.wait()
        is_failing = self.fails_at is not None and self.asked >= self.fails_at
        if not is_failing or (self.keeps_failed and self.asked == self.fails_at):
            self._keep(commit)
        if is_failing:
            raise CheckpointError("the state is gone")
        await anyio.lowlevel.checkpoint()

    async def parked_of(self, contacts: Collection[ContactId]) -> list[Position]:
        await anyio.lowlevel.checkpoint()
        return sorted(position for position, contact in self.parked.items() if contact in {0, *contacts})

    async def parked_page(self, after: Position, until: Position, count: int) -> list[Position]:
        await anyio.lowlevel.checkpoint()
        return sorted(position for position in self.parked if after < position <= until)[:count]

    async def largest_parked(self, count: int) -> list[ParkedBehind]:
        await anyio.lowlevel.checkpoint()
        largest = Counter(self.parked.values()).most_common(count)
        return [ParkedBehind(entries, [CustomerId(contact)], None) for contact, entries in largest]

    def works_again(self) -> None:
        """Fail no more."""
        self.fails_at = None

    @property
    def watermark(self) -> Position:
        return self.commits[-1].watermark if self.commits else DAY1

    @property
    def delivered(self) -> list[Position]:
        """The positions of all delivered events, as they were committed."""
        return [row.position for commit in self.commits for row in commit.delivered]

    @property
    def dead(self) -> dict[Position, Reason]:
        return {where: letter.why for where, letter in self.dead_letters.items()}

    @property
    def tags_due(self) -> set[ContactId]:
        return {contact for commit in self.commits for contact in commit.tags_due}

    @property
    def superseded(self) -> list[Position]:
        return [where for commit in self.commits for where, _ in commit.superseded]

    def kept_above(self) -> dict[Position, Outcome]:
        """Return what is kept of entries above the watermark."""
        kept = self.earlier | dict.fromkeys(self.delivered, DELIVERED) | dict.fromkeys(self.parked, PARKED)
        kept |= {where: Outcome("dead", why) for where, why in self.dead.items()}
        return {where: outcome for where, outcome in kept.items() if where > self.watermark}

    def left(self) -> Leftovers:
        """Return what earlier runs left, as a start reads it."""
        letters = {
            letter.customer
            for letter in self.dead_letters.values()
            if letter.customer is not None and letter.why in CONTACT_REASONS
        }
        doubts = {
            where
            for where in (self.commits[-1].intents if self.commits else ())
            if where not in self.delivered
            and (where > self.watermark or where in self.parked or where in self.dead_letters)
        }
        settled_to = max([*self.earlier, *self.delivered, *self.dead_letters, *self.parked], default=DAY1)
        return Leftovers(settled_to, frozenset(letters), len(self.parked), frozenset(doubts))

    async def earlier_outcomes(self, after: Position, until: Position) -> dict[Position, Outcome]:
        await anyio.lowlevel.checkpoint()
        return {where: what for where, what in self.kept_above().items() if after < where <= until}

    async def reopenable(
        self, positions: Collection[Position], letters: Collection[Position]
    ) -> set[Position]:
        await anyio.lowlevel.checkpoint()
        return {
            where for where in positions if where in (self.dead_letters if where in letters else self.parked)
        }

    def tally(self, kind: str = "outcome") -> dict[str, int]:
        """Return the counts of a kind: of entries that the watermark passed, and of those above it."""
        total: Counter[tuple[str, str]] = Counter()
        for commit in self.commits:
            total.update(commit.passed)
            total.subtract(("outcome", f"dead {why}") for _, why in commit.superseded)
        if self.commits:
            total.update(self.commits[-1].ahead)
        assert not [count for count in total.values() if count < 0]
        return {name: count for (each, name), count in total.items() if each == kind and count}

    def _keep(self, commit: Commit) -> None:
        assert commit.watermark >= self.watermark, "the watermark went back"
        for where, why in commit.superseded:
            assert self.dead_letters.pop(where).why is why, "another dead letter than the one reopened"
        new = [row.position for row in commit.delivered] + [letter.position for letter in commit.dead]
        twice = [where for where, count in Counter([*self.delivered, *self.dead, *new]).items() if count > 1]
        assert not twice, f"two outcomes: {twice}"
        self.dead_letters |= {letter.position: letter for letter in commit.dead}
        for where in commit.unparked:
            del self.parked[where]
        self.parked |= dict(commit.parked)
        self.commits.append(commit)


class FakeDeadLetters:
    """Implements ContactDeadLetters on a ledger."""

    def __init__(self, ledger: FakeLedger) -> None:
        self._ledger = ledger
        self.asked: list[list[CustomerId]] = []

    async def without_contact(self, customers: Collection[CustomerId]) -> dict[Position, Reason]:
        await anyio.lowlevel.checkpoint()
        self.asked.append(sorted(customers))
        return {
            where: letter.why
            for where, letter in sorted(self._ledger.dead_letters.items())
            if letter.customer in customers and letter.why in CONTACT_REASONS
        }
