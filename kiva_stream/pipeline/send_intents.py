"""Out: the events that may have arrived and have no outcome yet, each named before it is sent.

After a crash nobody knows which of the events that were sent have arrived; but each of them was named by the
last commit, and there are never more than `most`. Places that nobody asks for go to the events that those who
ask will send next, so that a contact with many events does not wait for a commit with each. Pure, but for the
waiting.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from kiva_stream.model.positions import Position

LOOKAHEAD = 16  # events of one contact that are named before their turn: the places are for many contacts

Lookahead = Callable[[int], Sequence[Position]]  # returns up to so many events that will be asked for next


def no_lookahead(_most: int) -> Sequence[Position]:
    """Have nothing else to send."""
    return ()


class PendingIntent(NamedTuple):
    """Somebody who wants to send an event, as soon as a commit names it."""

    position: Position
    ahead: Lookahead
    named: asyncio.Future[None]  # made for most events: anyio.Event takes ten times as long

    def go(self) -> None:
        """Let who asks go on: a commit has named the event, or none will."""
        if not self.named.done():  # cancelled, say
            self.named.set_result(None)


class SendIntents:
    """At most `most` events at a time. A closed one lets no more go out."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._named: set[Position] = set()
        self._ahead: set[Position] = set()  # of these, those that nobody has asked for yet
        self._answered: list[Position] = []
        self._asking: deque[PendingIntent] = deque()
        self._is_open = True

    @property
    def positions(self) -> frozenset[Position]:
        """The events that a commit is to name."""
        return frozenset(self._named)

    @property
    def has_news(self) -> bool:
        """Whether a commit would name others than the last one did."""
        return bool(self._answered) or bool(self._asking and len(self._named) < self._most)

    @property
    def is_held_up(self) -> bool:
        """Whether so many places wait for a commit that those who ask should not wait for more."""
        return 2 * len(self._answered) >= self._most

    def claim_prerecorded(self, position: Position) -> bool:
        """Let an event go out at once if a commit has named it ahead of its turn; return whether it did."""
        if position not in self._ahead:
            return False
        self._ahead.discard(position)
        return True

    async def wait_recorded(self, position: Position, ahead: Lookahead = no_lookahead) -> bool:
        """Wait until a commit has named this event; False: none goes out any more.

        What lies `ahead` is named with it, as far as there are places.
        """
        if not self._is_open:
            return False
        ask = PendingIntent(position, ahead, asyncio.get_running_loop().create_future())
        self._asking.append(ask)
        is_sent = False
        try:
            await ask.named
            is_sent = self._is_open
        finally:
            if not is_sent:
                self._withdraw(ask)
        return is_sent

    def answered(self, position: Position) -> None:
        """Take in that an event has its outcome; its place is free with the commit that keeps this."""
        self._answered.append(position)

    def release_lookahead(self, positions: Iterable[Position]) -> None:
        """Take back the places of events that nobody has asked for yet."""
        released = self._ahead.intersection(positions)
        self._ahead -= released
        self._answered.extend(released)

    def next(self) -> list[PendingIntent]:
        """Return who goes out next, as soon as the commit that is made now has named them."""
        self._named.difference_update(self._answered)
        self._answered.clear()
        if not self._is_open:  # who waited withdraws, and what lies ahead of them would keep its place
            return []
        room = self._most - len(self._named)
        taken = [self._asking.popleft() for _ in range(min(room, len(self._asking)))]
        self._named.update(ask.position for ask in taken)
        self._name_ahead(taken)
        return taken

    def _name_ahead(self, taken: Sequence[PendingIntent]) -> None:
        """Share the places that are left among those who ask."""
        share = (self._most - len(self._named)) // len(taken) if taken else 0
        for ask in taken if share else ():
            ahead = [each for each in ask.ahead(min(share, LOOKAHEAD)) if each not in self._named]
            self._ahead.update(ahead)
            self._named.update(ahead)

    def close(self) -> None:
        """Let no more go out, nor those who wait."""
        self._is_open = False
        self.release_lookahead(set(self._ahead))
        for ask in self._asking:
            ask.go()

    def _withdraw(self, ask: PendingIntent) -> None:
        if ask in self._asking:
            self._asking.remove(ask)
        else:  # a commit has named it, and another one has to take that back
            self._answered.append(ask.position)
