"""Send intents: a write-ahead log of the events that may be sent, with a bounded number of permits.

ActiveCampaign takes no idempotency key for an event. If a process crashes, an event that it sent may have
arrived though the state does not know it. So a commit records each event, as an intent, before the event is
sent, and a run has at most `permits` events recorded at a time. Only these are in doubt for the next run, and
those that were in doubt for this run and have no outcome yet: they stay recorded, and need no permit for it.

The protocol of one event, in the order of its calls:

1. `claim_prerecorded`: the sender asks whether a commit has recorded the event as lookahead of an earlier
   event of its contact. If so, it goes on with step 4. Without lookahead, each event of a long batch would
   wait for a commit of its own.
2. `wait_recorded`: otherwise the intent is pending. The sender waits for step 3, and passes its lookahead:
   the events that it will send next.
3. `next_commit`: the checkpoint asks what its commit records. Events that have their outcome free their
   permits. Free permits go to the pending intents, in order; what is left goes to their lookahead, in
   equal shares. When the commit is kept, `wake` lets the senders go on.
4. The sender sends the event and waits for the answer.
5. `resolve`, when the checkpoint has the outcome, or `withdraw`, when the event was surely not sent. The
   permit is free with the next commit, which keeps the outcome. `release_lookahead` frees permits not
   claimed yet.

What a crash leaves, and what the next run does about it:

| the crash comes                    | the state has | the next run                                    |
|------------------------------------|---------------|-------------------------------------------------|
| before the commit of 3 is kept     | nothing       | sends the event for the first time              |
| after that, before 4               | an intent     | looks the event up, does not find it, sends it  |
| after 4, before the commit of 5    | an intent     | looks the event up, sends it unless it is found |
| after the commit of 5 is kept      | an outcome    | reads it in the ledger, sends nothing           |

`close` begins a drain: nothing is granted from then on. Pending intents are refused; if a commit was
recording one at that moment, the following commit takes it back.

Step 3 marks lookahead as recorded before its commit is kept. Lookahead is not claimed in between: one sender
has all events of the contact, and this sender waits in step 2 until that commit is kept.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable
from typing import NamedTuple

from kiva_stream.model.positions import Position
from kiva_stream.pipeline.group_commit import GroupCommit
from kiva_stream.ports.stages import Lookahead

LOOKAHEAD_MAX = 16  # events of one pending intent that are recorded with it: permits are for many contacts


class PendingIntent(NamedTuple):
    """A sender that waits until a commit has recorded its event."""

    position: Position
    lookahead: Lookahead
    recorded: asyncio.Future[None]  # a run makes many: an anyio.Event would take ten times as long to make


class SendIntents:
    """Implements the port SendPermits for at most `permits` events at a time. The module has the protocol."""

    def __init__(self, permits: int, commits: GroupCommit) -> None:
        self._permits = permits
        self._commits = commits
        self._holders: set[Position] = set()  # the events that hold a permit
        self._lookahead: set[Position] = set()  # the holders that no sender has claimed yet
        self._leaving: list[Position] = []  # events whose permits, if they hold one, the next commit frees
        self._pending: deque[PendingIntent] = deque()
        self._is_open = True

    @property
    def has_changes(self) -> bool:
        """Whether a commit would record other events than the last one did."""
        return bool(self._leaving) or bool(self._pending and len(self._holders) < self._permits)

    def claim_prerecorded(self, position: Position) -> bool:
        """Return whether a commit has recorded the event as lookahead; it is claimed once."""
        is_recorded = position in self._lookahead
        self._lookahead.discard(position)
        return is_recorded

    async def wait_recorded(self, position: Position, lookahead: Lookahead = lambda _count: ()) -> bool:
        """Wait until a commit has recorded the event; withdraw an intent that is refused or cancelled."""
        if not self._is_open:
            return False
        intent = PendingIntent(position, lookahead, asyncio.get_running_loop().create_future())
        self._pending.append(intent)
        self._commits.request()
        is_granted = False
        try:
            await intent.recorded
            is_granted = self._is_open  # `close` wakes the sender too, to refuse it
        finally:
            if not is_granted:
                self._withdraw(intent)
        return is_granted

    def resolve(self, position: Position) -> None:
        """Free the permit of an event that has its outcome, with the commit that keeps this outcome."""
        self._free((position,))

    def withdraw(self, position: Position) -> None:
        """Free the permit of an event that was surely not sent."""
        self._free((position,))

    def release_lookahead(self, positions: Iterable[Position]) -> None:
        """Free the permits of those of these events that no sender has claimed."""
        released = self._lookahead.intersection(positions)
        self._lookahead -= released
        self._free(released)

    def next_commit(self) -> tuple[frozenset[Position], list[PendingIntent]]:
        """Return the events that the next commit records, and the intents to grant when it is kept."""
        # Permits that were freed since the last commit can be granted: this commit records their events no
        # more. If an event has its outcome, this commit keeps that.
        self._holders.difference_update(self._leaving)
        self._leaving.clear()
        # After `close` no permit is granted: no sender would claim what is recorded from then on.
        free = self._permits - len(self._holders) if self._is_open else 0
        # Pending intents come first, in order: each is a sender that waits.
        granted = [self._pending.popleft() for _ in range(min(free, len(self._pending)))]
        self._holders.update(intent.position for intent in granted)
        # What is left goes to their lookahead, in equal shares.
        if free > len(granted):
            for intent in granted:
                self._record_lookahead(intent, (free - len(granted)) // len(granted))
        return frozenset(self._holders), granted

    def _record_lookahead(self, intent: PendingIntent, share: int) -> None:
        events = set(intent.lookahead(min(share, LOOKAHEAD_MAX))).difference(self._holders)
        self._lookahead.update(events)
        self._holders.update(events)

    @staticmethod
    def wake(intents: Iterable[PendingIntent]) -> None:
        """Let the senders of these intents go on: a commit has recorded them, or `close` refuses them."""
        for intent in intents:
            if not intent.recorded.done():  # else its sender was cancelled
                intent.recorded.set_result(None)

    def close(self) -> None:
        """Grant nothing from now on, refuse what is pending, release the lookahead."""
        self._is_open = False
        self.release_lookahead(set(self._lookahead))
        self.wake(self._pending)

    def _withdraw(self, intent: PendingIntent) -> None:
        if intent in self._pending:
            self._pending.remove(intent)
        else:  # a commit has recorded it, and another one has to take that back
            self._free((intent.position,))

    def _free(self, positions: Collection[Position]) -> None:
        """Free permits with the next commit."""
        if positions:
            self._leaving.extend(positions)
            self._commits.request(waiting_share=len(self._leaving) / self._permits)
