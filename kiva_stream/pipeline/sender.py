"""Sender: delivers a contact's batch: the contact and its orders first, then its events one after another.

Many senders run side by side, each with one batch at a time, so that one task serves many entries. What
keeps the order is that a contact has at most one batch out, and that an event is sent only after the one
before it has its outcome. An event that may have arrived is looked up before it is sent again: it has no
idempotency key at ActiveCampaign.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from kiva_stream.errors import DrainedError, Rejected, UnknownOutcome
from kiva_stream.model.contacts import Contact, ContactStatus
from kiva_stream.model.dead_letters import DeadLetter
from kiva_stream.model.deliveries import Batch, Delivery
from kiva_stream.model.outcomes import SYNCED, Reason
from kiva_stream.observability.logs import ThrottledWarning
from kiva_stream.pipeline.send_intents import LOOKAHEAD
from kiva_stream.ports.destination import Events
from kiva_stream.ports.stages import ContactDelivery, DeliveryLookup, Outcomes
from kiva_stream.primitives.backoff import backoff_s
from kiva_stream.primitives.clock import Sleep
from kiva_stream.primitives.streams import take

CONTACT_S = 30.0  # a contact and its orders take longer only when something is wrong with them
ANSWER_S = 5.0  # others wait no longer for the look-up of an event


class Again(NamedTuple):
    """What to do about an event that may have arrived: look it up, where there is a look-up, or wait."""

    look_up: DeliveryLookup | None
    settle_s: float  # an event that arrived is shown by then
    backoff_max_s: float  # bounds the wait where nothing is looked up


class Sender:
    """Delivers batches.

    `next_batch` gives what gathered for a contact while its batch was out, and must be asked exactly once
    a batch.
    """

    def __init__(
        self,
        arrivals: ContactDelivery,
        events: Events,
        outcomes: Outcomes,
        next_batch: Callable[[Contact], Batch | None],
        again: Again,
        sleep: Sleep = anyio.sleep,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._arrivals = arrivals
        self._events = events
        self._outcomes = outcomes
        self._next_batch = next_batch
        self._again = again
        self._sleep = sleep
        self._clock = clock
        self._began_at = clock()  # what an earlier run sent was sent before
        self._warn = ThrottledWarning()

    async def run(self, batches: MemoryObjectReceiveStream[Batch]) -> None:
        """Deliver batches until there are no more, or none may be sent any more.

        Raises AccountRefused, SourceError, CheckpointError.
        """
        async with batches:
            with suppress(DrainedError):
                while (batch := await take(batches)) is not None:
                    while batch is not None:
                        await self._deliver(batch)
                        batch = self._next_batch(batch.contact)

    async def _deliver(self, batch: Batch) -> None:
        """Give every delivery of the batch its outcome. Raises DrainedError when a drain begins before."""
        if need := self._arrivals.need(batch):
            batch.park_at = self._clock() + CONTACT_S
            with self._outcomes.unless_drained():
                await self._arrivals.ensure(need)
            batch.park_at = math.inf
            if batch.contact.status is ContactStatus.LINKED:
                self._outcomes.mark_tag_due(batch.contact.id)
        while (delivery := batch.current) is not None:
            if batch.contact.status is ContactStatus.REJECTED:
                self._bury(batch.contact, delivery)
            elif delivery.line is None:
                delivery.span.resolve(SYNCED, notes=delivery.notes)
                self._outcomes.request_commit()
            else:
                await self._send(batch, delivery)
            batch.done += 1
            batch.park_at = math.inf

    def _bury(self, contact: Contact, delivery: Delivery) -> None:
        self._outcomes.release_lookahead([delivery.position])
        if delivery.is_entry:
            dead_letter = DeadLetter(delivery.position, Reason(contact.why), delivery.customer)
            self._outcomes.record_dead(delivery.span, dead_letter, delivery.notes)

    async def _send(self, batch: Batch, delivery: Delivery) -> None:
        """Send one event until it has its outcome. Raises DrainedError."""
        is_there: bool | None = False
        if self._outcomes.is_in_doubt(delivery.position):
            is_there = await self._is_there(batch, self._began_at, 1)
            if is_there:
                self._delivered(batch, 1)
                return
        outcomes, position = self._outcomes, delivery.position
        if not (outcomes.claim_prerecorded(position) or await outcomes.wait_recorded(position, batch.ahead)):
            raise DrainedError("the rest of the batch is left to the next run")
        if is_there is None:
            self._outcomes.count_note("sent_again")
        attempts = 1
        while not await self._is_sent(batch, delivery, attempts):
            self._outcomes.count_note("sent_again")
            attempts += 1

    async def _is_sent(self, batch: Batch, delivery: Delivery, attempts: int) -> bool:
        """Send one event, once; False: it has no outcome, and is to be sent again."""
        assert delivery.line is not None  # noqa: S101  what has no event is not sent
        try:
            await self._events.send(batch.contact.email, delivery.line.ac_name, delivery.eventdata)
        except UnknownOutcome as error:
            self._warn("an event may or may not have arrived", why=str(error))
            if not await self._is_there(batch, self._clock(), attempts):
                return False
            self._delivered(batch, attempts)
        except DrainedError:
            if attempts == 1:  # it was not written, and is no doubt for the next run
                self._outcomes.withdraw(delivery.position)
            raise
        except Rejected as error:
            self._rejected(batch, attempts, error.reply)
        else:
            self._delivered(batch, attempts)
        return True

    async def _is_there(self, batch: Batch, sent_at: float, attempts: int) -> bool | None:
        """Return whether the event in hand, sent at a moment or before, is there; None: nobody can say."""
        delivery, again = batch.current, self._again
        assert delivery is not None  # noqa: S101  one is in hand
        assert delivery.line is not None  # noqa: S101  which is an event
        batch.park_at = min(batch.park_at, self._clock() + ANSWER_S)  # of the first attempt
        self._outcomes.release_lookahead(batch.ahead(LOOKAHEAD))  # their places are for others meanwhile
        with self._outcomes.unless_drained():
            if again.look_up is None:
                await self._sleep(backoff_s(attempts, again.backoff_max_s))
                return None
            await self._sleep(max(0.0, sent_at + again.settle_s - self._clock()))
            is_there = await again.look_up.has_arrived(
                batch.contact, delivery.line.ac_name, delivery.eventdata
            )
        self._outcomes.count_note("looked_up")
        return is_there

    def _delivered(self, batch: Batch, attempts: int) -> None:
        """Take in that the event in hand is there; by now it may be a parked one."""
        if delivery := batch.current:
            self._outcomes.record_delivered(delivery, batch.contact.id, attempts)

    def _rejected(self, batch: Batch, attempts: int, reply: str) -> None:
        if delivery := batch.current:
            dead_letter = DeadLetter(
                delivery.position, Reason.EVENT_REJECTED, delivery.customer, attempts, reply
            )
            self._outcomes.record_rejected(delivery, dead_letter)
