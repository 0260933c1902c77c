"""A contact is in one request at a time, whoever sends it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import anyio

from kiva_stream.model.ids import ContactId


class _Turn:
    """One that wants some contacts, and how many of them it has to wait for."""

    def __init__(self, contacts: Collection[ContactId]) -> None:
        self.contacts = frozenset(contacts)
        self.waits_for = 0
        self.has_come = anyio.Event()


class ContactLocks:
    """Hands out contacts: a queue each, joined in one step, so that nobody can wait in a circle."""

    def __init__(self) -> None:
        self._queues: dict[ContactId, deque[_Turn]] = {}  # the first of each has the contact

    @asynccontextmanager
    async def hold(self, contacts: Collection[ContactId]) -> AsyncIterator[None]:
        """Have all of these contacts to oneself while this lasts; who asks first gets them first.

        Who has a contact already must not ask for it again: it would wait for itself.
        """
        turn = _Turn(contacts)
        self._join(turn)
        try:
            if turn.waits_for:
                await turn.has_come.wait()
            yield
        finally:
            self._leave(turn)

    def _join(self, turn: _Turn) -> None:
        for contact in turn.contacts:
            queue = self._queues.setdefault(contact, deque())
            turn.waits_for += bool(queue)
            queue.append(turn)

    def _leave(self, turn: _Turn) -> None:
        """Leave all queues, also from their middle, and call those who are first now."""
        for contact in turn.contacts:
            queue = self._queues[contact]
            was_first = queue[0] is turn
            queue.remove(turn)
            if not queue:
                del self._queues[contact]
            elif was_first:
                self._call(queue[0])

    def _call(self, turn: _Turn) -> None:
        turn.waits_for -= 1
        if not turn.waits_for:
            turn.has_come.set()
