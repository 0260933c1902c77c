"""Contact locks: a contact is in one request at a time, whichever part of the sync sends it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import anyio

from kiva_stream.model.ids import ContactId


class _Request:
    """A request for some contacts; `missing` counts those that an earlier request holds or waits for."""

    def __init__(self, contacts: Collection[ContactId]) -> None:
        self.contacts = frozenset(contacts)
        self.missing = 0
        self.is_granted = anyio.Event()

    def join(self, queue: deque[_Request]) -> None:
        """Queue for one more contact."""
        self.missing += bool(queue)
        queue.append(self)

    def advance(self) -> None:
        """Count that the request is the first for one more contact; grant it when it is for all."""
        self.missing -= 1
        if not self.missing:
            self.is_granted.set()


class ContactLocks:
    """A fair keyed lock, acquired for a set of contacts at once.

    A request joins the queues of all its contacts in one step. So all queues have the same order, and
    requests cannot wait for each other in a circle.
    """

    def __init__(self) -> None:
        self._queues: dict[ContactId, deque[_Request]] = {}  # the first of each holds the contact

    @asynccontextmanager
    async def hold(self, contacts: Collection[ContactId]) -> AsyncIterator[None]:
        """Hold all of these contacts while this lasts; requests are granted in the order they were made.

        The lock is not reentrant: a task that asks for a contact it already holds waits forever.
        """
        request = _Request(contacts)
        for contact in request.contacts:
            request.join(self._queues.setdefault(contact, deque()))
        try:
            if request.missing:
                await request.is_granted.wait()
            yield
        finally:
            self._leave(request)

    def _leave(self, request: _Request) -> None:
        """Leave all queues, also from their middle, and advance the requests that are first now."""
        for contact in request.contacts:
            queue = self._queues[contact]
            was_first = queue[0] is request
            queue.remove(request)
            if not queue:
                del self._queues[contact]
            elif was_first:
                queue[0].advance()
