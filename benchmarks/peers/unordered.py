"""200 events in flight all the time, in no order: a task an event, held back by a semaphore.

It saves the position of the event that is done, every 100 events, as if all before it were done too. So a
crash repeats those done above it, and loses those below it that were not sent yet, few; what was sent
arrives. Events of a contact overtake each other.
"""

from __future__ import annotations

import asyncio

import uvloop

from benchmarks.peers.script import EVERY, IN_FLIGHT, DueEvent, Script, save, saved
from kiva_stream.model.positions import Position


async def main() -> None:
    """Carry the log."""
    async with Script.open() as script:
        end = saved()
        async with asyncio.TaskGroup() as group:
            end = await _carry(script, group, end)
        save(end)


async def _carry(script: Script, group: asyncio.TaskGroup, after: Position) -> Position:
    """Begin to deliver every event above a position; return where the log ends."""
    places = asyncio.Semaphore(IN_FLIGHT)
    done = 0

    async def deliver(event: DueEvent) -> None:
        nonlocal done
        await script.deliver(event)
        places.release()
        done += 1
        if done % EVERY == 0:
            save(event.position)

    async for end, events in script.pages(after):
        after = end
        for event in events:
            await places.acquire()
            group.create_task(deliver(event))
    return after


if __name__ == "__main__":
    uvloop.run(main())
