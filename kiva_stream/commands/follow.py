"""Following: what is left of the log, then what comes, for ever. What systemd runs.

It begins with a snapshot of all contacts and orders and repeats it every `full_sweep_s`; in between it looks
every `poll_interval_s` at what the shop changed, then at the entries that have become old enough. Week tags
are worked behind the entries all the time.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import datetime
from functools import partial
from typing import TypeVar

import anyio

from kiva_stream.activecampaign.client import Client
from kiva_stream.errors import AccountRefused, HeldError
from kiva_stream.model.bounds import Bound
from kiva_stream.model.positions import HighWaterMark, Position
from kiva_stream.observability.incidents import Incidents
from kiva_stream.observability.logs import log
from kiva_stream.observability.systemd import SystemdNotifier
from kiva_stream.pipeline.checkpoint import Checkpoint
from kiva_stream.pipeline.pipeline import Pipeline
from kiva_stream.runtime.assembly import FAR, Assembly, held
from kiva_stream.runtime.garbage import garbage_collected_rarely
from kiva_stream.runtime.log_tail import LogTail
from kiva_stream.runtime.shop import Shop, open_shop
from kiva_stream.runtime.shutdown import GracefulShutdown
from kiva_stream.runtime.start_position import Start, start_of
from kiva_stream.settings.sections import Settings
from kiva_stream.source.source import FOLLOWING_WAITS_S
from kiva_stream.state.incidents import SiteIncidents
from kiva_stream.state.ledger import SiteLedger
from kiva_stream.state.store import Store

T = TypeVar("T")

WAIT_S = 5.0  # between two tries to hold a site that another process holds
SLACK_S = 30.0  # beyond two polls, before systemd is left to believe that this process hangs
FOR_EVER = HighWaterMark(Position(2**63 - 1, 2**63 - 1), FAR)


async def follow(settings: Settings, since: Bound | None, *, wait: bool) -> GracefulShutdown:
    """Follow the log until a signal; return how it stopped. With `wait`, wait for who holds the site.

    Raises SettingsError, SourceError, AccountRefused, CheckpointError, HeldError, DrainTimeoutError, or
    ExceptionGroups of them.
    """
    troubles, retry_refused_s = Incidents(), settings.activecampaign.retry_refused_s
    async with (
        open_shop(settings, waits_s=FOLLOWING_WAITS_S, troubles=troubles) as shop,
        Store.open(settings.state) as store,
        Client(settings.activecampaign, retry_refused_s=retry_refused_s, troubles=troubles) as client,
    ):
        await store.require_version()
        run = FollowRun(settings, shop, store, client, troubles)
        stopping = GracefulShutdown(run.drain, settings.pipeline.drain_timeout_s)
        await stopping.run(lambda: run.go(since, wait=wait))
        return stopping


class FollowRun:
    """One run of the service."""

    def __init__(
        self, settings: Settings, shop: Shop, store: Store, client: Client, troubles: Incidents
    ) -> None:
        self._settings = settings
        self._shop = shop
        self._store = store
        self._client = client
        self._troubles = troubles
        self._notifier = SystemdNotifier()
        self._interruptible = anyio.CancelScope()
        self._is_ready = anyio.Event()
        self._source: LogTail | None = None
        self._pipeline: Pipeline | None = None
        self._checkpoint: Checkpoint | None = None
        self._is_draining = False
        self._polled_at = time.monotonic()
        self._error: Exception | None = None

    async def go(self, since: Bound | None, *, wait: bool) -> None:
        """Follow until drained."""
        async with anyio.create_task_group() as watching:
            watching.start_soon(self._watch)
            with self._interruptible:
                await self._hold(since, wait=wait)
            watching.cancel_scope.cancel()
        if self._error is not None:
            raise self._error

    def drain(self) -> None:
        """Let what is in flight finish, and `go` return."""
        self._is_draining = True
        self._notifier.stopping()
        if self._pipeline is None:
            self._interruptible.cancel()
        else:
            self._pipeline.drain()

    async def _hold(self, since: Bound | None, *, wait: bool) -> None:
        holding = partial(held, self._settings, self._shop, self._store, self._client)
        async with _held(holding, self._waits if wait else None) as assembly:
            self._tell_ready()
            kept = self._troubles.kept_in(SiteIncidents(self._store, self._shop.site.id))
            async with kept, anyio.create_task_group() as background:
                await self._begin(assembly, since)
                background.start_soon(self._work_tags, assembly)
                while not self._is_draining:
                    await self._unless_refused("entries", partial(self._round, assembly))
                background.cancel_scope.cancel()

    def _tell_ready(self) -> None:
        self._notifier.ready()
        self._is_ready.set()

    async def _watch(self) -> None:
        """Tell systemd that this process is alive, as soon as its start is done."""
        await self._is_ready.wait()
        await self._notifier.watchdog(self._is_alive)

    def _waits(self, error: HeldError) -> None:
        """Tell that another process holds the site; to systemd the start is done, however long that lasts."""
        log.info("waiting for the process that holds the site", why=str(error))
        self._tell_ready()
        self._notifier.status(f"waiting: {error}")

    async def _begin(self, assembly: Assembly, since: Bound | None) -> None:
        """Find the checkpoint, or begin one."""
        saved = await assembly.saved()
        start = await start_of(self._shop, saved, since, None)
        log.info("following", after=str(start.after), since=start.since)
        await assembly.open(is_live=True)
        if saved is None:
            horizon = self._shop.log.horizon
            await assembly.ledger.begin(start.since, start.events_since, start.after, horizon=horizon)

    async def _round(self, assembly: Assembly) -> None:
        """Bring all contacts and orders, then follow the log until it is time to do so again."""
        self._notifier.status("comparing all contacts and orders")
        shop, saved = self._shop, await assembly.saved()
        assert saved is not None  # noqa: S101  it has begun
        start = Start(saved.watermark, saved.since, saved.events_since)
        changed_at, mark = await shop.changes.now(), await shop.log.mark()
        await assembly.ledger.begin_sweep()
        await assembly.contacts.snapshot(mark.position, _unheard)
        await assembly.ledger.count_contacts()
        await assembly.orders.snapshot(_unheard)
        self._polled_at = time.monotonic()
        for_s = self._settings.source.full_sweep_s
        polled = partial(self._polled, assembly.ledger)
        self._source = source = LogTail(
            shop.log,
            shop.changes,
            self._settings.source,
            changed_at,
            for_s,
            polled,
            assembly.asides,
            self._troubles,
        )
        self._pipeline, self._checkpoint = await assembly.pipeline(start, source)
        await assembly.ledger.set_phase("follow")
        try:
            with garbage_collected_rarely():
                async with assembly.contacts.working():
                    await self._pipeline.run(FOR_EVER)
        finally:
            self._pipeline = self._checkpoint = None

    async def _work_tags(self, assembly: Assembly) -> None:
        """Work the week tags behind the entries; what goes wrong there ends all, by a drain."""
        try:
            while True:
                every_s = self._settings.source.poll_interval_s
                await self._unless_refused("week tags", partial(assembly.tags.run, every_s))
        except Exception as error:  # noqa: BLE001  it is raised when the drain has ended
            self._error = error
            self.drain()

    async def _unless_refused(self, place: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do some work; when ActiveCampaign refuses the account for it, wait, so that it can be done again.

        What a single call is refused is outlasted by the call; here comes what only many answers show.
        """
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._well_after_a_while, place)
                await work()
                self._troubles.end("key", place)
                group.cancel_scope.cancel()
        except ExceptionGroup as errors:
            if errors.split(AccountRefused)[1] is not None:
                raise
            if not self._is_draining:
                self._troubles.begin("key", str(_first(errors)), place)
                await anyio.sleep(self._settings.activecampaign.retry_refused_s)

    async def _well_after_a_while(self, place: str) -> None:
        await anyio.sleep(self._settings.activecampaign.retry_refused_s)
        self._troubles.end("key", place)

    async def _polled(self, ledger: SiteLedger, read_at: datetime | None) -> None:
        """Take in that the log is looked at again; what could be read the last time is out."""
        self._polled_at = time.monotonic()
        if self._checkpoint is None:
            return
        if read_at is not None and not self._checkpoint.is_pending:
            await ledger.set_caught_up(read_at)
        now = self._checkpoint.statistics()
        self._notifier.status(f"at {now.watermark}; {now.outcomes:,} entries since the start of this round")

    def _is_alive(self) -> bool:
        """Tell whether work goes on: the log is looked at, or something is waited for."""
        source = self._settings.source
        page_s = source.page_rows / source.max_rows_per_s if source.max_rows_per_s else 0.0
        patience_s = SLACK_S + 2 * (source.poll_interval_s + page_s) + source.customer_settle_s
        is_waiting = (
            self._checkpoint is None
            or self._source is None
            or self._checkpoint.is_pending
            or self._source.is_giving
            or any(trouble.kind == "source" for trouble in self._troubles.all())
        )
        return is_waiting or time.monotonic() - self._polled_at < patience_s


def _first(error: Exception) -> Exception:
    """Return the first of what a group holds."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _unheard(_count: int) -> None:
    """Take in how many came; nobody watches."""


@asynccontextmanager
async def _held(
    holding: Callable[[], AbstractAsyncContextManager[T]], waits: Callable[[HeldError], None] | None
) -> AsyncIterator[T]:
    """Hold the site; who waits for another process hears once of that one, who does not, raises HeldError."""
    is_waiting = False
    while True:
        async with AsyncExitStack() as stack:
            try:
                given = await stack.enter_async_context(holding())
            except HeldError as error:
                if waits is None:
                    raise
                if not is_waiting:
                    waits(error)
                    is_waiting = True
            else:
                yield given
                return
        await anyio.sleep(WAIT_S)
