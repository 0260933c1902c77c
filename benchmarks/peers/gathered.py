"""A page of the log at a time, 200 of its events in flight: `gather` with a semaphore.

It saves the end of the page when all of it is done. So a crash loses none and repeats up to a page; events
of a contact overtake each other within a page.
"""

from __future__ import annotations

import asyncio

import uvloop

from benchmarks.peers.script import IN_FLIGHT, DueEvent, Script, save, saved


async def main() -> None:
    """Carry the log."""
    places = asyncio.Semaphore(IN_FLIGHT)
    async with Script.open() as script:

        async def deliver(event: DueEvent) -> None:
            async with places:
                await script.deliver(event)

        async for end, events in script.pages(saved()):
            await asyncio.gather(*map(deliver, events))
            save(end)


if __name__ == "__main__":
    uvloop.run(main())
