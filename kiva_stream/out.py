"""Out: the events that may have arrived and have no outcome yet, each named before it is sent.

After a crash nobody knows which of the events that were sent have arrived; but each of them was named by the
last commit, and there are never more than `most`. Pure, but for the waiting.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import anyio

from kiva_stream.model import Position


class Ask(NamedTuple):
    """Somebody who wants to send an event, as soon as a commit names it."""

    position: Position
    is_named: anyio.Event


class Out:
    """At most `most` events at a time. A closed one lets no more go out."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._named: set[Position] = set()
        self._answered: list[Position] = []
        self._asking: deque[Ask] = deque()
        self._is_open = True

    @property
    def positions(self) -> frozenset[Position]:
        """The events that a commit is to name."""
        return frozenset(self._named)

    @property
    def has_news(self) -> bool:
        """Whether a commit would name others than the last one did."""
        return bool(self._answered) or bool(self._asking and len(self._named) < self._most)

    async def may_send(self, position: Position) -> bool:
        """Wait until a commit has named this event; False: none goes out any more."""
        if not self._is_open:
            return False
        ask = Ask(position, anyio.Event())
        self._asking.append(ask)
        is_sent = False
        try:
            await ask.is_named.wait()
            is_sent = self._is_open
        finally:
            if not is_sent:
                self._withdraw(ask)
        return is_sent

    def answered(self, position: Position) -> None:
        """Take in that an event has its outcome; its place is free with the commit that keeps this."""
        self._answered.append(position)

    def next(self) -> list[Ask]:
        """Return who goes out next, as soon as the commit that is made now has named them."""
        self._named.difference_update(self._answered)
        self._answered.clear()
        room = self._most - len(self._named)
        taken = [self._asking.popleft() for _ in range(min(room, len(self._asking)))]
        self._named.update(ask.position for ask in taken)
        return taken

    def close(self) -> None:
        """Let no more go out, nor those who wait."""
        self._is_open = False
        for ask in self._asking:
            ask.is_named.set()

    def _withdraw(self, ask: Ask) -> None:
        if ask in self._asking:
            self._asking.remove(ask)
        else:
            self._named.discard(ask.position)
