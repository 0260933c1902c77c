"""Contact locks: one write at a time sends a contact to ActiveCampaign, whichever part of the sync it is."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial

import anyio
import msgspec

from kiva_stream.model.ids import ContactId

Release = Callable[[Collection[ContactId]], None]


class _Request(msgspec.Struct, eq=False):
    """A request for the locks of some contacts, granted when it is the first in the queues of all of them."""

    contacts: set[ContactId]
    granted: anyio.Event


class ContactLocks:
    """A fair keyed lock, acquired for a set of contacts at once.

    A request joins the queues of all its contacts in one step. So all queues have the same order, and
    requests cannot wait for each other in a circle.
    """

    def __init__(self) -> None:
        self._queues: dict[ContactId, deque[_Request]] = {}  # in the order of the requests

    @asynccontextmanager
    async def hold(self, contacts: Collection[ContactId]) -> AsyncIterator[Release]:
        """Hold the locks of all these contacts in the block.

        Requests are granted in the order they were made. The block gets a function that releases the locks of
        some contacts before its end.

        The lock is not reentrant: a task that asks for a contact it already holds waits forever.
        """
        request = _Request(set(contacts), anyio.Event())
        for contact in request.contacts:
            self._queues.setdefault(contact, deque()).append(request)
        try:
            if not self._is_first(request):
                await request.granted.wait()
            yield partial(self._leave, request)
        finally:
            self._leave(request, request.contacts)

    def _leave(self, request: _Request, contacts: Collection[ContactId]) -> None:
        """Leave queues, also from their middle, and grant the requests that are first now."""
        left = request.contacts.intersection(contacts)
        request.contacts -= left
        for contact in left:
            queue = self._queues[contact]
            queue.remove(request)
            if not queue:
                del self._queues[contact]
            elif self._is_first(queue[0]):
                queue[0].granted.set()

    def _is_first(self, request: _Request) -> bool:
        """Return whether no earlier request holds or waits for any contact of this one."""
        return all(self._queues[contact][0] is request for contact in request.contacts)
