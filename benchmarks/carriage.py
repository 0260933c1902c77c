"""The pipeline in this process, timed: source and state are real, contacts are there at once."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from statistics import mean
from typing import Any, NamedTuple

from benchmarks.calibration import Pieces
from benchmarks.slowing import shares, slowed
from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.events import Events as HttpEvents
from kiva_stream.model.bulk_imports import AcceptedImport, ImportReport, ImportState
from kiva_stream.model.checkpoint import SavedCheckpoint
from kiva_stream.model.contacts import DesiredContact
from kiva_stream.model.ids import AcId, Email
from kiva_stream.model.positions import DAY1, HighWaterMark
from kiva_stream.observability.incidents import Incidents
from kiva_stream.pipeline.checkpoint import Checkpoint
from kiva_stream.pipeline.classification import classifier_of
from kiva_stream.pipeline.parked_bound import ParkedBound
from kiva_stream.pipeline.pipeline import Pipeline
from kiva_stream.ports.destination import Events
from kiva_stream.runtime.garbage import garbage_collected_rarely
from kiva_stream.runtime.shop import Shop, open_shop
from kiva_stream.settings.sections import Settings
from kiva_stream.state.held_records import StoredHeldRecords
from kiva_stream.state.leases import Lease, hold
from kiva_stream.state.ledger import SiteLedger
from kiva_stream.state.links import ContactLinks
from kiva_stream.state.store import Store
from kiva_stream.state.tags import DueTags
from kiva_stream.sync.contact_locks import ContactLocks
from kiva_stream.sync.contact_moves import ContactMoves
from kiva_stream.sync.contact_ports import ContactPorts
from kiva_stream.sync.contact_refusals import ContactRefusals
from kiva_stream.sync.contact_sync import ContactSync
from kiva_stream.sync.contact_writes import ContactWrites
from kiva_stream.sync.held_records import HeldRecords
from kiva_stream.sync.lone_requests import ContactRequests, TagRequests
from kiva_stream.sync.order_kind import order_kind

CONTACTS_PER_IMPORT = 250
EventsOf = Callable[[Checkpoint], Events]  # what sends the events of a run
Sink = Callable[[Lease], AbstractAsyncContextManager[EventsOf]]
NOBODY: Any = None  # whom nothing is asked of: no address changes, and after a snapshot every order is there


class Spent(NamedTuple):
    """What some entries took."""

    entries: int
    seconds: float
    cpu_s: float  # of this process
    piece_cpu_s: float = math.nan  # of a piece of the calibration, where some were done meanwhile

    @property
    def per_second(self) -> float:
        """Entries a second."""
        return self.entries / self.seconds

    @property
    def cpu_us(self) -> float:
        """Processor time in µs an entry."""
        return self.cpu_s / self.entries * 1e6

    @property
    def ratio(self) -> float:
        """How many pieces of the calibration take as long as a thousand entries."""
        return self.cpu_s / self.piece_cpu_s / self.entries * 1_000


class Stopwatch:
    """Runs from its creation."""

    def __init__(self) -> None:
        self._began = time.monotonic(), time.process_time()

    def spent(self, entries: int, pieces: Pieces | None = None) -> Spent:
        """Return the time since then, without that of pieces of the calibration, and of how many entries."""
        wall, cpu = self._began
        seconds, cpu_s = time.monotonic() - wall, time.process_time() - cpu
        if pieces is None or not pieces.all_s:
            return Spent(entries, seconds, cpu_s)
        besides_s = sum(pieces.all_s)
        return Spent(entries, seconds - besides_s, cpu_s - besides_s, mean(pieces.counted_s))


class InstantEvents:
    """Implements `ports.Events`: takes every event at once."""

    async def send(self, email: Email, name: str, eventdata: str, *, is_suspect: bool = False) -> None:
        """Take one."""


class InstantAccount:
    """Implements `ports.Contacts` as far as a snapshot goes: an account that takes every contact at once."""

    def __init__(self) -> None:
        self._imports = count()

    async def answers(self) -> bool:
        """Return that reads are answered."""
        return True

    async def start_import(self, contacts: Sequence[DesiredContact], **_: object) -> AcceptedImport:  # noqa: ARG002  a port
        """Import them."""
        return AcceptedImport(str(next(self._imports)), is_short=False)

    async def import_report(self, import_id: str) -> ImportReport:  # noqa: ARG002  a port
        """Say that it is done."""
        return ImportReport(ImportState.COMPLETED)

    def count_fitting(self, contacts: Sequence[DesiredContact]) -> int:
        """Take as many as ActiveCampaign does."""
        return min(len(contacts), CONTACTS_PER_IMPORT)

    async def page(self, after: AcId) -> dict[Email, AcId]:  # noqa: ARG002  a port
        """Have nobody whose id is to be learned."""
        return {}


@asynccontextmanager
async def _nothing() -> AsyncIterator[Pieces]:
    """Do nothing meanwhile."""
    yield Pieces([], [])


async def read_and_drop(settings: Settings) -> Spent:
    """Read a whole log as the producer does, and do nothing with it."""
    async with open_shop(settings) as shop:
        mark = await shop.horizon.high_water_mark()
        watch = Stopwatch()
        with garbage_collected_rarely():  # as where it is carried
            entries = [len(page) async for page in shop.log.pages(DAY1, mark)]
        return watch.spent(sum(entries))


@asynccontextmanager
async def instantly(_lease: Lease) -> AsyncIterator[EventsOf]:
    """Give what takes every event at once."""
    yield lambda _checkpoint: InstantEvents()


def over_http(settings: Settings) -> Sink:
    """Return a way to send events as `backfill` sends them: fenced by its lease, ended by a drain."""

    @asynccontextmanager
    async def connected(lease: Lease) -> AsyncIterator[EventsOf]:
        limits = settings.activecampaign
        async with Client(limits, fencing=lease) as client:
            yield lambda checkpoint: HttpEvents(
                limits,
                client,
                sleep=checkpoint.draining.sleep,
                unless_drained=checkpoint.draining.unless_drained,
            )

    return connected


async def carry(
    settings: Settings,
    sink: Sink,
    meanwhile: Callable[[], AbstractAsyncContextManager[Pieces]] = _nothing,
) -> Spent:
    """Carry a whole log, into a new state; what comes before the first event is not timed.

    Nor are the pieces of a calibration that are done `meanwhile`.
    """
    async with open_shop(settings) as shop, Store.open(settings.state) as store:
        await store.migrate()
        held = hold(store, shop.site.id, "bench", lease_s=settings.state.lease_s)
        async with held as lease, sink(lease) as events_of:
            ledger = SiteLedger(store, lease, shop.site.id)
            await ledger.bind("bench", "https://nowhere.example/")
            await ledger.begin(SavedCheckpoint("day1", None, DAY1))
            mark = await shop.horizon.high_water_mark()
            pipeline, checkpoint = await _pipeline(
                settings, shop, store=store, ledger=ledger, events_of=events_of, mark=mark
            )
            watch = Stopwatch()
            with garbage_collected_rarely(), slowed(shares()):
                async with meanwhile() as pieces:
                    await pipeline.run(mark)
            return watch.spent(checkpoint.statistics().read, pieces)


async def _pipeline(
    settings: Settings,
    shop: Shop,
    *,
    store: Store,
    ledger: SiteLedger,
    events_of: EventsOf,
    mark: HighWaterMark,
) -> tuple[Pipeline, Checkpoint]:
    """Return what `backfill` builds, with every contact linked and every order there."""
    limits = settings.activecampaign
    links = ContactLinks(store, shop.site.id, settings.source.customer_cache_rows)
    held = HeldRecords(StoredHeldRecords(store, shop.site.id), (), limits.retry_held_s)
    contacts = await _contacts(settings, shop, store=store, links=links, held=held, mark=mark)
    checkpoint = Checkpoint(
        ledger,
        DAY1,
        window=settings.pipeline.window,
        max_in_flight=limits.max_in_flight,
        parked_max=settings.state.parked_max_entries,
        commit_interval_s=settings.state.commit_interval_ms / 1000,
    )
    pipeline = Pipeline(
        settings,
        log=shop.log,
        entries=shop.log,
        classify=classifier_of(shop.site),
        links=links,
        dead_letters=ledger,
        contact_delivery=contacts,
        events=events_of(checkpoint),
        lookup=None,
        checkpoint=checkpoint,
        held=held,
        bound=ParkedBound(
            ledger, most=settings.state.parked_max_entries, is_full=_never, incidents=Incidents()
        ),
    )
    return pipeline, checkpoint


def _never() -> bool:
    return False


async def _contacts(
    settings: Settings,
    shop: Shop,
    *,
    store: Store,
    links: ContactLinks,
    held: HeldRecords,
    mark: HighWaterMark,
) -> ContactSync:
    """Return contact sync with its snapshot taken, so that nothing more is asked of the account."""
    limits = settings.activecampaign
    account: Any = InstantAccount()
    ports = ContactPorts(
        customers=shop.customers,
        links=links,
        orders=shop.orders,
        order_delivery=NOBODY,
        weeks=shop.weeks,
        due=DueTags(store, shop.site.id),
        contacts=account,
        alone=ContactRequests(account, limits.retry_held_s),
        tags=TagRequests(NOBODY, account, limits.retry_held_s),
        locks=ContactLocks(),
        held=held,
    )
    refusals = ContactRefusals(links, Incidents(), limits.retry_refused_s)
    contacts = ContactSync(
        shop.site,
        ports,
        writes=ContactWrites(ports, limits, refusals=refusals, sleep=_no_time),
        refusals=refusals,
        order_kind=order_kind(Incidents(), limits.retry_refused_s),
        moves=ContactMoves(shop.site.id, ports),
        settings=limits,
    )
    await contacts.snapshot(mark.position, lambda _: None)
    return contacts


async def _no_time(_seconds: float) -> None:
    """Wait for nothing."""
