"""The pipeline: producer → classifier → batcher → sender → checkpoint, joined by bounded streams.

It ends as a cascade of closes: the producer closes its stream at the mark, each stage closes its own when
the one before it did, and the checkpoint commits once more. In a drain the stages before the senders are
cancelled, since the next run reads again what they hold, and no event gets a permit any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectSendStream

from kiva_stream.model.deliveries import Batch
from kiva_stream.model.entries import Entry, ReopenedEntries
from kiva_stream.model.ids import ContactId
from kiva_stream.model.outcomes import Span
from kiva_stream.model.pages import ClassifiedPage, Page
from kiva_stream.model.positions import DAY1, HighWaterMark, Position
from kiva_stream.pipeline.batcher import Batcher
from kiva_stream.pipeline.checkpoint import Checkpoint
from kiva_stream.pipeline.classification import Classify, classify_pages
from kiva_stream.pipeline.duplicates import Duplicates
from kiva_stream.pipeline.held_contacts import HeldContacts, HeldEntries, LaneHolds
from kiva_stream.pipeline.lanes import Lanes
from kiva_stream.pipeline.parked_bound import ParkedBound
from kiva_stream.pipeline.parking import POLL_S, Parking
from kiva_stream.pipeline.producer import produce
from kiva_stream.pipeline.revivals import Revivals
from kiva_stream.pipeline.sender import LookupPolicy, Sender
from kiva_stream.ports.destination import Events
from kiva_stream.ports.source import Entries, Log
from kiva_stream.ports.stages import ContactDelivery, DeliveryLookup
from kiva_stream.ports.state import ContactDeadLetters, Links
from kiva_stream.settings.sections import Settings
from kiva_stream.sync.held_records import HeldRecords

TAKE_S = 0.1  # how soon the batcher has taken some of those that are due
NO_ENTRIES = Page(Span(DAY1, 0), [], reopened=ReopenedEntries({}, []))


class Pipeline:
    """Carries the log from the checkpoint to a mark. For one run.

    `lookup` finds events whose answer was lost; without one they are sent again. `is_down` returns whether
    ActiveCampaign is down: then nothing is parked.

    Besides the checkpoint itself, stages get parts of it:

    | part                                                         | is handed to                           |
    |--------------------------------------------------------------|----------------------------------------|
    | `reopened`: entries that get their outcome outside the log's | the batcher, parking                   |
    | order                                                        |                                        |
    | `earlier`: what earlier runs left of the entries that are    | the batcher, and its `Revivals`: dead  |
    | read again                                                   | letters of customers who have got a    |
    |                                                              | contact since                          |
    | `intents`: the permits to send; `draining`                   | the sender                             |
    """

    def __init__(
        self,
        settings: Settings,
        *,
        log: Log,
        entries: Entries,
        classify: Classify,
        links: Links,
        dead_letters: ContactDeadLetters,
        contact_delivery: ContactDelivery,
        events: Events,
        lookup: DeliveryLookup | None,
        checkpoint: Checkpoint,
        held: HeldRecords,
        bound: ParkedBound,
        is_down: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._log = log
        self._classify = classify
        self._checkpoint = checkpoint
        self._bound = bound
        self._contact_delivery = contact_delivery
        self._errors: list[Exception] = []
        self._upstream = anyio.CancelScope()
        earlier = checkpoint.earlier
        self._duplicates = Duplicates(settings.pipeline.window, settings.pipeline.duplicate_window_s)
        self._parking = Parking(checkpoint.reopened, settings.state.parked_max_entries, is_down)
        self._held = HeldContacts(self._parking, held, self._is_busy, is_down=is_down)
        self._lanes = Lanes(self._parking.park_behind, self._held.leave)
        tries = HeldEntries(
            self._held, links=links, parked=checkpoint, earlier=earlier, entries=entries, classify=classify
        )
        self._batcher = Batcher(
            links,
            contact_delivery=contact_delivery,
            outcomes=checkpoint,
            earlier=earlier,
            reopened=checkpoint.reopened,
            revivals=Revivals(dead_letters, entries, classify=classify, outcomes=checkpoint, earlier=earlier),
            held=tries,
            duplicates=self._duplicates,
            lanes=self._lanes,
        )
        self._sender = self._new_sender(contact_delivery, events, lookup)

    def _new_sender(
        self, contact_delivery: ContactDelivery, events: Events, lookup: DeliveryLookup | None
    ) -> Sender:
        account = self._settings.activecampaign
        return Sender(
            contact_delivery,
            events,
            permits=self._checkpoint.intents,
            outcomes=self._checkpoint,
            holds=LaneHolds(self._held, self._lanes),
            unless_drained=self._checkpoint.draining.unless_drained,
            next_batch=self._lanes.next,
            lookups=LookupPolicy(lookup, account.lookup_settle_s, account.retry_held_s),
        )

    def _is_busy(self, contact: ContactId) -> bool:
        """Return whether the sender has a batch of a contact."""
        return self._lanes.is_busy(contact)

    def remember(self, entries: Iterable[Entry]) -> None:
        """Add these entries, which lie below the checkpoint, to those that `run` compares its entries with.

        Call it in log order.
        """
        for entry in entries:
            self._duplicates.compare_and_add(entry, self._classify(entry))

    async def run(self, mark: HighWaterMark, *, tries_all_held: bool = True) -> None:
        """Return when every entry up to the mark has its outcome, or after a drain.

        After the rest what is held is tried once more, all of it if `tries_all_held`, else what is due.

        Raises an ExceptionGroup of SourceError, CheckpointError, HeldError, AccountRefused.
        """
        async with anyio.create_task_group() as commits:
            commits.start_soon(self._checkpoint.run)
            try:
                async with anyio.create_task_group() as parking:
                    parking.start_soon(self._parking.run, self._lanes)
                    parking.start_soon(self._bound.run)
                    await self._stages(mark, tries_all_held=tries_all_held)
                    parking.cancel_scope.cancel()
            finally:
                self._checkpoint.close()
        if self._errors:
            raise ExceptionGroup("the pipeline failed", self._errors)

    @property
    def is_draining(self) -> bool:
        """Whether a drain has begun: it was asked for, or a stage failed."""
        return self._upstream.cancel_called

    def drain(self) -> None:
        """Have `run` return when what is in flight has finished. The caller bounds how long that may take."""
        self._upstream.cancel()
        self._checkpoint.drain()

    async def _stages(self, mark: HighWaterMark, *, tries_all_held: bool) -> None:
        sizes = self._settings.pipeline
        to_classifier, pages = anyio.create_memory_object_stream[Page](sizes.queue_chunks)
        to_batcher, classified = anyio.create_memory_object_stream[ClassifiedPage](sizes.queue_chunks)
        # As many batches as the window has entries: while all senders are busy, the window alone bounds what
        # is read ahead. Reopened entries and contact checks, which are outside the window, may fill the
        # stream; then the batcher waits for a sender.
        to_senders, batches = anyio.create_memory_object_stream[Batch](sizes.window)
        start = self._checkpoint.position
        async with anyio.create_task_group() as senders, batches:
            for _ in range(self._settings.activecampaign.max_in_flight):
                senders.start_soon(self._or_drain, senders, self._sender.run, batches.clone())
            with self._upstream:
                async with anyio.create_task_group() as upstream:
                    for stage in (
                        partial(self._produce, start, mark, to_classifier, tries_all_held=tries_all_held),
                        partial(classify_pages, self._classify, pages, to_batcher),
                        partial(self._batcher.run, classified, to_senders),
                    ):
                        upstream.start_soon(self._or_drain, senders, stage)

    async def _produce(
        self,
        start: Position,
        mark: HighWaterMark,
        pages: MemoryObjectSendStream[Page],
        *,
        tries_all_held: bool,
    ) -> None:
        """Send on the pages of the log, and a page without entries whenever a held contact is due."""
        async with pages:
            async with anyio.create_task_group() as tries:
                tries.start_soon(self._wake_batcher, pages)
                await produce(self._log, self._checkpoint, pages.clone(), after=start, mark=mark)
                tries.cancel_scope.cancel()
            await self._checkpoint.all_resolved()
            self._held.begin_last_tries(of_all=tries_all_held)
            await pages.send(NO_ENTRIES)
            while self._held.has_more_last_tries():
                await anyio.sleep(TAKE_S)
                await pages.send(NO_ENTRIES)

    async def _wake_batcher(self, pages: MemoryObjectSendStream[Page]) -> None:
        """Have the batcher look at the held contacts when one is due, also while nothing is read."""
        while True:
            await anyio.sleep(POLL_S)
            if await self._held.poll() or self._contact_delivery.has_due:
                await pages.send(NO_ENTRIES)

    async def _or_drain(
        self, senders: TaskGroup, stage: Callable[..., Awaitable[None]], *args: object
    ) -> None:
        """Run a stage; when it fails, keep the error and drain.

        The drain cancels the stages before the senders at once, whichever stage failed. The senders finish
        what is in flight, and are cancelled after `drain_timeout_s`.
        """
        try:
            await stage(*args)
        except Exception as error:  # noqa: BLE001  it is raised when the drain has ended
            if not self._errors:
                senders.cancel_scope.deadline = anyio.current_time() + self._settings.pipeline.drain_timeout_s
                self.drain()
            self._errors.append(error)
