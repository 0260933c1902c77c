"""Sender: delivers a contact's batch: the contact and its orders first, then its events one after another.

Many senders run side by side, each a task with one batch at a time. What keeps the order is that a contact
has at most one batch at a sender, and that an event is sent only after the one before it has its outcome. An
event that may have arrived is looked up before it is sent again: it has no idempotency key at ActiveCampaign.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import NamedTuple

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from kiva_stream.errors import EVENTS, DrainedError, RecordsHeld, Rejected, UnknownOutcome
from kiva_stream.model.contacts import Contact, ContactStatus
from kiva_stream.model.dead_letters import DeadLetter
from kiva_stream.model.deliveries import Batch, Delivery, Need
from kiva_stream.model.outcomes import SYNCED, Reason
from kiva_stream.observability.logs import ThrottledWarning
from kiva_stream.pipeline.parking import began_waiting_for_answer, began_waiting_for_contact
from kiva_stream.pipeline.send_intents import LOOKAHEAD_MAX
from kiva_stream.pipeline.unanswered_events import Attempt, UnansweredEvents
from kiva_stream.ports.destination import Events
from kiva_stream.ports.stages import ContactDelivery, DeliveryLookup, EventOutcomes, Holds, SendPermits
from kiva_stream.primitives.clock import Sleep
from kiva_stream.primitives.streams import take

HOLD_AGAIN_S = 10.0  # until the next attempt for a contact that there is no room to hold


class LookupPolicy(NamedTuple):
    """How an event that may have arrived is looked up; without `lookup` that cannot be known."""

    lookup: DeliveryLookup | None
    settle_s: float  # how long after it was sent an event that arrived is shown at the latest
    witness_s: float  # how long a witness is waited for: see `UnansweredEvents`


class Sender:
    """Delivers batches.

    `next_batch` returns what gathered for a contact while its batch was here. It is called once for each
    batch that is delivered, and not for one that a drain or an error interrupts: its lane stays busy. Nor is
    it called for one whose contact is held: `holds` takes the lane.
    """

    def __init__(
        self,
        contact_delivery: ContactDelivery,
        events: Events,
        *,
        permits: SendPermits,
        outcomes: EventOutcomes,
        holds: Holds,
        unless_drained: Callable[[], AbstractContextManager[None]],
        next_batch: Callable[[Contact], Batch | None],
        lookups: LookupPolicy,
        sleep: Sleep = anyio.sleep,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._contact_delivery = contact_delivery
        self._events = events
        self._permits = permits
        self._outcomes = outcomes
        self._holds = holds
        self._unless_drained = unless_drained
        self._next_batch = next_batch
        self._lookups = lookups
        self._sleep = sleep
        self._clock = clock
        self._began_at = clock()  # what an earlier run sent was sent before
        self._answers = 0  # to events
        self._unanswered = UnansweredEvents(
            lookups.witness_s,
            holds.suspects(),
            answers=lambda: self._answers,
            on_recovery=holds.make_due,
            clock=clock,
            sleep=sleep,
        )
        self._warn = ThrottledWarning()

    async def run(self, batches: MemoryObjectReceiveStream[Batch]) -> None:
        """Deliver batches until the stream ends, or until one cannot be finished because of a drain.

        A drain lets the event in flight get its outcome. It interrupts a batch at the next wait: for its
        contact, a look-up, a permit or the rate limits. Raises AccountRefused, SourceError, CheckpointError.
        """
        async with batches:
            with suppress(DrainedError):
                while (taken := await take(batches)) is not None:
                    batch: Batch | None = taken
                    while batch is not None:
                        try:
                            await self._deliver(batch)
                        except RecordsHeld as error:
                            batch = await self._hold(batch, error)
                        else:
                            batch = self._next_batch(batch.contact)

    async def _hold(self, batch: Batch, error: RecordsHeld) -> Batch | None:
        """Hold the contact of a batch; return the batch if there is no room, after a while."""
        batch.end_wait()
        contact, position = batch.contact, batch.current.position
        is_held = await self._holds.hold(contact, position, error)
        if error.what == EVENTS:  # the commit that frees its permit has its parked row
            self._outcomes.keep_in_doubt(position)
        if is_held:
            return None
        with self._unless_drained():
            await self._sleep(HOLD_AGAIN_S)
        return batch

    async def _deliver(self, batch: Batch) -> None:
        """Give every delivery of the batch its outcome. Raises DrainedError if a drain interrupts it."""
        if need := self._contact_delivery.need(batch):
            began_waiting_for_contact(batch, self._clock())
            await self._ensure(need)
            batch.end_wait()
            if batch.contact.is_linked:
                self._outcomes.mark_tag_due(batch.contact.id)
        while batch.done < len(batch.deliveries):
            delivery = batch.current
            if batch.contact.status is ContactStatus.REJECTED:
                self._record_dead(batch.contact, delivery)
            elif delivery.event_line is None:  # an entry without event, or a check, whose span is not counted
                delivery.span.resolve(SYNCED, notes=delivery.notes)
                self._outcomes.request_commit()
            elif (
                delivery.is_reopened  # as what was held is
                and (reply := self._holds.discarded(batch.contact, delivery.position)) is not None
            ):
                self._record_rejected(batch, reply)
            else:
                await self._send(batch, delivery)
            batch.finish_current()
        if batch.contact.id in self._holds.trying:
            await self._holds.delivered(batch.contact)

    async def _ensure(self, need: Need) -> None:
        """Wait for the need of a batch. Raises DrainedError.

        A contact that was refused meanwhile is new again if the batcher found that it is to be tried again.
        """
        is_new = True
        while is_new:
            with self._unless_drained(), self._holds.bounded(need.contact):
                await self._contact_delivery.ensure(need)
            is_new = need.contact.status is ContactStatus.NEW

    def _record_dead(self, contact: Contact, delivery: Delivery) -> None:
        # The event holds a permit only if it was recorded as lookahead of an earlier one of the batch, before
        # the contact was rejected.
        self._permits.release_lookahead([delivery.position])
        if delivery.is_entry:
            why, customer = Reason(contact.why), delivery.customer
            dead_letter = DeadLetter(delivery.position, why, customer, reply=contact.reply)
            self._outcomes.record_dead(delivery.span, dead_letter, delivery.notes)

    async def _send(self, batch: Batch, delivery: Delivery) -> None:
        """Send the event of `delivery`, the current one, until it has its outcome. Raises DrainedError.

        During any await, parking may replace `batch.current` by a copy with another span. So outcomes go to
        the one that is current by then; position and event are the same in both.

        | the event                        | the look-up      | then it                              |
        |----------------------------------|------------------|--------------------------------------|
        | was not sent                     | is not made      | is sent                              |
        | is in doubt: an earlier run may  | finds it         | is delivered                         |
        | have sent it                     | does not find it | is sent, presumably the first time   |
        |                                  | cannot say       | is sent, and counted as `sent_again` |
        | was sent by this run, and the    | finds it         | is delivered                         |
        | outcome is unknown               | does not find it | is sent, and counted as `sent_again` |
        |                                  | cannot say       | is sent, and counted as `sent_again` |

        Whether and when it is sent again: see `UnansweredEvents`. Raises RecordsHeld if it is held: then it
        is in doubt.
        """
        position, may_repeat, earlier = delivery.position, False, 0
        if self._outcomes.is_in_doubt(position):  # as one that was held is
            earlier = self._holds.sent(batch.contact, position)
            has_arrived = await self._look_up(batch, self._began_at)
            if has_arrived:
                self._outcomes.record_delivered(batch.current, batch.contact.id, attempts=1)
                return
            may_repeat = has_arrived is None or earlier > 0
        if not (
            self._permits.claim_prerecorded(position)
            or await self._permits.wait_recorded(position, batch.lookahead)
        ):
            raise DrainedError("the rest of the batch is left to the next run")
        if may_repeat:
            self._outcomes.count_note("sent_again")
        first = last = await self._try_to_send(
            batch, delivery, earlier + 1, is_first=True, may_repeat=may_repeat
        )
        while first is not None and last is not None:
            await self._hold_if_unanswered(batch, first, last)
            self._outcomes.count_note("sent_again")
            last = await self._try_to_send(batch, delivery, last.number + 1, may_repeat=True)

    async def _hold_if_unanswered(self, batch: Batch, first: Attempt, last: Attempt) -> None:
        """Raise RecordsHeld if the current event is held now; if there is no room for that, wait a while.

        Without room it keeps its permit, as it is in doubt. Raises DrainedError.
        """
        contact = batch.contact
        with self._unless_drained():
            if not await self._unanswered.is_held(contact.id, first, last):
                return
            if not self._holds.has_room(contact):
                await self._sleep(HOLD_AGAIN_S)
                return
        raise RecordsHeld(EVENTS, {contact.id: last.why}, is_in_doubt=not last.is_looked_up, sent=last.number)

    async def _try_to_send(
        self, batch: Batch, delivery: Delivery, number: int, *, may_repeat: bool, is_first: bool = False
    ) -> Attempt | None:
        """Send the event of `delivery`, the current one, once; return the attempt if it has no outcome.

        It `is_first` of this run, or since the event was held; it `may_repeat` one of an earlier run or try.
        """
        contact = batch.contact
        assert delivery.event_line is not None  # noqa: S101  what has no event is not sent
        try:
            is_suspect = contact.id in self._unanswered.suspects
            await self._events.send(
                contact.email, delivery.event_line.ac_name, delivery.eventdata, is_suspect=is_suspect
            )
            self._answers += 1
            if self._unanswered.contacts:
                self._unanswered.answered(contact.id)
        except UnknownOutcome as error:
            self._warn("an event may or may not have arrived", why=str(error))
            answers = self._answers
            has_arrived = await self._look_up(batch, self._clock())
            if not has_arrived:
                is_looked_up = has_arrived is not None
                return Attempt(number, str(error), answers, is_looked_up=is_looked_up, is_again=may_repeat)
            # It was found, and is recorded as delivered below.
        except DrainedError:
            # This attempt sent nothing. If it is the first, it did not put the event in doubt; whether an
            # earlier run or try did is recorded apart from the permits.
            if is_first:
                self._permits.withdraw(delivery.position)
            raise
        except Rejected as error:
            self._record_rejected(batch, error.reply, attempts=number)
            self._answers += 1
            self._unanswered.answered(contact.id)
            return None
        self._outcomes.record_delivered(batch.current, contact.id, number)
        return None

    def _record_rejected(self, batch: Batch, reply: str, attempts: int = 0) -> None:
        position, customer = batch.current.position, batch.current.customer
        dead_letter = DeadLetter(position, Reason.EVENT_REJECTED, customer, attempts=attempts, reply=reply)
        self._outcomes.record_rejected(batch.current, dead_letter)

    async def _look_up(self, batch: Batch, sent_at: float) -> bool | None:
        """Return whether the current event has arrived; None: that cannot be known.

        It was sent at `sent_at` or earlier.
        """
        delivery, lookups = batch.current, self._lookups
        assert delivery.event_line is not None  # noqa: S101  the current one is an event
        began_waiting_for_answer(batch, self._clock())
        self._permits.release_lookahead(batch.lookahead(LOOKAHEAD_MAX))  # others can use them meanwhile
        with self._unless_drained():
            if lookups.lookup is None:
                return None
            await self._sleep(max(0.0, sent_at + lookups.settle_s - self._clock()))
            has_arrived = await lookups.lookup.has_arrived(
                batch.contact, delivery.event_line.ac_name, delivery.eventdata
            )
        self._outcomes.count_note("looked_up")
        return has_arrived
