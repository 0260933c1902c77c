"""The backfill: history up to the high-water mark of its start. Contacts first, then the log."""

from __future__ import annotations

import math
import time
from collections import deque
from datetime import UTC, datetime
from typing import NamedTuple

import anyio

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.contacts import Contacts
from kiva_stream.activecampaign.events import Events
from kiva_stream.app import (
    Shop,
    Stopping,
    account_name,
    account_setup,
    equation_of,
    garbage_collected_rarely,
    open_shop,
)
from kiva_stream.checkpoint import Checkpoint
from kiva_stream.classifier import Classifier
from kiva_stream.contact_sync import ContactSync
from kiva_stream.errors import SettingsError
from kiva_stream.model import DAY1, Event, HighWaterMark, Position, SavedCheckpoint
from kiva_stream.pipeline import Pipeline
from kiva_stream.reports import BackfillPlan, BackfillRequest, Bound, Equation, Summary, bound_text
from kiva_stream.settings import Settings
from kiva_stream.state.ledger import SiteLedger
from kiva_stream.state.links import ContactLinks
from kiva_stream.state.status import read_status
from kiva_stream.state.store import Store
from kiva_stream.telemetry import OnProgress, Progress

HOUR_S = 3600
PROGRESS_EVERY_S = 1.0
RATE_OVER_S = 10  # the rate shown is that of the last seconds
UNPACED_EVENTS_PER_SECOND = 1_000  # what `events_per_second = 0` is taken for in an estimate
FAR = datetime.max.replace(tzinfo=UTC)  # nothing that was read before is too young to be remembered
IMPORT_CALLS = 3  # for an import: itself, and asking twice how far it is


class Start(NamedTuple):
    """Where a backfill begins to read, and what is kept with its checkpoint."""

    after: Position
    since: str
    events_since: datetime | None


async def plan(settings: Settings, request: BackfillRequest) -> BackfillPlan:
    """Return what a backfill would do, without leaving a trace.

    Raises SettingsError, SourceError, CheckpointError, HeldError.
    """
    async with open_shop(settings) as shop, Store.open(settings.state) as store:
        saved = None
        if await store.version():
            async with store.transaction() as connection:
                ledger = SiteLedger(store, connection, shop.site.id)
                saved = await ledger.saved(account_name(settings.activecampaign))
        start = await _start(shop, request, saved)
        mark = await _mark(shop, start, request.until)
        entries = await shop.log.count(start.after, mark.position)
        contacts = await shop.customers.count_reachable()
        events = round(entries * await _event_share(shop, start, mark))
    return BackfillPlan(
        after=str(start.after),
        until=str(mark.position),
        entries=entries,
        events_about=events,
        contacts=contacts,
        hours=_hours(settings, events, contacts),
        resumes=saved is not None,
        events_since=start.events_since,
    )


async def backfill(settings: Settings, request: BackfillRequest, on_progress: OnProgress) -> Summary:
    """Carry the history, and return what was done. A signal drains it; the summary says so.

    Raises SettingsError, SourceError, AccountRefused, CheckpointError, HeldError, DrainTimeoutError, or
    ExceptionGroups of them.
    """
    async with (
        open_shop(settings) as shop,
        Store.open(settings.state) as store,
        Client(settings.activecampaign) as client,
    ):
        await store.require_version()
        async with store.hold(shop.site.id) as connection:
            ledger = SiteLedger(store, connection, shop.site.id)
            run = BackfillRun(settings, shop, store, ledger, client)
            stopping = Stopping(run.drain, settings.pipeline.drain_timeout_s)
            async with anyio.create_task_group() as group:
                group.start_soon(run.report, on_progress)
                await stopping.run(lambda: run.go(request))
                group.cancel_scope.cancel()
            on_progress(run.progress(run.per_second()))
            return await run.summary(stopping.signal)


class BackfillRun:
    """One run of a backfill: prepares, brings the contacts, then runs the pipeline."""

    def __init__(
        self, settings: Settings, shop: Shop, store: Store, ledger: SiteLedger, client: Client
    ) -> None:
        self._settings = settings
        self._shop = shop
        self._store = store
        self._ledger = ledger
        self._client = client
        self._links = ContactLinks(store, shop.site.id)
        self._before_events = anyio.CancelScope()
        self._pipeline: Pipeline | None = None
        self._checkpoint: Checkpoint | None = None
        self._began_at = time.monotonic()
        self._entries: int | None = None
        self._contacts: int | None = None
        self._contacts_done = 0
        self._after = DAY1
        self._phase = "contacts"

    async def go(self, request: BackfillRequest) -> None:
        """Do it; return early after a drain."""
        mark = None
        with self._before_events:
            mark = await self._prepare(request)
        if mark is None or self._pipeline is None:
            return
        self._phase = "events"
        await self._ledger.set_phase("events")
        with garbage_collected_rarely():
            await self._pipeline.run(mark)
        await self._ledger.count_contacts()
        if not self._pipeline.is_draining:
            self._phase = "done"
            await self._ledger.set_phase("done")

    def drain(self) -> None:
        """Let what is in flight finish, and `go` return."""
        self._before_events.cancel()
        if self._pipeline is not None:
            self._pipeline.drain()

    async def report(self, on_progress: OnProgress) -> None:
        """Tell how far it has come, once a second, until cancelled."""
        seen: deque[tuple[float, int]] = deque(maxlen=RATE_OVER_S)
        while True:
            now = self.progress(0.0)
            done = now.contacts_done if now.phase == "contacts" else now.outcomes
            if seen and seen[-1][1] > done:  # another phase
                seen.clear()
            seen.append((time.monotonic(), done))
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
            contacts_done=self._contacts_done,
            watermark=statistics.watermark if statistics else self._after,
            per_second=per_second,
            entries_total=self._entries,
            contacts_total=self._contacts,
        )

    async def summary(self, signal: int | None) -> Summary:
        """Return what was done."""
        status = await read_status(self._store, self._shop.site.id)
        if status is None:  # stopped before there was a checkpoint
            return Summary(Equation.of({}, 0), 0, 0.0, {}, {}, dict(self._client.requests), stopped_by=signal)
        return Summary(
            equation=equation_of(status),
            entries=self._checkpoint.statistics().outcomes if self._checkpoint else 0,
            seconds=time.monotonic() - self._began_at,
            events=status.events,
            contacts=status.contacts,
            requests=dict(self._client.requests),
            notes=status.notes,
            stopped_by=None if self._phase == "done" else signal,
            obstacle=await self._shop.log.obstacle(status.watermark) if self._phase == "done" else None,
        )

    async def _prepare(self, request: BackfillRequest) -> HighWaterMark:
        """Do all that comes before the first event; return how far to read."""
        settings, shop = self._settings, self._shop
        account = account_name(settings.activecampaign)
        saved = await self._ledger.saved(account)
        start = await _start(shop, request, saved)
        self._after = start.after
        mark = await _mark(shop, start, request.until)
        setup = account_setup(settings.activecampaign, self._client, shop.site)
        ids = await setup.ids()
        if saved is None:
            await self._ledger.begin(account, start.since, start.events_since, start.after)
        self._entries = await shop.log.count(start.after, mark.position)
        self._contacts = await shop.customers.count_reachable()
        await self._ledger.begin_backfill(mark, self._entries)
        await self._ledger.forget_old_deliveries(settings.state.ledger_keep_days, start.after)
        sync = ContactSync(
            shop.site.id,
            shop.customers,
            self._links,
            Contacts(settings.activecampaign, self._client, ids),
            settings.activecampaign,
        )
        await sync.snapshot(self._came)
        await self._ledger.count_contacts()
        self._pipeline = await self._build(start, sync)
        return mark

    async def _build(self, start: Start, sync: ContactSync) -> Pipeline:
        settings = self._settings
        self._checkpoint = Checkpoint(
            self._ledger,
            start.after,
            await self._ledger.settled_above(start.after),
            window=settings.pipeline.window,
            max_in_flight=settings.activecampaign.max_in_flight,
            commit_interval_s=settings.state.commit_interval_ms / 1000,
        )
        pipeline = Pipeline(
            settings,
            self._shop.log,
            Classifier(self._shop.site, start.events_since),
            self._links,
            sync,
            Events(settings.activecampaign, self._client, sleep=self._checkpoint.sleep),
            self._checkpoint,
        )
        await self._remember(pipeline, start.after)
        return pipeline

    async def _remember(self, pipeline: Pipeline, position: Position) -> None:
        """Show the pipeline what the log says up to a position, as far back as duplicates are told."""
        log = self._shop.log
        first = await log.before(position, self._settings.pipeline.window)
        async for entries in log.pages(first, HighWaterMark(position, FAR), settle=False):
            pipeline.remember(entries)

    def _came(self, contacts: int) -> None:
        self._contacts_done += contacts


async def _start(shop: Shop, request: BackfillRequest, saved: SavedCheckpoint | None) -> Start:
    events_since = None if request.events_since is None else await shop.log.midnight(request.events_since)
    since = None if request.since is None else bound_text(request.since)
    if saved is None:
        if request.since is None or since is None:
            raise SettingsError("There is no checkpoint to go on from: say --since day1, DATE or POSITION.")
        return Start(await _below(shop, request.since), since, events_since)
    _require_same("--since", since, saved.since)
    _require_same("--events-since", events_since, saved.events_since)
    return Start(saved.watermark, saved.since, saved.events_since)


def _require_same(option: str, given: object, kept: object) -> None:
    if given is not None and given != kept:
        raise SettingsError(
            f"{option} {given} is not what the checkpoint began with ({kept or 'none'}): "
            "leave it out to go on, or begin elsewhere with `rewind`."
        )


async def _below(shop: Shop, bound: Bound) -> Position:
    """Return the position just below a bound."""
    if isinstance(bound, Position):
        position = bound
    elif first := await shop.log.first_since(await shop.log.midnight(bound)):
        position = first
    else:
        return (await shop.log.mark()).position
    return Position(position.txid, position.id - 1) if position.id else position


async def _mark(shop: Shop, start: Start, until: Bound | None) -> HighWaterMark:
    mark = await shop.log.mark()
    if until is None:
        return mark
    last = await _below(shop, until)
    if last < start.after:
        raise SettingsError(
            f"--until {bound_text(until)} ends before {start.after}, from where this backfill reads on: "
            "give a later one, or leave it out."
        )
    return mark._replace(position=min(mark.position, last))


async def _event_share(shop: Shop, start: Start, mark: HighWaterMark) -> float:
    """Return about what share of the entries becomes events."""
    classifier = Classifier(shop.site, start.events_since)
    verdicts = [classifier.classify(entry) for entry in await shop.log.sample(start.after, mark.position)]
    return sum(isinstance(verdict, Event) for verdict in verdicts) / max(len(verdicts), 1)


def _hours(settings: Settings, events: int, contacts: int) -> float:
    """Return about how long it takes at the limits in the settings."""
    limits = settings.activecampaign
    imports_s = math.ceil(contacts / limits.contacts_per_import) * IMPORT_CALLS / limits.requests_per_second
    return (imports_s + events / (limits.events_per_second or UNPACED_EVENTS_PER_SECOND)) / HOUR_S
