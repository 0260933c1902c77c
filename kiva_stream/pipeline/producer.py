"""Producer: the log in log order, a page at a time, as far as the window allows."""

from __future__ import annotations

from anyio.streams.memory import MemoryObjectSendStream

from kiva_stream.model.entries import Changes, ReopenedEntries
from kiva_stream.model.outcomes import Span
from kiva_stream.model.pages import Page
from kiva_stream.model.positions import HighWaterMark, Position
from kiva_stream.ports.source import Log
from kiva_stream.ports.stages import Tracking


async def produce(
    log: Log, tracking: Tracking, pages: MemoryObjectSendStream[Page], *, after: Position, mark: HighWaterMark
) -> None:
    """Send on the entries above `after` up to the mark, then close the stream.

    Each page is tracked before it is sent on, so that the watermark cannot pass an entry that is under way.
    Changes have no outcome, and a reopened entry gets a span of its own. So their pages are not tracked, and
    have an empty span at `after`. The batcher gives the contact checks of the changes this position. It lies
    below all entries that are read in log order, so that a check, when it is done, does not stand for any of
    them (`Contact.synced_to`). Raises SourceError, CheckpointError.
    """
    async with pages:
        async for chunk in log.pages(after, mark):
            if isinstance(chunk, Changes):
                await pages.send(Page(Span(after, 0), [], chunk.changes))
            elif isinstance(chunk, ReopenedEntries):
                await tracking.room_to_reopen()
                await pages.send(Page(Span(after, 0), chunk.entries, reopened=chunk))
            else:
                span = await tracking.track(chunk[-1].position, len(chunk))
                await pages.send(Page(span, chunk))
