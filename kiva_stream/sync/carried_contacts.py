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
| with other values otherwise, or if the list cannot be read     | it waits for `LOOKS`; then it is held   |

A contact is unsubscribed without any wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

import anyio

from kiva_stream.errors import DeliveryError, PermissionRefused, TryLater
from kiva_stream.model.ids import ContactId
from kiva_stream.ports.destination import Around, Contacts
from kiva_stream.ports.state import Links
from kiva_stream.primitives.clock import Sleep
from kiva_stream.sync.contact_changes import ContactChange
from kiva_stream.sync.contact_locks import ContactLocks
from kiva_stream.sync.list_places import ListPlaces

Held = dict[ContactId, str]  # contacts that are held, and why

LONGEST_S = 900.0  # an import that is outstanding for longer is not waited for
LOOK_TRIES = 2  # to read it
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
        self._in_flight: Counter[ContactId] = Counter()  # how many attempts carry a contact now

    def around(self, fingerprints: Mapping[ContactId, bytes]) -> Around:
        """Return what each attempt to send an import is made in."""
        return partial(self._recorded, fingerprints)

    @asynccontextmanager
    async def _recorded(self, fingerprints: Mapping[ContactId, bytes]) -> AsyncIterator[None]:
        unanswered = await self._read()
        await self._links.record_carried(fingerprints)
        sent_at = self._clock()
        self._in_flight.update(list(fingerprints))
        try:
            yield
        except DeliveryError as error:
            if isinstance(error, TryLater) and error.is_unanswered:
                carried = {contact: Carried(each, sent_at) for contact, each in fingerprints.items()}
                unanswered.update(carried)
            else:
                await self.answered(fingerprints)
            raise
        finally:
            self._in_flight -= Counter(list(fingerprints))

    async def answered(self, contacts: Collection[ContactId]) -> None:
        """Withdraw contacts, unless an earlier import that carried them got no answer."""
        unanswered = await self._read()
        await self._links.withdraw_carried([each for each in contacts if each not in unanswered])

    async def overtaken(self, changes: Sequence[ContactChange]) -> set[ContactId]:
        """Return the contacts of those changes that an import with other values may overtake."""
        unanswered, long_ago = await self._read(), self._clock() - LONGEST_S
        if not unanswered:
            return set()
        return {
            each.id
            for each in changes
            if (carried := unanswered.get(each.id))
            and carried.fingerprint != each.fingerprint
            and carried.sent_at > long_ago
        }

    async def waiting(self, changes: Sequence[ContactChange]) -> dict[ContactId, str]:
        """Wait for imports that may overtake these changes; return the contacts that still wait, and why.

        Raises AccountRefused, HeldError.
        """
        for _ in range(LOOKS):
            if not await self.overtaken(changes):
                return {}
            await self._look()
        return dict.fromkeys(await self.overtaken(changes), WHY)

    async def _look(self) -> None:
        """Forget the contacts sent some time ago that no import may write any more."""
        unanswered = await self._read()
        sent = dict(unanswered)
        await self._sleep(LISTED_S)
        is_any, long_ago = await self._is_any_outstanding(), self._clock() - LONGEST_S
        # Another look may have forgotten a contact meanwhile, and another import may carry it.
        done = [
            contact
            for contact, carried in sent.items()
            if unanswered.get(contact) is carried
            and not self._in_flight[contact]
            and (not is_any or carried.sent_at <= long_ago)
        ]
        for contact in done:
            del unanswered[contact]
        await self._links.withdraw_carried(done)

    async def _is_any_outstanding(self) -> bool:
        """Return whether an import of the account has not ended; True also if that cannot be read."""
        try:
            return await self._contacts.outstanding_imports(tries=LOOK_TRIES) > 0
        except (PermissionRefused, TryLater):
            return True

    async def _read(self) -> dict[ContactId, Carried]:
        """Return what was carried by imports without an answer, also by those of earlier runs."""
        if self._unanswered is None:
            stored, now = await self._links.carried(), self._clock()
            self._unanswered = {
                contact: Carried(fingerprint, now - age_s) for contact, (fingerprint, age_s) in stored.items()
            }
        return self._unanswered


class OvertakenLast:
    """Sends changes of contacts: those that an import without an answer may overtake come last."""

    def __init__(self, carried: CarriedContacts, places: ListPlaces, locks: ContactLocks) -> None:
        self._carried = carried
        self._places = places
        self._locks = locks

    async def send(
        self, send: Callable[[Sequence[ContactChange]], Awaitable[Held]], changes: Sequence[ContactChange]
    ) -> Held:
        """Send changes by `send`; return the contacts that are held. Raises what that raises."""
        behind = await self._carried.overtaken(changes)
        held = await send([each for each in changes if each.id not in behind])
        if behind:
            late: Sequence[ContactChange] = [each for each in changes if each.id in behind]
            async with self._locks.hold([each.id for each in late]):
                late, without_place = await self._places.opt_out_each(late)
            held |= without_place | await self._carried.waiting(late)
            held |= await send([each for each in late if each.id not in held])
        return held
