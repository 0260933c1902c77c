"""A carriage in a process of its own, on one core: `python -m benchmarks.carried CONFIG [instant|http]`.

Settings come from the environment as for the commands. Prints what it took as JSON.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec

from benchmarks.calibration import Calibration
from benchmarks.carriage import EventsOf, Sink, Spent, carry, instantly, over_http
from benchmarks.command import peak_bytes_of
from kiva_stream.model.ids import Email
from kiva_stream.ports.destination import Events
from kiva_stream.settings import loading
from kiva_stream.state.leases import Lease


class Carried(msgspec.Struct, frozen=True):
    """What carrying a history took, of its process alone, without the calibration."""

    spent: Spent
    peak_bytes: int
    most_in_flight: int = 0  # events that waited for their answers at once; 0 for an instant sink

    @property
    def peak_mb(self) -> float:
        """Most memory in units of 1,000,000 bytes."""
        return self.peak_bytes / 1e6


async def carried(config: Path, sink: str) -> Carried:
    """Carry the history that the settings name."""
    loaded = loading.load(config, os.environ)
    before = peak_bytes_of("self")
    calibration = Calibration()
    of_calibration = peak_bytes_of("self") - before
    if sink == "instant":
        spent = await carry(loaded, instantly, calibration.meanwhile)
        return Carried(spent, peak_bytes_of("self") - of_calibration)
    in_flight = InFlight()
    spent = await carry(loaded, counted(over_http(loaded), in_flight), calibration.meanwhile)
    return Carried(spent, peak_bytes_of("self") - of_calibration, in_flight.most)


class InFlight:
    """How many events are under way, and how many were at most."""

    def __init__(self) -> None:
        self.most = 0
        self.now = 0


class Counted:
    """Implements `ports.Events`: counts how many are under way at once."""

    def __init__(self, events: Events, in_flight: InFlight) -> None:
        self._events = events
        self._in_flight = in_flight

    async def send(self, email: Email, name: str, eventdata: str, *, is_suspect: bool = False) -> None:
        """Send one on. A failure ends the run, so only successes are counted down."""
        counter = self._in_flight
        counter.now += 1
        counter.most = max(counter.most, counter.now)
        await self._events.send(email, name, eventdata, is_suspect=is_suspect)
        counter.now -= 1


def counted(sink: Sink, in_flight: InFlight) -> Sink:
    """Return the same way to send events, where those in flight are counted."""

    @asynccontextmanager
    async def connected(lease: Lease) -> AsyncIterator[EventsOf]:
        async with sink(lease) as events_of:
            yield lambda checkpoint: Counted(events_of(checkpoint), in_flight)

    return connected


if __name__ == "__main__":
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    found = anyio.run(carried, Path(sys.argv[1]), sys.argv[2], backend_options={"use_uvloop": True})
    print(msgspec.json.encode(found).decode())
