"""One event after another: the script that everybody writes first.

It saves the position of the event that is done, every 100 events. So a crash repeats up to 100 and loses
none, and nothing overtakes anything. An event costs the way to ActiveCampaign and back, whatever the
machine can do: at 100 ms, 36,000 an hour.
"""

from __future__ import annotations

import uvloop

from benchmarks.peers.script import EVERY, Script, save, saved


async def main() -> None:
    """Carry the log."""
    done = 0
    async with Script.open() as script:
        async for end, events in script.pages(saved()):
            for event in events:
                await script.deliver(event)
                done += 1
                if done % EVERY == 0:
                    save(event.position)
            save(end)


if __name__ == "__main__":
    uvloop.run(main())
