"""Isolation: finds the records of a batch that get no answer from ActiveCampaign, so that the others go on.

It begins when a whole batch was sent `BATCH_TRIES` times without an answer:

| what is sent next                            | if it is answered        | otherwise                     |
|----------------------------------------------|--------------------------|-------------------------------|
| each half, once                              | both: it was too large   | one: that half is halved, too |
| both are silent: one record out of each      | both halves are halved   | it is an outage, unless other |
| quarter alone, once                          | further                  | requests were answered        |
| each half of a silent half, once             | its records are done     | it is halved further          |
| both are silent: one record out of each      | both are halved further  | its records are *unproven*    |
| quarter of it alone, once                    |                          |                               |
| a single record, `RECORD_TRIES` times        | it is done               | see below                     |

A record in a batch of its own has no others to witness for it: see `LoneRecords`.

A record that is silent alone is *held* if there is a witness: another record was answered after the part that
it was last in had failed. Otherwise an outage may have begun meanwhile, and it is *unproven*: it is sent
again as part of a whole batch. So an outage that begins meanwhile costs a few requests, at whatever level.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from kiva_stream.errors import Unanswered

R = TypeVar("R")
K = TypeVar("K", bound=Hashable)

BATCH_TRIES = 3  # of a whole batch, before it is halved
RECORD_TRIES = 3  # of a single record
READS = 3  # answered in a row, while a record alone is silent
MOST_BY_READS = 3  # records at a time; more of them are an outage

# Sends records as often as the number says; returns whether they were answered, also by a refusal.
Attempt = Callable[[Sequence[R], int], Awaitable[bool]]


class Isolation(Generic[R]):
    """The search for the silent records of one batch. `answers` counts the answers of all requests so far."""

    def __init__(
        self,
        attempt: Attempt[R],
        answers: Callable[[], int],
        choose: Callable[[Sequence[R]], R] = random.choice,
    ) -> None:
        self._attempt = attempt
        self._answers = answers
        self._choose = choose
        self.held: list[R] = []
        self.unproven: list[R] = []
        self.is_outage = False
        self.is_too_large = False

    async def search(self, batch: Sequence[R]) -> None:
        """Search a silent batch of at least two records. Raises what `attempt` raises."""
        before = self._answers()
        silent = await self._silent(batch)
        if not silent:
            self.is_too_large = True
        elif len(silent) == 1:
            await self._narrow(silent[0], before)
        else:
            answered = await self._answered_alone(silent)
            self.is_outage = self._answers() == before
            for half in silent if not self.is_outage else ():
                await self._narrow([record for record in half if record not in answered], before)

    async def _silent(self, part: Sequence[R]) -> list[Sequence[R]]:
        """Send both halves of a part once; return those that were not answered."""
        return [half for half in halves(part) if not await self._attempt(half, 1)]

    async def _answered_alone(self, silent: Sequence[Sequence[R]]) -> list[R]:
        """Send one record out of each quarter alone, chosen anew each time; return those answered."""
        chosen = [self._choose(quarter) for half in silent for quarter in halves(half)]
        return [record for record in chosen if await self._attempt([record], 1)]

    async def _narrow(self, part: Sequence[R], answers: int) -> None:
        """Search a part that was silent once; `answers` is their number before that."""
        if len(part) == 1:
            if not await self._attempt(part, RECORD_TRIES - 1):
                (self.held if self._answers() > answers else self.unproven).extend(part)
            return
        failed_at = self._answers()
        silent = await self._silent(part)
        has_quarters = len(silent) > 1 and len(part) > len(silent)
        answered = await self._answered_alone(silent) if has_quarters else []
        if silent and self._answers() == failed_at:
            self.unproven.extend(part)
            return
        for half in silent:
            await self._narrow([record for record in half if record not in answered], failed_at)


class Silence(NamedTuple):
    """What is known of records that were sent together and got no answer."""

    records: int
    tries: int  # in a row, of a request with these records
    has_witness: bool = False  # a request of the kind with none of them was answered between the tries
    were_held: bool = False  # before, and not answered since
    reads: int = 0  # at the same service, answered one after another
    read_s: float = 0.0  # from the first of these to the last one
    held_by_reads: int = 0  # other records of the kind, without another witness


def is_held(silence: Silence, over_s: float) -> bool:
    """Decide between bad records, which are held, and an outage, in which none is. `over_s` is for reads.

    | the records                                                            | are held                     |
    |------------------------------------------------------------------------|------------------------------|
    | one that was held before, and not answered since                       | yes                          |
    | were tried fewer than `RECORD_TRIES` times                             | no                           |
    | one that was silent while other requests of its kind were answered     | yes                          |
    | are silent, and so is all else, but reads at the same service were     | yes, at most `MOST_BY_READS` |
    | answered `READS` times in a row, over `over_s` seconds                 | until the next answer        |
    | none of these: it may be an outage                                     | no                           |
    """
    if silence.records == 1 and silence.were_held:
        return True
    if silence.tries < RECORD_TRIES:
        return False
    if silence.records == 1 and silence.has_witness:
        return True
    is_read = silence.reads >= READS and silence.read_s >= over_s
    return is_read and silence.records + silence.held_by_reads <= MOST_BY_READS


class LoneRecords(Generic[K]):
    """Decides about records that get no answer and have no others in their batch to witness, by their keys.

    `is_held` has the rules. `reads_answered` reads at the same service, and returns whether it was answered.
    `on_recovery` is called when the kind is answered after what may have been an outage of it.
    """

    def __init__(
        self,
        reads_answered: Callable[[], Awaitable[bool]],
        over_s: float,
        clock: Callable[[], float],
        *,
        on_recovery: Callable[[], None] = lambda: None,
    ) -> None:
        self._reads_answered = reads_answered
        self._on_recovery = on_recovery
        self._over_s = over_s
        self._clock = clock
        self.held: set[K] = set()  # and not answered since
        self._by_reads: set[K] = set()  # those of the held without another witness
        self._may_be_outage = False
        self._read_at: list[float] = []  # when reads were answered, since the kind was last answered

    def __contains__(self, record: K) -> bool:
        """Return whether a record was held, and not answered since."""
        return record in self.held

    def hold(self, records: Iterable[K]) -> None:
        """Note records that are held."""
        self.held.update(records)

    @property
    def held_without_witness(self) -> int:
        """How many records are held though no other one was answered since."""
        return len(self._by_reads)

    def hold_without_witness(self, record: K) -> bool:
        """Hold a record though no other one was answered; False: so many are that it is an outage."""
        if len(self._by_reads) >= MOST_BY_READS and record not in self._by_reads:
            return False
        self._by_reads.add(record)
        self.hold([record])
        return True

    def resume(self, records: Iterable[K]) -> None:
        """Note records that an earlier process held, perhaps without another witness.

        They count as such until the kind is answered, so that no restart in an outage has more of them held.
        """
        self.hold(records)
        self._by_reads.update(self.held)

    def answered(self, records: Iterable[K]) -> None:
        """Note that records were answered."""
        self.held.difference_update(records)
        self._by_reads.clear()  # the kind is answered: no outage
        self._read_at.clear()
        if self._may_be_outage:
            self._may_be_outage = False
            self._on_recovery()

    async def are_held(self, records: Collection[K], *, has_witness: bool, tries: int = RECORD_TRIES) -> bool:
        """Return whether records that are silent, alone or all of a batch, are held from now on."""
        silence = Silence(len(records), tries, has_witness, were_held=self.held.issuperset(records))
        if not is_held(silence, self._over_s) and tries >= RECORD_TRIES:
            silence = await self._with_reads(silence, records)
            self._may_be_outage = True
            if is_held(silence, self._over_s):
                self._by_reads.update(records)
        if is_held(silence, self._over_s):
            self.hold(records)
        return self.held.issuperset(records)

    async def _with_reads(self, silence: Silence, records: Collection[K]) -> Silence:
        if await self._reads_answered():
            self._read_at.append(self._clock())
        else:
            self._read_at.clear()
        return silence._replace(
            reads=len(self._read_at),
            read_s=self._read_at[-1] - self._read_at[0] if self._read_at else 0.0,
            held_by_reads=len(self._by_reads.difference(records)),
        )


class SendBatch(Protocol[R]):
    """Sends a batch; returns the parts to be sent anew, if it was refused. Raises Unanswered."""

    async def __call__(self, batch: Sequence[R], /, *, tries: int, is_suspect: bool) -> list[Sequence[R]]:
        """Send it so many times; `is_suspect`: what becomes of it says nothing about the account."""


class BatchSender(Generic[R, K]):
    """Sends batches of one kind until each record is answered or held. `key` returns the key of a record."""

    def __init__(self, key: Callable[[R], K], lone: LoneRecords[K]) -> None:
        self._key = key
        self._lone = lone
        self._answers = 0  # of all requests of the kind: those that count are the witnesses

    async def send(
        self,
        batch: Sequence[R],
        parts: list[Sequence[R]],
        *,
        send: SendBatch[R],
        too_large: Callable[[int], Awaitable[None]] | None = None,
    ) -> dict[K, str]:
        """Send a batch; what is to be sent anew is added to `parts`. Return the records held, and why.

        `too_large` is called with the size of a batch whose halves are answered though it was not.
        """
        why: dict[K, str] = {}

        async def is_answered(part: Sequence[R], tries: int, *, is_suspect: bool = True) -> bool:
            keys = list(map(self._key, part))
            try:
                parts[:0] = await send(part, tries=tries, is_suspect=is_suspect)
            except Unanswered as error:
                why.update(dict.fromkeys(keys, str(error)))
                return False
            self._answers += 1
            self._lone.answered(keys)
            return True

        if apart := self._known_apart(batch):
            parts[:0] = apart
            return {}
        is_known = self._key(batch[0]) in self._lone
        while True:
            if await is_answered(batch, 1, is_suspect=is_known):
                return {}
            # A witness is answered after the first attempt without an answer, and before the last one.
            before = self._answers
            if await is_answered(batch, BATCH_TRIES - 1, is_suspect=is_known):
                return {}
            held = await self._search(batch, parts, attempt=is_answered, too_large=too_large)
            if held is None and await self._lone.are_held(list(why), has_witness=self._answers > before):
                held = list(why)
            if held is not None:
                return {key: why[key] for key in held}

    async def _search(
        self,
        batch: Sequence[R],
        parts: list[Sequence[R]],
        *,
        attempt: Attempt[R],
        too_large: Callable[[int], Awaitable[None]] | None,
    ) -> list[K] | None:
        """Search a silent batch, and hold what is found; None: it is one record, or it may be an outage."""
        if len(batch) == 1:
            return None
        isolation = Isolation(attempt, lambda: self._answers)
        await isolation.search(batch)
        if isolation.is_too_large and too_large is not None:
            await too_large(len(batch))
        if isolation.is_outage:
            return None
        parts.append(isolation.unproven)
        held = [self._key(record) for record in isolation.held]
        self._lone.hold(held)
        return held

    def _known_apart(self, batch: Sequence[R]) -> list[Sequence[R]]:
        """Return a batch in parts if some of its records were held: these cost the others no attempt."""
        known = [record for record in batch if self._key(record) in self._lone]
        if not known or len(batch) == 1:
            return []
        return [[record for record in batch if record not in known], *([record] for record in known)]


def halves(records: Sequence[R]) -> list[Sequence[R]]:
    """Return the two halves; one part where there is only one record, none where there is none."""
    middle = (len(records) + 1) // 2
    return [part for part in (records[:middle], records[middle:]) if part]
