"""The pipeline: producer → classifier → batcher → sender → checkpoint, joined by bounded streams.

Wiring only. It ends as a cascade of closes: the producer closes its stream at the mark, each stage closes
its own when the one before it did, the senders end with the last batch, and the checkpoint commits once
more. A drain starts in the middle of the same cascade: the stages before the senders are cancelled (what
they hold is read again by the next run), no event gets a slot any more, and those in flight finish. A stage
that fails starts a drain too: an event whose answer nobody waited for would be of unknown outcome.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import anyio
from anyio.abc import TaskGroup

from kiva_stream.model.deliveries import Batch
from kiva_stream.model.entries import Entry
from kiva_stream.model.pages import ClassifiedPage, Page
from kiva_stream.model.positions import HighWaterMark
from kiva_stream.pipeline.batcher import Batcher
from kiva_stream.pipeline.checkpoint import Checkpoint
from kiva_stream.pipeline.classification import Classify, classify_pages
from kiva_stream.pipeline.duplicates import Duplicates
from kiva_stream.pipeline.lanes import Lanes
from kiva_stream.pipeline.producer import produce
from kiva_stream.pipeline.revivals import Revivals
from kiva_stream.pipeline.sender import Again, Sender
from kiva_stream.ports.destination import Events
from kiva_stream.ports.source import Entries, Log
from kiva_stream.ports.stages import ContactDelivery, DeliveryLookup
from kiva_stream.ports.state import ContactDeadLetters, Links
from kiva_stream.settings.sections import Settings

LOOK_EVERY_S = 1.0
WELL_AFTER_S = 5.0


class Pipeline:
    """Carries the log from the checkpoint to a mark. For one run.

    `look_up` finds events whose answer was lost; without one they are sent again. While the account
    `is_down`, all wait for the same, and nobody is parked.
    """

    def __init__(
        self,
        settings: Settings,
        log: Log,
        entries: Entries,
        classify: Classify,
        links: Links,
        dead_letters: ContactDeadLetters,
        arrivals: ContactDelivery,
        events: Events,
        look_up: DeliveryLookup | None,
        checkpoint: Checkpoint,
        is_down: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._log = log
        self._classify = classify
        self._checkpoint = checkpoint
        self._errors: list[Exception] = []
        self._upstream = anyio.CancelScope()
        self._is_down = is_down
        self._lanes = lanes = Lanes(checkpoint.park)
        duplicates = Duplicates(settings.pipeline.window, settings.pipeline.duplicate_window_s)
        revivals = Revivals(dead_letters, entries, classify, checkpoint)
        self._batcher = Batcher(links, arrivals, checkpoint, revivals, duplicates, lanes)
        again = Again(look_up, settings.activecampaign.lookup_settle_s, settings.activecampaign.backoff_max_s)
        self._sender = Sender(arrivals, events, checkpoint, lanes.next, again)

    def remember(self, entries: Iterable[Entry]) -> None:
        """Take in entries before the checkpoint, in log order: only for telling duplicates of them."""
        self._batcher.remember((entry, self._classify(entry)) for entry in entries)

    async def run(self, mark: HighWaterMark) -> None:
        """Return when every entry up to the mark has its outcome, or after a drain.

        Raises an ExceptionGroup of SourceError, CheckpointError, AccountRefused.
        """
        async with anyio.create_task_group() as commits:
            commits.start_soon(self._checkpoint.run)
            try:
                async with anyio.create_task_group() as parking:
                    parking.start_soon(self._park_waiting)
                    await self._stages(mark)
                    parking.cancel_scope.cancel()
            finally:
                self._checkpoint.close()
        if self._errors:
            raise ExceptionGroup("the pipeline failed", self._errors)

    @property
    def is_draining(self) -> bool:
        """Whether a drain was asked for."""
        return self._upstream.cancel_called

    def drain(self) -> None:
        """Let what is in flight finish, and `run` return."""
        self._upstream.cancel()
        self._checkpoint.drain()

    async def _stages(self, mark: HighWaterMark) -> None:
        size = self._settings.pipeline.queue_chunks
        pages_in, pages_out = anyio.create_memory_object_stream[Page](size)
        classified_in, classified_out = anyio.create_memory_object_stream[ClassifiedPage](size)
        window = self._settings.pipeline.window  # entries are no more batches than that: no page waits whole
        batches_in, batches_out = anyio.create_memory_object_stream[Batch](window)
        async with anyio.create_task_group() as senders, batches_out:
            for _ in range(self._senders):
                senders.start_soon(self._or_drain, senders, self._sender.run, batches_out.clone())
            with self._upstream:
                start = self._checkpoint.position
                async with anyio.create_task_group() as upstream:
                    for stage in (
                        partial(produce, self._log, self._checkpoint, start, mark, pages_in),
                        partial(classify_pages, self._classify, pages_out, classified_in),
                        partial(self._batcher.run, classified_out, batches_in),
                    ):
                        upstream.start_soon(self._or_drain, senders, stage)

    async def _or_drain(
        self, senders: TaskGroup, stage: Callable[..., Awaitable[None]], *arguments: object
    ) -> None:
        """Run a stage; when it fails, keep the error, and drain for as long as a drain may take."""
        try:
            await stage(*arguments)
        except Exception as error:  # noqa: BLE001  it is raised when the drain has ended
            if not self._errors:
                patience_s = self._settings.pipeline.drain_timeout_s
                senders.cancel_scope.deadline = anyio.current_time() + patience_s
                self.drain()
            self._errors.append(error)

    async def _park_waiting(self) -> None:
        """Park whoever waits long for an answer of their own, so that the watermark passes them.

        While the account is down all wait for the same, and a little after it all get their answers.
        """
        well_since = anyio.current_time()
        while True:
            await anyio.sleep(LOOK_EVERY_S)
            now = anyio.current_time()
            if self._is_down():
                well_since = now
            elif now - well_since >= WELL_AFTER_S:
                self._lanes.park_waiting(now)

    @property
    def _senders(self) -> int:
        return self._settings.activecampaign.max_in_flight
