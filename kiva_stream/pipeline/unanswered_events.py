"""Unanswered events: when an event that gets no answer again and again is held with its contact.

The witness is an event of another contact that was answered between the first attempt and the last one. None
is sent out of its turn for that.

| the event was sent, and each time                  | then                                               |
|----------------------------------------------------|----------------------------------------------------|
| looked up and not found, fewer than `RECORD_TRIES` | it is sent again                                   |
| looked up and not found, so often or more often    | it is held if there is a witness; without one, if  |
|                                                    | look-ups were answered for long: see `LoneRecords` |
| looked up and not found, and was held before       | it is held                                         |
| not to be looked up, more often than once          | it is held until a replay if there is a witness;   |
|                                                    | without one, if fewer than `MOST_BY_READS` are     |
| not to be looked up otherwise                      | it is sent again when another contact's event was  |
|                                                    | answered; without one, see below                   |

Without an answer to any event, of those that wait so only one at a time is sent again, as the probe: the one
that was sent least often, and of these the first. When:

| so many are held without a witness | the probe is sent                                                    |
|------------------------------------|----------------------------------------------------------------------|
| `MOST_BY_READS`: it is an outage   | `over_s` seconds after the last one                                  |
| fewer                              | `over_s` seconds after its last attempt                              |
| none, and several wait             | `PROBE_S` after its last attempt, since they may occupy all senders  |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import NamedTuple

import anyio.lowlevel

from kiva_stream.model.ids import ContactId
from kiva_stream.primitives.clock import Sleep
from kiva_stream.sync.isolation import MOST_BY_READS, LoneRecords

PROBE_S = 30.0  # until one of several events that wait for a witness is sent again, and from one to the next
POLL_S = 1.0  # how often the wait for a witness looks for one


class Attempt(NamedTuple):
    """An attempt to send an event that got no answer."""

    number: int  # 1 is the first
    why: str
    answers: int  # of events of other contacts until then
    is_looked_up: bool  # and was not found; False: that cannot be known
    is_again: bool  # the event was sent before, or may have been


class UnansweredEvents:
    """The events of one run that get no answer, by their contacts: each has one at a time.

    `suspects` are the contacts of events that an earlier run held: these have one more try. `on_recovery` is
    called when events are answered after what may have been an outage of them.
    """

    def __init__(
        self,
        over_s: float,
        suspects: Collection[ContactId] = (),
        *,
        answers: Callable[[], int],
        on_recovery: Callable[[], None],
        clock: Callable[[], float],
        sleep: Sleep,
    ) -> None:
        self._over_s = over_s
        self._answers = answers  # how many events were answered so far
        self._clock = clock
        self._sleep = sleep
        self._lone: LoneRecords[ContactId] = LoneRecords(
            _look_up_was_answered, over_s, clock, on_recovery=on_recovery
        )
        self._lone.resume(suspects)
        self.suspects = self._lone.held  # the contacts whose event was held, and not answered since
        self.contacts: set[ContactId] = set(suspects)  # whose event got no answer
        self._waiting: dict[ContactId, Attempt] = {}  # for a witness, in order
        self._probed_at = -math.inf  # when one of them was last sent again without a witness

    def answered(self, contact: ContactId) -> None:
        """Note that an event of a contact was answered."""
        if self.contacts:
            self.contacts.discard(contact)
            self._lone.answered([contact])

    async def is_held(self, contact: ContactId, first: Attempt, last: Attempt) -> bool:
        """Return whether a contact's event is held now; otherwise it is sent again.

        If it cannot be looked up, wait until it may be, as the table says.
        """
        self.contacts.add(contact)
        has_witness = last.answers > first.answers
        if not last.is_looked_up:
            return await self._is_held_in_doubt(contact, first, last)
        return await self._lone.are_held([contact], has_witness=has_witness, tries=last.number)

    async def _is_held_in_doubt(self, contact: ContactId, first: Attempt, last: Attempt) -> bool:
        """Return whether the event is held; if it is not, wait first until it may be sent again."""
        if contact in self._lone or (last.is_again and last.answers > first.answers):
            self._lone.hold([contact])
            return True
        if last.is_again and self._lone.hold_without_witness(contact):
            return True
        began_at = self._clock()
        self._waiting[contact] = last
        try:
            while self._answers() == last.answers and not self._is_probe(contact, began_at):
                await self._sleep(min(POLL_S, self._over_s))
        finally:
            del self._waiting[contact]
        return False

    def _is_probe(self, contact: ContactId, began_at: float) -> bool:
        """Return whether a contact that waits is the probe now; then note when it was."""
        if contact != min(self._waiting, key=lambda each: self._waiting[each].number):
            return False
        now = self._clock()
        waited_s, since_last_s = now - began_at, now - self._probed_at
        probe_s = min(PROBE_S, self._over_s)
        count = self._lone.held_without_witness
        if count >= MOST_BY_READS:
            is_probe = min(waited_s, since_last_s) >= self._over_s
        else:
            is_soon = count == 0 and len(self._waiting) > 1
            is_probe = waited_s >= (probe_s if is_soon else self._over_s) and since_last_s >= probe_s
        if is_probe:
            self._probed_at = now
        return is_probe


async def _look_up_was_answered() -> bool:
    """Return that the read at the same service was answered: the look-up that did not find the event."""
    await anyio.lowlevel.checkpoint()
    return True
