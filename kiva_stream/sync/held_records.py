"""Held records: what ActiveCampaign did not take, though it takes others, and what is to be tried again.

Each is a row of the state, so that every run knows it, with its attempts and its next try.

| what happens                                   | then                                                    |
|------------------------------------------------|---------------------------------------------------------|
| a record is not taken, and is set aside        | it is held, until a next try                            |
| a try fails                                    | the next one comes after twice the time, at most a day  |
| many got no answer                             | each waits longer: they all have `SHARE` of the budget  |
| it is to be sent before its next try           | nothing is sent, if it got no answer                    |
| it is to be sent, and its data have changed    | that is a try                                           |
| it is accepted or refused, or needs no sending | it is held no more                                      |
| it was discarded, and has not changed          | it counts as refused, without a request                 |
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import anyio
from msgspec.structs import replace

from kiva_stream.model.held_records import HeldKey, HeldKind, HeldRecord, Silent
from kiva_stream.model.ids import ContactId, OrderId
from kiva_stream.observability.logs import log
from kiva_stream.ports.state import HeldRows

K = TypeVar("K", bound=int)
C = TypeVar("C", bound="Change")

MOST_S = 86_400.0
SHARE = 0.01  # of the request budget, for the tries of records that got no answer
DOUBLINGS = 20  # more of them exceed MOST_S with any useful setting


class Change(Protocol):
    """A record that is to be sent."""

    @property
    def id(self) -> int:
        """Its id."""

    @property
    def contact_id(self) -> ContactId:
        """Whose entries wait for it."""

    @property
    def fingerprint(self) -> bytes:
        """The fingerprint of what is to be sent."""


class HeldRecords:
    """The held records of a site; `known` are those that its state has when the process starts.

    The first next try comes after `retry_s` seconds, or a little sooner. The request budget is
    `requests_per_s`. Every coroutine raises CheckpointError.
    """

    def __init__(
        self,
        rows: HeldRows,
        known: Iterable[HeldRecord],
        retry_s: float,
        *,
        requests_per_s: float = math.inf,
        clock: Callable[[], float] = anyio.current_time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._rows = rows
        self._retry_s = retry_s
        self._spacing_s = 1 / (SHARE * requests_per_s)  # between tries of records that got no answer
        self._suspects = 0  # how many got none
        self._clock = clock
        self._chance = chance
        self._held: dict[HeldKey, HeldRecord] = {}
        self._due_at: dict[HeldKey, float] = {}
        self._by_contact: defaultdict[ContactId, set[HeldKey]] = defaultdict(set)
        for each in known:
            self._keep(each)

    # --- what is held ---

    def __len__(self) -> int:
        return len(self._held)

    def suspects(self, kind: HeldKind) -> list[int]:
        """Return the ids of the held records of a kind that got no answer."""
        return [key.id for key, held in self._held.items() if key.kind is kind and held.is_suspect]

    def has(self, kind: HeldKind, record: int) -> bool:
        """Return whether a record is held."""
        return HeldKey(kind, record) in self._held

    def holds(self, contact: ContactId) -> bool:
        """Return whether the entries of a contact wait for a held record."""
        return contact in self._by_contact

    def contacts_of(self, kind: HeldKind, records: Iterable[int]) -> set[ContactId]:
        """Return the contacts of these records, as far as they are held."""
        held = (self._held.get(HeldKey(kind, record)) for record in records)
        return {each.contact for each in held if each}

    def orders_of(self, contact: ContactId) -> set[OrderId]:
        """Return the held orders of a contact."""
        return {OrderId(key.id) for key in self._by_contact.get(contact, ()) if key.kind is HeldKind.ORDER}

    def unchanged(self, kind: HeldKind, change: Change) -> HeldRecord | None:
        """Return a held record, None if it is not held, or is not as it was when it was sent last."""
        known = self._held.get(HeldKey(kind, change.id))
        return known if known and known.fingerprint == change.fingerprint else None

    def of_kind(self, kind: HeldKind) -> list[HeldRecord]:
        """Return the held records of a kind."""
        return [held for key, held in self._held.items() if key.kind is kind]

    def of_contact(self, kind: HeldKind, contact: ContactId) -> list[HeldRecord]:
        """Return the held records of a kind for which a contact's entries wait."""
        return [self._held[key] for key in self._by_contact.get(contact, ()) if key.kind is kind]

    # --- when they are tried ---

    def is_due(self, key: HeldKey) -> bool:
        """Return whether the next try of a held record is due."""
        return self._due_at[key] <= self._clock()

    def waits_until_asked(self, key: HeldKey) -> bool:
        """Return whether only a replay tries a held record."""
        return self._due_at[key] == math.inf

    def due(self) -> set[ContactId]:
        """Return the contacts with a record that entries wait for, and whose next try is due."""
        now = self._clock()
        return {
            self._held[key].contact
            for key, due_at in self._due_at.items()
            if due_at <= now and key.kind is not HeldKind.TAG
        }

    def tags_due(self) -> list[ContactId]:
        """Return the contacts with a held tag whose next try is due."""
        return [ContactId(key.id) for key in self._due_at if key.kind is HeldKind.TAG and self.is_due(key)]

    def make_due(self, *kinds: HeldKind) -> None:
        """Make the next try of all of these kinds due now, but for records that only a replay tries.

        Without a kind, all kinds are meant.
        """
        self._hasten([key for key in self._due_at if not kinds or key.kind in kinds])

    def try_now(self, contacts: Iterable[ContactId]) -> None:
        """Make the next try of what is held of these contacts due now, as `make_due` does."""
        for contact in contacts:
            self._hasten((*self._by_contact.get(contact, ()), HeldKey(HeldKind.TAG, contact)))

    def try_tags_now(self, contacts: Iterable[ContactId]) -> None:
        """Make the next try of the held tags of these contacts due now."""
        self._hasten([HeldKey(HeldKind.TAG, contact) for contact in contacts])

    def _hasten(self, keys: Iterable[HeldKey]) -> None:
        now = self._clock()
        for key in keys:
            if self._due_at.get(key, math.inf) < math.inf:
                self._due_at[key] = min(self._due_at[key], now)

    async def postpone(self, contact: ContactId) -> None:
        """Make nothing of a contact due before the next try of what has just failed of it."""
        now = self._clock()
        due_at = {key: self._due_at[key] for key in self._by_contact.get(contact, ())}
        next_at = min(
            (each for each in due_at.values() if now < each < math.inf), default=now + self._retry_s
        )
        overdue = [self._held[key] for key, each in due_at.items() if each <= now]
        postponed = [replace(each, due_in_s=next_at - now) for each in overdue if not each.is_discarded]
        if postponed:
            await self._rows.record(postponed)
        for each in postponed:
            self._keep(each)

    async def refresh(self) -> None:
        """Read which records another process has made due or discarded meanwhile."""
        for stored in await self._rows.read(is_due=True):
            known = self._held.get(stored.key)
            if known and known.attempts == stored.attempts:
                self._keep(stored)

    # --- what becomes of them ---

    async def hold(self, kind: HeldKind, silent: Mapping[int, Silent], *, until_asked: bool = False) -> None:
        """Hold records that were not taken; with `until_asked` only a replay tries them again."""
        held = [self._next(HeldKey(kind, record), each) for record, each in silent.items()]
        if until_asked:
            held = [replace(each, due_in_s=math.inf) for each in held]
        await self._rows.record(held)
        for each in held:
            self._keep(each)
            log.warning(
                "a record is held",
                kind=kind,
                id=each.key.id,
                contact=each.contact,
                why=each.reply,
                attempts=each.attempts,
                next_try_in_s=None if until_asked else round(each.due_in_s),
            )

    async def move(self, key: HeldKey, contact: ContactId) -> None:
        """Have the entries of another contact wait for a held record."""
        await self._rows.move(key, contact)
        self._keep(replace(self._held[key], contact=contact, due_in_s=self._due_at[key] - self._clock()))

    async def end(self, kind: HeldKind, records: Iterable[int]) -> None:
        """Hold these records no more; no-op for those that are not held."""
        if not self._held:
            return
        ended = [key for record in records if (key := HeldKey(kind, record)) in self._held]
        if ended:
            await self._rows.end(ended)
            for key in ended:
                self._forget(key)

    async def end_due(self, contact: ContactId) -> None:
        """End the hold of those records of a contact that are due; its batch was delivered without them."""
        for key in [*self._by_contact.get(contact, ())]:
            if self.is_due(key):
                await self.end(key.kind, [key.id])

    def _next(self, key: HeldKey, silent: Silent) -> HeldRecord:
        known = self._held.get(key)
        attempts = known.attempts + 1 if known else 1
        wait_s = min(MOST_S, self._retry_s * 2 ** min(attempts - 1, DOUBLINGS)) * (1 - self._chance() / 10)
        if silent.is_suspect:
            wait_s = max(wait_s, self._spacing_s * (self._suspects + 1))
        return HeldRecord(
            key,
            contact=silent.contact,
            fingerprint=silent.fingerprint,
            reply=silent.reply,
            attempts=attempts,
            due_in_s=wait_s,
            is_suspect=silent.is_suspect,
            sent=silent.sent,
        )

    def _keep(self, held: HeldRecord) -> None:
        self._forget(held.key)
        self._held[held.key] = held
        self._suspects += held.is_suspect
        self._due_at[held.key] = self._clock() + held.due_in_s
        if held.key.kind is not HeldKind.TAG:
            self._by_contact[held.contact].add(held.key)

    def _forget(self, key: HeldKey) -> None:
        if known := self._held.pop(key, None):
            del self._due_at[key]
            self._suspects -= known.is_suspect
            if (others := self._by_contact.get(known.contact)) is not None:
                others.discard(key)
                if not others:
                    del self._by_contact[known.contact]


class DueWrites(Generic[C, K]):
    """Writes records of one kind. Those whose next try is not due are left out; those not taken are held.

    `refuse` records changes as refused, with their replies. `is_suspect` returns whether a record that was
    not taken got no answer. If a record of the kind `is_held_as` is held under the same id, the record was
    not sent because of that one, and is not held besides.
    """

    def __init__(
        self,
        held: HeldRecords,
        kind: HeldKind,
        *,
        key: Callable[[C], K],
        refuse: Callable[[Sequence[tuple[C, str]]], Awaitable[None]],
        is_suspect: Callable[[K], bool],
        is_held_as: HeldKind | None = None,
    ) -> None:
        self._held = held
        self._is_suspect = is_suspect
        self._is_held_as = is_held_as
        self._kind = kind
        self._key = key
        self._refuse = refuse

    async def write(
        self, changes: Sequence[C], write: Callable[[Sequence[C]], Awaitable[Mapping[K, str]]]
    ) -> dict[K, str]:
        """Have those changes written that may be sent; return the records that are held, and why.

        `write` returns those that were not taken, with the last replies.
        """
        due, waiting = (await self._due(changes)) if self._held else (changes, {})
        silent = await write(due)
        await self._held.end(self._kind, (each.id for each in due if self._key(each) not in silent))
        found = {self._key(each): each for each in due} if silent else {}
        to_hold = {
            found[key].id: Silent(
                found[key].contact_id, found[key].fingerprint, reply, is_suspect=self._is_suspect(key)
            )
            for key, reply in silent.items()
            if self._is_held_as is None or not self._held.has(self._is_held_as, key)
        }
        if to_hold:
            await self._held.hold(self._kind, to_hold)
        return {**waiting, **silent}

    async def _due(self, changes: Sequence[C]) -> tuple[Sequence[C], dict[K, str]]:
        """Refuse what was discarded; return the changes that may be sent, then what waits, and why."""
        due: list[C] = []
        waiting: dict[K, str] = {}
        discarded: list[tuple[C, str]] = []
        for each in changes:
            known = self._held.unchanged(self._kind, each)
            if known is None:
                due.append(each)
            elif known.is_discarded:
                discarded.append((each, known.reply))
            elif self._held.is_due(known.key) or not known.is_suspect:
                due.append(each)
            else:
                waiting[self._key(each)] = known.reply
        if discarded:
            await self._refuse(discarded)
            await self._held.end(self._kind, (each.id for each, _ in discarded))
        return due, waiting
