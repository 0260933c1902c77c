"""`follow`: deliver what is left of the log, then new entries as they appear, for ever. systemd runs this.

A round begins with a snapshot of all contacts and orders, and follows the log for `full_sweep_s`. Every
`poll_interval_s` it reads what the shop changed, then the entries that have become old enough. Week tags are
swapped in the background all the time.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from datetime import datetime
from functools import partial

import anyio

from kiva_stream.errors import AccountRefused, HeldError, IdsChanged
from kiva_stream.model.bounds import Bound
from kiva_stream.model.checkpoint import SavedCheckpoint
from kiva_stream.model.positions import Position
from kiva_stream.observability.incidents import Incidents
from kiva_stream.observability.logs import log
from kiva_stream.observability.systemd import SystemdNotifier
from kiva_stream.pipeline.checkpoint import Checkpoint
from kiva_stream.runtime.garbage import garbage_collected_rarely
from kiva_stream.runtime.held_site import HeldSite, hold_site
from kiva_stream.runtime.id_order import IdOrder, read_by
from kiva_stream.runtime.lease_wait import held_when_free, report_wait
from kiva_stream.runtime.log_tail import ChangeTail, LogTail
from kiva_stream.runtime.shop import Shop, open_shop
from kiva_stream.runtime.shutdown import Drain, GracefulShutdown
from kiva_stream.runtime.start_position import all_up_to, start_of
from kiva_stream.runtime.working_site import WorkingSite
from kiva_stream.settings.sections import Settings, SourceSettings
from kiva_stream.source.source import FOLLOWING_WAITS_S
from kiva_stream.state.store import Store

SLACK_S = 30.0  # without a poll, beyond two polls, before the watchdog is no longer notified
FOR_EVER = all_up_to(Position(2**63 - 1, 2**63 - 1))


async def follow(settings: Settings, since: Bound | None, *, wait: bool) -> GracefulShutdown:
    """Follow the log until a signal; return how it was shut down.

    Raises SettingsError, SourceError, AccountRefused, CheckpointError, DrainTimeoutError, HeldError (with
    `wait` only if the lease is lost later), or ExceptionGroups of them.
    """
    service = Service(settings)
    shutdown = GracefulShutdown(service.drain, settings.pipeline.drain_timeout_s)
    await shutdown.run(partial(service.go, since, wait=wait))
    return shutdown


class Service:
    """The service from its start: it waits for the shop's database, then runs until a drain ends it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._start = Drain()
        self._run: ServiceRun | None = None

    async def go(self, since: Bound | None, *, wait: bool) -> None:
        """Follow until drained. A drain before the run has begun ends the wait."""
        async with AsyncExitStack() as stack:
            self._run = await self._start.interrupt(partial(self._open, stack))
            if self._run is not None:
                await self._run.go(since, wait=wait)

    def drain(self) -> None:
        """Let what is in flight finish, and `go` return."""
        if self._run is None:
            self._start.begin()
        else:
            self._run.drain()

    async def _open(self, stack: AsyncExitStack) -> ServiceRun:
        settings, incidents = self._settings, Incidents()
        shop = await stack.enter_async_context(
            open_shop(settings, waits_s=FOLLOWING_WAITS_S, incidents=incidents, is_patient=True)
        )
        store = await stack.enter_async_context(Store.open_migrated(settings.state, incidents))
        return ServiceRun(settings, shop=shop, store=store, incidents=incidents)


class ServiceRun:
    """One run of the service, which a drain ends."""

    def __init__(self, settings: Settings, *, shop: Shop, store: Store, incidents: Incidents) -> None:
        self._settings = settings
        self._shop = shop
        self._store = store
        self._incidents = incidents
        self._notifier = SystemdNotifier()
        self._drain = Drain()
        self._liveness = Liveness(settings.source, incidents)
        self._is_ready = anyio.Event()
        self._end_round: Callable[[], None] = _nothing  # of the newest one
        self._error: Exception | None = None  # of the week tags, which are swapped in the background

    async def go(self, since: Bound | None, *, wait: bool) -> None:
        """Follow until drained."""
        async with anyio.create_task_group() as watching:
            watching.start_soon(self._watch)
            await self._drain.interrupt(partial(self._hold, since, wait=wait))
            watching.cancel_scope.cancel()
        if self._error is not None:
            raise self._error

    def drain(self) -> None:
        """Let what is in flight finish, and `go` return."""
        self._notifier.stopping()
        self._drain.begin()

    async def _hold(self, since: Bound | None, *, wait: bool) -> None:
        holding = partial(
            hold_site,
            self._settings,
            self._shop,
            self._store,
            incidents=self._incidents,
            retry_refused_s=self._settings.activecampaign.retry_refused_s,
        )
        async with held_when_free(holding, self._report_wait, wait=wait) as held:
            self._report_ready()
            while not self._drain.has_begun:
                await self._work(await self._begin(held, since))

    async def _work(self, site: WorkingSite) -> None:
        """Follow in rounds, and swap week tags, until a drain or until the account has other ids."""
        async with anyio.create_task_group() as background:
            background.start_soon(self._swap_tags, site)
            with suppress(IdsChanged):
                while not self._drain.has_begun:
                    await self._unless_refused("entries", partial(self._round, site))
            background.cancel_scope.cancel()

    def _report_ready(self) -> None:
        self._notifier.ready()
        self._is_ready.set()

    async def _watch(self) -> None:
        """Notify systemd's watchdog from the end of the start on."""
        await self._is_ready.wait()
        await self._notifier.watchdog(self._liveness.is_alive)

    def _report_wait(self, error: HeldError) -> None:
        """Report that another process holds the site. For systemd, the start is done by then."""
        report_wait(error)
        self._report_ready()
        self._notifier.status(f"waiting: {error}")

    async def _begin(self, held: HeldSite, since: Bound | None) -> WorkingSite:
        """Load the checkpoint, or create one."""
        saved = await held.saved()
        start = await start_of(held.shop, saved, since=since, events_since=None)
        log.info("following", after=str(start.watermark), since=start.since)
        site = await WorkingSite.open(held, is_live=True)
        if saved is None:
            await held.ledger.begin(start)
        return site

    async def _round(self, site: WorkingSite) -> None:
        """Sync all contacts and orders, then follow the log until it is time to do so again.

        Raises IdsChanged if the account has other ids by now than those in use.
        """
        await site.ids_in_use.require_same()
        self._notifier.status("comparing all contacts and orders")
        shop, ledger, saved = site.shop, site.held.ledger, await site.held.saved()
        assert saved is not None  # noqa: S101  `_begin` created it
        changed_at, mark = await shop.changes.now(), await shop.horizon.high_water_mark()
        await ledger.begin_sweep()
        await site.contacts.snapshot(mark.position, _ignore)
        await ledger.count_contacts()
        await site.mark_dirty(await site.orders.snapshot(_ignore))
        await self._follow(site, saved, changed_at)

    async def _follow(self, site: WorkingSite, saved: SavedCheckpoint, changed_at: datetime) -> None:
        """Follow the log for one round."""
        run = await site.resume(saved)
        settings = self._settings.source
        tail = LogTail(
            site.shop.log,
            horizon=site.shop.horizon,
            changes=ChangeTail(site.shop.changes, changed_at, settings.updated_overlap_s),
            settings=settings,
            for_s=settings.full_sweep_s,
            on_poll=partial(self._polled, site, run.checkpoint),
            reopened=site.reopened(),
            id_order=IdOrder(site.shop.horizon, read_by(saved, changed_at), self._incidents),
            incidents=self._incidents,
            is_full=lambda: run.checkpoint.is_full,
        )
        pipeline = await run.pipeline(tail)
        self._end_round = pipeline.drain
        await site.held.ledger.set_phase("follow")
        with (
            self._drain.stops_by(pipeline.drain),
            self._liveness.polling(lambda: run.checkpoint.is_pending or tail.is_yielding),
            garbage_collected_rarely(),
        ):
            async with site.contacts.working():
                await pipeline.run(FOR_EVER)

    async def _polled(self, site: WorkingSite, checkpoint: Checkpoint, read_at: datetime | None) -> None:
        """Note that the log is polled. What could be read at `read_at` has been yielded."""
        self._liveness.polled()
        if read_at is not None and not checkpoint.is_pending:
            await site.held.ledger.set_caught_up(read_at)
        now = checkpoint.statistics()
        self._notifier.status(f"at {now.watermark}; {now.outcomes:,} entries since the start of this round")

    async def _swap_tags(self, site: WorkingSite) -> None:
        """Swap week tags in the background. An error begins a drain, and is raised when that has ended.

        When they were refused, and the account has other ids by now, the round ends: the next one has these.
        """
        every_s = self._settings.source.poll_interval_s
        try:
            while True:
                try:
                    await self._unless_refused("week tags", partial(site.tags.run, every_s))
                    await site.ids_in_use.require_same()
                except IdsChanged:
                    self._end_round()
                    await anyio.sleep_forever()  # until the round has ended
        except Exception as error:  # noqa: BLE001  `go` raises it
            self._error = error
            self.drain()

    async def _unless_refused(self, reporter: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do some work. If ActiveCampaign refuses the account meanwhile, wait, so that it can be done again.

        A refused call is repeated by the client. What is raised here is a refusal that many answers show.
        Raises IdsChanged if the account has other ids.
        """
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._resolve_later, reporter)
                await work()
                self._incidents.resolve("key", reporter)
                group.cancel_scope.cancel()
        except ExceptionGroup as errors:
            if errors.split((AccountRefused, IdsChanged))[1] is not None:
                raise
            if changed := errors.subgroup(IdsChanged):
                raise _first(changed) from None
            if not self._drain.has_begun:
                self._incidents.open("key", str(_first(errors)), reporter)
                await anyio.sleep(self._settings.activecampaign.retry_refused_s)

    async def _resolve_later(self, reporter: str) -> None:
        """Resolve the incident of an earlier refusal once the work has lasted for as long as a wait."""
        await anyio.sleep(self._settings.activecampaign.retry_refused_s)
        self._incidents.resolve("key", reporter)


class Liveness:
    """Whether the service makes progress: it has to poll the log, unless it waits for something else."""

    def __init__(self, settings: SourceSettings, incidents: Incidents) -> None:
        page_s = settings.page_rows / settings.max_rows_per_s if settings.max_rows_per_s else 0.0
        self._patience_s = SLACK_S + 2 * (settings.poll_interval_s + page_s) + settings.customer_settle_s
        self._incidents = incidents
        self._is_waiting: Callable[[], bool] = _always
        self._polled_at = time.monotonic()

    def polled(self) -> None:
        """Note that the log is polled."""
        self._polled_at = time.monotonic()

    @contextmanager
    def polling(self, is_waiting: Callable[[], bool]) -> Iterator[None]:
        """Expect polls while the block lasts, unless `is_waiting`."""
        self.polled()
        self._is_waiting = is_waiting
        try:
            yield
        finally:
            self._is_waiting = _always

    def is_alive(self) -> bool:
        """Return whether the log was polled lately, or something else is waited for."""
        is_source_away = any(incident.kind == "source" for incident in self._incidents.all())
        is_late = time.monotonic() - self._polled_at >= self._patience_s
        return self._is_waiting() or is_source_away or not is_late


def _always() -> bool:
    """Return True: outside of `polling`, the service waits for something else, as a snapshot or the lease."""
    return True


def _first(error: Exception) -> Exception:
    """Return the first error of a group."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _nothing() -> None:
    """Do nothing."""


def _ignore(_count: int) -> None:
    """No-op progress callback."""
