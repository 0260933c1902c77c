"""What the peers share: a log read and classified, contacts and events sent, all by kiva_stream's own code.

A peer writes a contact before its first event, by `POST contact/sync` with the address and the name, and
again after a new start, since it keeps no account of that. That is less than kiva_stream brings: no fields,
list, week tag or orders, and nobody without an event.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.events import Events
from kiva_stream.activecampaign.responses.contacts import parse_upserted_contact
from kiva_stream.model.classifications import Event
from kiva_stream.model.entries import Entry
from kiva_stream.model.ids import Email
from kiva_stream.model.positions import DAY1, Position
from kiva_stream.pipeline.classification import classifier_of
from kiva_stream.pipeline.duplicates import Duplicates
from kiva_stream.runtime.shop import Shop, open_shop
from kiva_stream.settings import loading
from kiva_stream.settings.sections import Settings

CHECKPOINT = Path("checkpoint")  # in the folder that the peer runs in
EVERY = 100  # events between two checkpoints, where a peer counts them
IN_FLIGHT = 200  # as many as kiva_stream has

_WRITTEN = Path("checkpoint.new")


class DueEvent(NamedTuple):
    """An event that is to be sent."""

    position: Position
    email: Email
    customer: str  # the name
    name: str
    eventdata: str


class Script:
    """The log of one site, and one account."""

    def __init__(self, loaded: Settings, shop: Shop, client: Client) -> None:
        self.settings = loaded
        self._shop = shop
        self._client = client
        self._events = Events(loaded.activecampaign, client)
        self._classify = classifier_of(shop.site)
        self._duplicates = Duplicates(loaded.pipeline.window, loaded.pipeline.duplicate_window_s)
        self._contacts: dict[Email, asyncio.Task[None]] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Script]:
        """Connect to what the environment names."""
        loaded = loading.load(None, os.environ)
        async with open_shop(loaded) as shop, Client(loaded.activecampaign) as client:
            yield cls(loaded, shop, client)

    async def pages(self, after: Position) -> AsyncIterator[tuple[Position, list[DueEvent]]]:
        """Yield the events above a position, those of a page of the log together, and where it ends."""
        mark = await self._shop.horizon.high_water_mark()
        async for page in self._shop.log.pages(after, mark):
            yield page[-1].position, [due for entry in page if (due := self._due(entry)) is not None]

    async def deliver(self, due: DueEvent) -> None:
        """Send an event, behind the contact that it is the first of."""
        if due.email not in self._contacts:
            self._contacts[due.email] = asyncio.create_task(self._bring(due))
        await self._contacts[due.email]
        await self._events.send(due.email, due.name, due.eventdata)

    def _due(self, entry: Entry) -> DueEvent | None:
        """Return the event of an entry; None: there is none, or the shop wrote it twice."""
        classification, customer = self._classify(entry), entry.customer
        if self._duplicates.compare_and_add(entry, classification):
            return None
        if not isinstance(classification, Event) or customer is None or customer.email is None:
            return None
        return DueEvent(
            entry.position,
            customer.email,
            customer.name,
            classification.event_line.ac_name,
            classification.eventdata,
        )

    async def _bring(self, due: DueEvent) -> None:
        body = {"contact": {"email": due.email, "firstName": due.customer}}
        await self._client.call("POST", "/contact/sync", body, parse=parse_upserted_contact)


def saved() -> Position:
    """Return the position in the checkpoint's file; the first one when there is none yet."""
    return Position.parse(CHECKPOINT.read_text()) if CHECKPOINT.exists() else DAY1


def save(position: Position) -> None:
    """Write a position into the checkpoint's file, whole or not at all."""
    _WRITTEN.write_text(str(position))
    _WRITTEN.replace(CHECKPOINT)
