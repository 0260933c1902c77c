"""Held tags: contacts whose week tag gets no answer, though other requests do, stay due and stop no others.

| the contact                                          | is tried again                                  |
|------------------------------------------------------|-------------------------------------------------|
| gets no answer for the first time                    | after `retry_s` seconds, and up to a tenth more |
| gets none again                                      | after twice the time, at most a day             |
| was marked due again, since its data changed         | at once                                         |

Which contacts these are is known to one process. The next one tries them first.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

import anyio

from kiva_stream.errors import RecordsHeld
from kiva_stream.model.contacts import DueContact
from kiva_stream.model.ids import ContactId
from kiva_stream.observability.logs import log

MOST_S = 86_400.0
DOUBLINGS = 20  # more of them exceed MOST_S with any useful setting


class _HeldTag(NamedTuple):
    mark: int  # of the due contact when it was last tried
    tries: int  # in a row
    due_at: float


class HeldTags:
    """The held tags of one process."""

    def __init__(
        self,
        retry_s: float,
        clock: Callable[[], float] = anyio.current_time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._retry_s = retry_s
        self._clock = clock
        self._chance = chance
        self._held: dict[ContactId, _HeldTag] = {}

    def hold(self, due: DueContact, error: RecordsHeld) -> None:
        """Hold a contact that got no answer."""
        contact = due.record.contact.id
        tries = self._held[contact].tries if contact in self._held else 0
        wait_s = min(MOST_S, self._retry_s * 2 ** min(tries, DOUBLINGS)) * (1 + self._chance() / 10)
        self._held[contact] = _HeldTag(due.mark, tries + 1, self._clock() + wait_s)
        why = "; ".join(error.why.values())
        log.warning("a week tag is held", contact=contact, why=why, next_try_in_s=round(wait_s))

    def answered(self, contact: ContactId) -> None:
        """Note that a contact got an answer."""
        self._held.pop(contact, None)

    def has_to_wait(self, due: DueContact) -> bool:
        """Return whether a due contact is held, and its next try has not come."""
        held = self._held.get(due.record.contact.id)
        return held is not None and held.mark == due.mark and self._clock() < held.due_at
