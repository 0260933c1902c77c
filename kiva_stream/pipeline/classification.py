"""The classifier's stage, and `classifier_of`, by which commands and the verification classify too."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from kiva_stream.events.classifier import Classifier
from kiva_stream.model.classifications import Classification
from kiva_stream.model.entries import Entry
from kiva_stream.model.pages import ClassifiedPage, Page
from kiva_stream.model.site import Site

Classify = Callable[[Entry], Classification]


def classifier_of(site: Site, events_since: datetime | None = None) -> Classify:
    """Return the function that classifies the entries of a site.

    Events of entries inserted before `events_since` are skipped.
    """
    return Classifier(site, events_since).classify


async def classify_pages(
    classify: Classify,
    pages: MemoryObjectReceiveStream[Page],
    classified: MemoryObjectSendStream[ClassifiedPage],
) -> None:
    """Send on each page with the classification of each of its entries, then close the stream."""
    async with pages, classified:
        async for page in pages:
            classifications = [(entry, classify(entry)) for entry in page.entries]
            await classified.send(
                ClassifiedPage(page.span, classifications, page.changes, reopened=page.reopened)
            )
