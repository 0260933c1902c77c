"""Carried contacts: those of imports whose answer was lost, so that ActiveCampaign may still write them.

What such an import carries is recorded before it is sent, and withdrawn when its answer is known. An import
that ActiveCampaign writes later must not overtake newer values of its contacts:

| a contact is to be sent                                        | then                                    |
|----------------------------------------------------------------|-----------------------------------------|
| that no import without an answer carried                       | it is sent                              |
| with the values that such an import carried                    | it is sent: both leave the same         |
| with other values, and the account's list of imports has none  | it is sent                              |
| that is outstanding                                            |                                         |
| with other values, `LONGEST_S` after that import               | it is sent                              |
| with other values otherwise                                    | it waits for `LOOKS`; then it is held   |
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

import anyio

from kiva_stream.errors import DeliveryError, TryLater
from kiva_stream.model.ids import ContactId
from kiva_stream.ports.destination import Around, Contacts
from kiva_stream.ports.state import Links
from kiva_stream.primitives.clock import Sleep
from kiva_stream.sync.contact_changes import ContactChange

LONGEST_S = 900.0  # an import that is outstanding for longer is not waited for
LOOKS = 5  # at the account's list of imports, before a contact is held
LISTED_S = 2.0  # between them, and how soon an import is on that list (which is not documented: a guess)
WHY = "an import with earlier values of the contact got no answer, and imports of the account are outstanding"


class Carried(NamedTuple):
    """What an import without an answer carried of a contact."""

    fingerprint: bytes
    sent_at: float  # by the clock of the process


class CarriedContacts:
    """The carried contacts of one account. Every call raises CheckpointError."""

    def __init__(
        self,
        links: Links,
        contacts: Contacts,
        *,
        sleep: Sleep,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._links = links
        self._contacts = contacts
        self._sleep = sleep
        self._clock = clock
        self._unanswered: dict[ContactId, Carried] | None = None  # None: the state was not read yet

    def around(self, fingerprints: Mapping[ContactId, bytes]) -> Around:
        """Return what each attempt to send an import is made in."""
        return partial(self._recorded, fingerprints)

    @asynccontextmanager
    async def _recorded(self, fingerprints: Mapping[ContactId, bytes]) -> AsyncIterator[None]:
        unanswered = await self._read()
        await self._links.record_carried(fingerprints)
        sent_at = self._clock()
        try:
            yield
        except DeliveryError as error:
            if isinstance(error, TryLater) and error.is_unanswered:
                carried = {contact: Carried(each, sent_at) for contact, each in fingerprints.items()}
                unanswered.update(carried)
            else:
                await self.answered(fingerprints)
            raise

    async def answered(self, contacts: Collection[ContactId]) -> None:
        """Withdraw contacts, unless an earlier import that carried them got no answer."""
        unanswered = await self._read()
        await self._links.withdraw_carried([each for each in contacts if each not in unanswered])

    async def waiting(self, changes: Sequence[ContactChange]) -> dict[ContactId, str]:
        """Wait for imports that may overtake these changes; return the contacts that still wait, and why.

        Raises AccountRefused, HeldError.
        """
        unanswered = await self._read()
        if not unanswered:
            return {}
        for _ in range(LOOKS):
            if not self._overtaken(changes, unanswered):
                return {}
            sent = list(unanswered)
            await self._sleep(LISTED_S)
            await self._look(unanswered, sent)
        return dict.fromkeys(self._overtaken(changes, unanswered), WHY)

    async def _look(self, unanswered: dict[ContactId, Carried], sent: Collection[ContactId]) -> None:
        """Forget those of the contacts sent some time ago that no import may write any more."""
        is_any = await self._contacts.outstanding_imports() > 0
        long_ago = self._clock() - LONGEST_S
        done = [each for each in sent if not is_any or unanswered[each].sent_at <= long_ago]
        if done:
            await self._links.withdraw_carried(done)
            for contact in done:
                unanswered.pop(contact, None)

    async def _read(self) -> dict[ContactId, Carried]:
        """Return what was carried by imports without an answer, also by those of earlier runs."""
        if self._unanswered is None:
            stored, now = await self._links.carried(), self._clock()
            self._unanswered = {
                contact: Carried(fingerprint, now - age_s) for contact, (fingerprint, age_s) in stored.items()
            }
        return self._unanswered

    def _overtaken(
        self, changes: Sequence[ContactChange], unanswered: Mapping[ContactId, Carried]
    ) -> list[ContactId]:
        return [
            each.id
            for each in changes
            if (carried := unanswered.get(each.id)) and carried.fingerprint != each.fingerprint
        ]
