"""The backfill: history up to the high-water mark of its start: contacts, orders, the log, then week tags."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import anyio

from kiva_stream.activecampaign.client import Client
from kiva_stream.commands.backfill_report import BackfillRequest, Summary
from kiva_stream.commands.outcome_equation import Equation, equation_of
from kiva_stream.model.positions import DAY1, HighWaterMark
from kiva_stream.observability.incidents import Incidents
from kiva_stream.observability.progress import OnProgress, Progress
from kiva_stream.pipeline.checkpoint import Checkpoint
from kiva_stream.pipeline.pipeline import Pipeline
from kiva_stream.runtime.assembly import Assembly, held
from kiva_stream.runtime.garbage import garbage_collected_rarely
from kiva_stream.runtime.shop import open_shop
from kiva_stream.runtime.shutdown import GracefulShutdown
from kiva_stream.runtime.start_position import Start, mark_of, start_of
from kiva_stream.settings.sections import Settings
from kiva_stream.state.incidents import SiteIncidents
from kiva_stream.state.status import read_status
from kiva_stream.state.store import Store

PROGRESS_EVERY_S = 1.0
RATE_OVER_S = 10  # the rate shown is that of the last seconds


async def backfill(settings: Settings, request: BackfillRequest, on_progress: OnProgress) -> Summary:
    """Carry the history, and return what was done. A signal drains it; the summary says so.

    Raises SettingsError, SourceError, AccountRefused, CheckpointError, HeldError, DrainTimeoutError, or
    ExceptionGroups of them.
    """
    troubles = Incidents()
    async with (
        open_shop(settings, troubles=troubles) as shop,
        Store.open(settings.state) as store,
        Client(settings.activecampaign, troubles=troubles) as client,
    ):
        await store.require_version()
        kept = troubles.kept_in(SiteIncidents(store, shop.site.id))
        async with held(settings, shop, store, client) as assembly, kept:
            run = BackfillRun(settings, assembly)
            stopping = GracefulShutdown(run.drain, settings.pipeline.drain_timeout_s)
            async with anyio.create_task_group() as group:
                group.start_soon(run.report, on_progress)
                await stopping.run(lambda: run.go(request))
                group.cancel_scope.cancel()
            on_progress(run.progress(run.per_second()))
            return await run.summary(stopping.signal)


class BackfillRun:
    """One run of a backfill."""

    def __init__(self, settings: Settings, assembly: Assembly) -> None:
        self._settings = settings
        self._assembly = assembly
        self._before_events = anyio.CancelScope()
        self._after_events = anyio.CancelScope()
        self._pipeline: Pipeline | None = None
        self._checkpoint: Checkpoint | None = None
        self._began_at = time.monotonic()
        self._totals: dict[str, int] = {}
        self._done = {"contacts": 0, "orders": 0, "tags": 0}
        self._after = DAY1
        self._phase = "contacts"

    async def go(self, request: BackfillRequest) -> None:
        """Do it; return early after a drain."""
        mark = None
        with self._before_events:
            start, mark = await self._begin(request)
            await self._snapshot(mark)
            self._pipeline, self._checkpoint = await self._assembly.pipeline(start, self._assembly.once())
        if mark is None or self._pipeline is None:
            return
        await self._events(self._pipeline, mark)
        if self._after_events.cancel_called:
            return
        with self._after_events:
            await self._tags()
            await self._enter("done")

    async def _begin(self, request: BackfillRequest) -> tuple[Start, HighWaterMark]:
        """Find out where to begin and where to end, and note it."""
        assembly, shop = self._assembly, self._assembly.shop
        saved = await assembly.saved()
        start = await start_of(shop, saved, request.since, request.events_since)
        self._after = start.after
        mark = await mark_of(shop, start, request.until)
        await assembly.open()
        if saved is None:
            horizon = shop.log.horizon
            await assembly.ledger.begin(start.since, start.events_since, start.after, horizon=horizon)
        self._totals["contacts"] = await shop.customers.count_reachable()
        self._totals["orders"] = await shop.orders.count_paid() or 0
        self._totals["entries"] = await shop.log.count(start.after, mark.position)
        await assembly.ledger.begin_backfill(mark, self._totals["entries"])
        await assembly.ledger.forget_old_deliveries(self._settings.state.ledger_keep_days, start.after)
        return start, mark

    async def _snapshot(self, mark: HighWaterMark) -> None:
        """Bring all contacts, then all orders."""
        assembly = self._assembly
        await assembly.contacts.snapshot(mark.position, self._counting("contacts"))
        await assembly.ledger.count_contacts()
        await self._enter("orders")
        await assembly.orders.snapshot(self._counting("orders"))

    async def _events(self, pipeline: Pipeline, mark: HighWaterMark) -> None:
        """Run the pipeline, which a drain lets finish what is in flight."""
        await self._enter("events")
        with garbage_collected_rarely():
            async with self._assembly.contacts.working():
                await pipeline.run(mark)
        await self._assembly.ledger.count_contacts()

    async def _tags(self) -> None:
        await self._enter("tags")
        await self._assembly.tags.look_at_week()
        await self._assembly.tags.sync_due()

    async def _enter(self, phase: str) -> None:
        self._phase = phase
        await self._assembly.ledger.set_phase(phase)

    def _counting(self, phase: str) -> Callable[[int], None]:
        def count(done: int) -> None:
            self._done[phase] += done

        return count

    def drain(self) -> None:
        """Let what is in flight finish, and `go` return."""
        self._before_events.cancel()
        self._after_events.cancel()
        if self._pipeline is not None:
            self._pipeline.drain()

    async def report(self, on_progress: OnProgress) -> None:
        """Tell how far it has come, once a second, until cancelled."""
        seen: deque[tuple[float, int]] = deque(maxlen=RATE_OVER_S)
        while True:
            now = self.progress(0.0)
            if seen and seen[-1][1] > now.done:  # another phase
                seen.clear()
            seen.append((time.monotonic(), now.done))
            (first_at, first), (last_at, last) = seen[0], seen[-1]
            on_progress(self.progress((last - first) / (last_at - first_at) if last_at > first_at else 0.0))
            await anyio.sleep(PROGRESS_EVERY_S)

    def per_second(self) -> float:
        """Return the entries a second that got their outcome, over the whole run."""
        outcomes = self._checkpoint.statistics().outcomes if self._checkpoint else 0
        return outcomes / (time.monotonic() - self._began_at)

    def progress(self, per_second: float) -> Progress:
        """Return how far it has come."""
        statistics = self._checkpoint.statistics() if self._checkpoint else None
        return Progress(
            phase=self._phase,
            entries_read=statistics.read if statistics else 0,
            outcomes=statistics.outcomes if statistics else 0,
            events_sent=statistics.events if statistics else 0,
            contacts_done=self._done["contacts"],
            orders_done=self._done["orders"],
            watermark=statistics.watermark if statistics else self._after,
            per_second=per_second,
            entries_total=self._totals.get("entries"),
            contacts_total=self._totals.get("contacts"),
            orders_total=self._totals.get("orders"),
        )

    async def summary(self, signal: int | None) -> Summary:
        """Return what was done."""
        assembly, requests = self._assembly, dict(self._assembly.client.requests)
        status = await read_status(assembly.store, assembly.shop.site.id)
        if status is None:  # stopped before there was a checkpoint
            return Summary(Equation.of({}, 0), 0, 0.0, {}, {}, requests, stopped_by=signal)
        is_done = self._phase == "done"
        return Summary(
            equation=equation_of(status),
            entries=self._checkpoint.statistics().outcomes if self._checkpoint else 0,
            seconds=time.monotonic() - self._began_at,
            events=status.events,
            contacts=status.contacts,
            orders=status.orders,
            requests=requests,
            notes=status.notes,
            stopped_by=None if is_done else signal,
            obstacle=await assembly.shop.log.obstacle(status.watermark) if is_done else None,
        )
