"""Event tracking of an ActiveCampaign account in memory: see `ports/destination.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from kiva_stream.model.ids import Email
from tests.support.entries import place_in
from tests.support.waiting import no_time


class Arrival(NamedTuple):
    """An event that ActiveCampaign received."""

    email: Email
    name: str
    place: int


class FakeEvents:
    """Implements Events: records every arrival in order, waits for `latency`, then answers.

    `answers` are the errors to raise for an event, one an attempt; without one left it is processed.
    `latency` is called with the place of the event. An event in `taken` is processed though it has an error.
    """

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.processed: list[Arrival] = []  # that ActiveCampaign shows
        self.taken: set[int] = set()
        self.processes_first = (
            False  # before the latency, so that it is processed though the client is cancelled meanwhile
        )
        self.answers: dict[int, list[Exception]] = {}
        self.latency: Callable[[int], Awaitable[object]] = no_time
        self.in_flight: Counter[Email] = Counter()
        self.most_in_flight = 0
        self.on_arrival: Callable[[], None] = lambda: None

    async def send(
        self,
        email: Email,
        name: str,
        data: str,
        *,
        is_suspect: bool = False,  # noqa: ARG002  the breaker's
    ) -> None:
        place = place_in(data)
        self.arrivals.append(Arrival(email, name, place))
        self.on_arrival()
        answers = self.answers.get(place)
        is_processed = not answers or place in self.taken
        if is_processed and self.processes_first:
            self.processed.append(Arrival(email, name, place))
        with self._flying(email):
            await self.latency(place)
        if is_processed and not self.processes_first:
            self.processed.append(Arrival(email, name, place))
        if answers:
            raise answers.pop(0)

    def places(self, email: Email | None = None) -> list[int]:
        """Return the places in the log of the events that arrived, of one contact or of all, in order."""
        return [each.place for each in self.arrivals if email in {None, each.email}]

    def places_by_contact(self) -> dict[Email, list[int]]:
        """Return the places of the events that arrived, in order, by contact."""
        return {email: self.places(email) for email in {each.email for each in self.arrivals}}

    @contextmanager
    def _flying(self, email: Email) -> Iterator[None]:
        self.in_flight[email] += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight.total())
        assert self.in_flight[email] == 1, f"two events of {email} at once"
        try:
            yield
        finally:
            self.in_flight[email] -= 1
