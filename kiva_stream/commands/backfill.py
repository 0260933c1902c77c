"""The backfill: history up to the high-water mark of its start: contacts, orders, the log, then week tags."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import anyio

from kiva_stream.commands.backfill_report import BackfillRequest, Summary
from kiva_stream.commands.held import left_sentence
from kiva_stream.commands.outcome_equation import equation_of
from kiva_stream.errors import AccountRefused, IdsChanged
from kiva_stream.model.checkpoint import SavedCheckpoint
from kiva_stream.model.positions import DAY1, HighWaterMark, Position
from kiva_stream.observability.incidents import Incidents
from kiva_stream.observability.logs import log
from kiva_stream.observability.progress import OnProgress, Progress
from kiva_stream.pipeline.checkpoint import CheckpointStatistics
from kiva_stream.pipeline.pipeline import Pipeline
from kiva_stream.runtime.garbage import garbage_collected_rarely
from kiva_stream.runtime.held_site import HeldSite, hold_site
from kiva_stream.runtime.id_order import require_ids_go_on
from kiva_stream.runtime.lease_wait import held_when_free, report_wait
from kiva_stream.runtime.shop import open_shop
from kiva_stream.runtime.shutdown import Drain, GracefulShutdown
from kiva_stream.runtime.start_position import mark_of, start_of
from kiva_stream.runtime.working_site import WorkingSite
from kiva_stream.settings.sections import Settings
from kiva_stream.state.status import read_status
from kiva_stream.state.store import Store

PROGRESS_EVERY_S = 1.0
RATE_OVER_S = 10  # the rate shown is that of the last seconds


async def backfill(
    settings: Settings, request: BackfillRequest, on_progress: OnProgress, *, wait: bool = False
) -> Summary:
    """Deliver the history, and return what was done. A signal drains it; the summary says so.

    Raises SettingsError, SourceError, AccountRefused, CheckpointError, DrainTimeoutError, HeldError (with
    `wait` only if the lease is lost later), or ExceptionGroups of them.
    """
    incidents = Incidents()
    async with (
        open_shop(settings, incidents=incidents) as shop,
        Store.open_migrated(settings.state, incidents) as store,
    ):
        process = BackfillProcess(
            partial(hold_site, settings, shop, store, incidents=incidents),
            settings.pipeline.drain_timeout_s,
            on_progress,
        )
        return await process.run(request, wait=wait)


class BackfillProcess:
    """One process of a backfill: it holds the site, waits for it if told to, and runs the backfill."""

    def __init__(
        self,
        holding: Callable[[], AbstractAsyncContextManager[HeldSite]],
        drain_timeout_s: float,
        on_progress: OnProgress,
    ) -> None:
        self._holding = holding
        self._on_progress = on_progress
        self._drain = Drain()
        self._shutdown = GracefulShutdown(self._drain.begin, drain_timeout_s)
        self._meter = BackfillMeter()
        self._run: BackfillRun | None = None

    async def run(self, request: BackfillRequest, *, wait: bool) -> Summary:
        """Run to the end or until a signal; return what was done. Raises as `backfill`."""
        holding = partial(self._hold, request, wait=wait)
        await self._shutdown.run(partial(self._drain.interrupt, holding))
        if self._run is None:  # stopped while another process held the site
            return Summary.of_nothing({}, self._shutdown.signal)
        self._on_progress(self._meter.progress(self._meter.outcomes / self._meter.seconds))
        return await self._run.summary(self._shutdown.signal)

    async def _hold(self, request: BackfillRequest, *, wait: bool) -> None:
        async with held_when_free(self._holding, report_wait, wait=wait) as site:
            self._meter = BackfillMeter()  # the wait is no part of the time that the backfill took
            self._run = run = BackfillRun(site, self._drain, self._meter)
            async with anyio.create_task_group() as group:
                group.start_soon(self._meter.report, self._on_progress)
                with self._drain.stops_by(_nothing):  # from here on `run` ends itself
                    await run.go(request)
                group.cancel_scope.cancel()


def _nothing() -> None:
    """Interrupt nothing."""


class BackfillMeter:
    """How far a backfill has come: its phase, what was counted in each, and what there is to do."""

    def __init__(self) -> None:
        self.phase = "contacts"
        self._began_at = time.monotonic()
        self._done = {"contacts": 0, "orders": 0}
        self._totals: dict[str, int] = {}
        self._statistics: Callable[[], CheckpointStatistics] = partial(CheckpointStatistics, DAY1)

    def expect(self, what: str, total: int) -> None:
        """Note how many contacts, orders or entries there are."""
        self._totals[what] = total

    def enter(self, phase: str) -> None:
        """Begin a phase."""
        self.phase = phase

    def count(self, phase: str, done: int) -> None:
        """Add what was done in a phase."""
        self._done[phase] += done

    def read_from(self, statistics: Callable[[], CheckpointStatistics]) -> None:
        """Use these statistics of the log from now on."""
        self._statistics = statistics

    @property
    def outcomes(self) -> int:
        """The entries that got their outcome in this run."""
        return self._statistics().outcomes

    @property
    def seconds(self) -> float:
        """The time since the backfill began."""
        return time.monotonic() - self._began_at

    async def report(self, on_progress: OnProgress) -> None:
        """Report the progress once a second, until cancelled."""
        seen: deque[tuple[float, int]] = deque(maxlen=RATE_OVER_S)
        while True:
            now = self.progress(0.0)
            if seen and seen[-1][1] > now.done:  # another phase
                seen.clear()
            seen.append((time.monotonic(), now.done))
            (first_at, first), (last_at, last) = seen[0], seen[-1]
            on_progress(self.progress((last - first) / (last_at - first_at) if last_at > first_at else 0.0))
            await anyio.sleep(PROGRESS_EVERY_S)

    def progress(self, per_second: float) -> Progress:
        """Return how far the backfill has come."""
        watermark, read, outcomes, events = self._statistics()
        return Progress(
            phase=self.phase,
            entries_read=read,
            outcomes=outcomes,
            events_sent=events,
            contacts_done=self._done["contacts"],
            orders_done=self._done["orders"],
            watermark=watermark,
            per_second=per_second,
            entries_total=self._totals.get("entries"),
            contacts_total=self._totals.get("contacts"),
            orders_total=self._totals.get("orders"),
        )


class BackfillRun:
    """One run of a backfill, which a drain ends early."""

    def __init__(self, site: HeldSite, drain: Drain, meter: BackfillMeter) -> None:
        self._site = site
        self._drain = drain
        self._meter = meter

    async def go(self, request: BackfillRequest) -> None:
        """Run the backfill, again whenever the account has other ids by then; return early after a drain."""
        is_over = False
        while not is_over:
            try:
                await self._go(request)
                is_over = True
            except* IdsChanged:  # `WorkingSite.open` tells which
                log.info("the backfill goes on with other ids of the account")
                self._meter.enter("contacts")

    async def _go(self, request: BackfillRequest) -> None:
        prepared = await self._drain.interrupt(partial(self._prepare, request))
        if prepared is not None:
            working, pipeline, mark = prepared
            await self._deliver(working, pipeline, mark)
            await self._drain.interrupt(partial(self._swap_tags, working))

    async def _prepare(self, request: BackfillRequest) -> tuple[WorkingSite, Pipeline, HighWaterMark]:
        """Begin or resume the backfill, sync all contacts and orders, and build the pipeline."""
        site, saved = self._site, await self._site.saved()
        start = await start_of(site.shop, saved, since=request.since, events_since=request.events_since)
        if saved is not None:
            await require_ids_go_on(site.shop, saved, site.client.incidents)
        self._meter.read_from(partial(CheckpointStatistics, start.watermark))
        mark = await mark_of(site.shop, start, request.until)
        working = await WorkingSite.open(site)
        if saved is None:
            await site.ledger.begin(start)
        await self._count(start, mark)
        await self._snapshot(working, mark)
        run = await working.resume(start)
        pipeline = await run.pipeline(working.whole_log())
        self._meter.read_from(run.checkpoint.statistics)
        return working, pipeline, mark

    async def _count(self, start: SavedCheckpoint, mark: HighWaterMark) -> None:
        """Note how much there is to do, and delete deliveries from the ledger that are too old to matter."""
        site, keep_days = self._site, self._site.settings.state.ledger_keep_days
        self._meter.expect("contacts", await site.shop.customers.count_reachable())
        self._meter.expect("orders", await site.shop.orders.count_paid() or 0)
        entries = await site.shop.positions.count_or_distance(start.watermark, mark.position)
        self._meter.expect("entries", entries)
        await site.ledger.begin_backfill(mark, entries)
        await site.ledger.prune(keep_days, start.watermark)

    async def _snapshot(self, working: WorkingSite, mark: HighWaterMark) -> None:
        """Sync all contacts, then all orders."""
        await working.contacts.snapshot(mark.position, partial(self._meter.count, "contacts"))
        await self._site.ledger.count_contacts()
        await self._enter("orders")
        await working.mark_dirty(await working.orders.snapshot(partial(self._meter.count, "orders")))

    async def _deliver(self, working: WorkingSite, pipeline: Pipeline, mark: HighWaterMark) -> None:
        """Run the pipeline. A drain lets it finish what is in flight."""
        with self._drain.stops_by(pipeline.drain), garbage_collected_rarely():
            await self._enter("events")
            async with working.contacts.working():
                await pipeline.run(mark)
        await self._site.ledger.count_contacts()

    async def _swap_tags(self, working: WorkingSite) -> None:
        await self._enter("tags")
        await working.tags.open_week()
        await working.tags.sync_due()
        await working.tags.try_held_again()
        if pauses := working.pauses():
            raise AccountRefused(" ".join(pauses))
        await self._enter("done")

    async def _enter(self, phase: str) -> None:
        self._meter.enter(phase)
        await self._site.ledger.set_phase(phase)

    async def summary(self, signal: int | None) -> Summary:
        """Return what was done."""
        site, requests = self._site, dict(self._site.client.requests)
        status = await read_status(site.store, site.shop.site.id)
        if status is None:  # stopped before there was a checkpoint
            return Summary.of_nothing(requests, signal)
        is_done = self._meter.phase == "done"
        return Summary(
            equation=equation_of(status),
            entries=self._meter.outcomes,
            seconds=self._meter.seconds,
            events=status.events,
            contacts=status.contacts,
            orders=status.orders,
            requests=requests,
            notes=status.notes,
            stopped_by=None if is_done else signal,
            left=left_sentence(status.held, status.parked) if is_done else None,
            obstacle=await self._obstacle(status.watermark) if is_done else None,
        )

    async def _obstacle(self, watermark: Position) -> str | None:
        """Return what keeps the log from being read on, or whole."""
        incidents = self._site.client.incidents.all()
        incident = next((each.why for each in incidents if each.kind == "horizon"), None)
        return await self._site.shop.horizon.obstacle(watermark) or incident
