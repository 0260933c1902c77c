"""Sender: delivers a contact's batch: the contact and its orders first, then its events one after another.

Many senders run side by side, each with one batch at a time, so that one task serves many entries. What
keeps the order is that a contact has at most one batch out, and that an event is sent only after the one
before it has its outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from kiva_stream.backoff import backoff_s
from kiva_stream.errors import DrainedError, Rejected, UnknownOutcome
from kiva_stream.model import (
    SYNCED,
    Batch,
    Contact,
    ContactStatus,
    DeadLetter,
    Delivery,
    Reason,
)
from kiva_stream.ports import Arrivals, Events, Outcomes, Sleep
from kiva_stream.telemetry import Rarely


class Sender:
    """Delivers batches.

    `next_batch` gives what gathered for a contact while its batch was out, and must be asked exactly once
    a batch. `backoff_max_s` bounds the wait, in seconds, before an event of unknown outcome is sent again.
    """

    def __init__(
        self,
        arrivals: Arrivals,
        events: Events,
        outcomes: Outcomes,
        next_batch: Callable[[Contact], Batch | None],
        backoff_max_s: float,
        sleep: Sleep = anyio.sleep,
    ) -> None:
        self._arrivals = arrivals
        self._events = events
        self._outcomes = outcomes
        self._next_batch = next_batch
        self._backoff_max_s = backoff_max_s
        self._sleep = sleep
        self._warn = Rarely()

    async def run(self, batches: MemoryObjectReceiveStream[Batch]) -> None:
        """Deliver batches until there are no more, or none may be sent any more.

        Raises AccountRefused, SourceError, CheckpointError.
        """
        async with batches:
            with suppress(DrainedError):
                async for first in batches:
                    batch: Batch | None = first
                    while batch is not None:
                        await self._deliver(batch)
                        batch = self._next_batch(batch.contact)

    async def _deliver(self, batch: Batch) -> None:
        """Give every delivery of the batch its outcome. Raises DrainedError when a drain begins before."""
        contact = batch.contact
        if need := self._arrivals.need(batch):
            with self._outcomes.unless_drained():
                await self._arrivals.ensure(need)
            if contact.status is ContactStatus.LINKED:
                self._outcomes.touch(contact.id)
        for delivery in batch.deliveries:
            if contact.status is ContactStatus.REJECTED:
                self._bury(contact, delivery)
            elif delivery.line is None:
                delivery.span.resolve(SYNCED, notes=delivery.notes)
                self._outcomes.commit_soon()
            elif await self._outcomes.slot():
                await self._send(contact, delivery)
            else:
                raise DrainedError("the rest of the batch is left to the next run")

    def _bury(self, contact: Contact, delivery: Delivery) -> None:
        if delivery.is_entry:
            letter = DeadLetter(delivery.position, Reason(contact.why), delivery.customer)
            self._outcomes.buried(delivery.span, letter, delivery.notes)

    async def _send(self, contact: Contact, delivery: Delivery) -> None:
        """Send one event until it has its outcome.

        One whose outcome is unknown is sent again, and counted (`sent_again`): an event has no idempotency
        key at ActiveCampaign, and may have arrived.
        """
        assert delivery.line is not None  # noqa: S101  what has no event is not sent
        attempts = 1
        while True:
            try:
                await self._events.send(contact.email, delivery.line.ac_name, delivery.eventdata)
            except UnknownOutcome as error:
                self._warn("an event whose outcome is unknown is sent again", why=str(error))
                with self._outcomes.unless_drained():
                    await self._sleep(backoff_s(attempts, self._backoff_max_s))
                attempts += 1
                delivery = delivery._replace(notes=(*delivery.notes, "sent_again"))
            except Rejected as error:
                letter = DeadLetter(
                    delivery.position, Reason.EVENT_REJECTED, delivery.customer, attempts, error.reply
                )
                self._outcomes.rejected(delivery, letter)
                return
            else:
                self._outcomes.delivered(delivery, contact.id, attempts)
                return
