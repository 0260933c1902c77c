"""Producer: the log in log order, a page at a time, as far as the window allows."""

from __future__ import annotations

from anyio.streams.memory import MemoryObjectSendStream

from kiva_stream.model import HighWaterMark, Page, Position
from kiva_stream.ports import Log, Outcomes


async def produce(
    log: Log, outcomes: Outcomes, after: Position, mark: HighWaterMark, pages: MemoryObjectSendStream[Page]
) -> None:
    """Send on the entries above `after` up to the mark, then close the stream. Raises SourceError.

    Each page is tracked before it is sent on, so that the watermark knows of every entry that is out.
    """
    async with pages:
        async for entries in log.pages(after, mark):
            span = await outcomes.track(entries[-1].position, len(entries))
            await pages.send(Page(span, entries))
