"""The bound of parked entries: when it is reached, reading pauses, and an incident says so."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress

import anyio

from kiva_stream.errors import StateBusyError
from kiva_stream.model.bounds import place_text
from kiva_stream.model.checkpoint import ParkedBehind
from kiva_stream.model.held_records import HeldKind
from kiva_stream.model.ids import OrderId
from kiva_stream.observability.incidents import Incidents
from kiva_stream.ports.state import Ledger

POLL_S = 1.0
TELL_EVERY_S = 60.0
LARGEST = 5  # contacts that the incident names


class ParkedBound:
    """Keeps the incident `parked` open while `most` entries are parked, and `is_full` says so."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        most: int,
        is_full: Callable[[], bool],
        incidents: Incidents,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._ledger = ledger
        self._most = most
        self._is_full = is_full
        self._incidents = incidents
        self._clock = clock
        self._told_at = -math.inf

    async def run(self) -> None:
        """Look at the bound again and again, until cancelled. Raises CheckpointError."""
        while True:
            with suppress(StateBusyError):
                await self.look()
            await anyio.sleep(POLL_S)

    async def look(self) -> None:
        """Open the incident, or resolve it. Its sentence is renewed once a minute. Raises CheckpointError."""
        if not self._is_full():
            self._told_at = -math.inf
            self._incidents.resolve("parked")
        elif self._clock() - self._told_at >= TELL_EVERY_S:
            self._told_at = self._clock()
            self._incidents.open("parked", sentence(self._most, await self._ledger.largest_parked(LARGEST)))


def sentence(most: int, largest: Sequence[ParkedBehind]) -> str:
    """Return why reading pauses, with the contacts that most of the parked entries are of."""
    named = "; ".join(map(_named, largest))
    return (
        f"{most:,} entries are parked, as many as state.parked_max_entries allows: the log is read on when "
        f"fewer are. Most of them are of {named}. `kiva-stream status` has the replies."
    )


def _named(behind: ParkedBehind) -> str:
    customers = ", ".join(map(str, behind.customers))
    whose = f"customer {customers}" if customers else "no contact yet"
    entries = f"{behind.entries:,} {'entry' if behind.entries == 1 else 'entries'}"
    if behind.key is None:
        return f"{whose} ({entries})"
    key = behind.key
    held = place_text(OrderId(key.id)) if key.kind is HeldKind.ORDER else key.kind
    return f"{whose} ({entries} behind {held})"
