"""A carriage in a process of its own, on one core: `python -m benchmarks.carried CONFIG [instant|http]`.

Settings come from the environment as for the commands. Prints what it took as JSON.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
import msgspec

from benchmarks.carriage import InstantEvents, Spent, carry
from benchmarks.command import peak_bytes_of
from kiva_stream import settings
from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.events import Events


class Carried(msgspec.Struct, frozen=True):
    """What carrying a history took, of its process alone."""

    spent: Spent
    peak_bytes: int

    @property
    def peak_mb(self) -> float:
        """Most memory in units of 1,000,000 bytes."""
        return self.peak_bytes / 1e6


async def carried(config: Path, sink: str) -> Carried:
    """Carry the history that the settings name."""
    loaded = settings.load(config, os.environ)
    spent = await carry(loaded, InstantEvents()) if sink == "instant" else await _over_http(loaded)
    return Carried(spent, peak_bytes_of("self"))


async def _over_http(loaded: settings.Settings) -> Spent:
    async with Client(loaded.activecampaign) as client:
        return await carry(loaded, Events(loaded.activecampaign, client))


if __name__ == "__main__":
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    found = anyio.run(carried, Path(sys.argv[1]), sys.argv[2], backend_options={"use_uvloop": True})
    print(msgspec.json.encode(found).decode())
