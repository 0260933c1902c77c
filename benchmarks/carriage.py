"""The pipeline in this process, timed: source and state are real, contacts are there at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

from benchmarks.bench import Bench, History
from kiva_stream.app import Shop, garbage_collected_rarely, open_shop
from kiva_stream.checkpoint import Checkpoint
from kiva_stream.classifier import Classifier
from kiva_stream.contact_sync import ContactSync
from kiva_stream.model import DAY1, AcceptedImport, DesiredContact, Email, ImportReport, ImportState
from kiva_stream.pipeline import Pipeline
from kiva_stream.ports import Events
from kiva_stream.sandbox.process import LocalActiveCampaign
from kiva_stream.settings import Settings
from kiva_stream.state.ledger import SiteLedger
from kiva_stream.state.links import ContactLinks
from kiva_stream.state.store import Store

_schemas = (f"carriage_{number}" for number in count())


class Spent(NamedTuple):
    """What some entries took."""

    entries: int
    seconds: float
    cpu_s: float  # of this process

    @property
    def per_second(self) -> float:
        """Entries a second."""
        return self.entries / self.seconds

    @property
    def cpu_us(self) -> float:
        """Processor time in µs an entry."""
        return self.cpu_s / self.entries * 1e6


class Stopwatch:
    """Runs from its creation."""

    def __init__(self) -> None:
        self._began = time.monotonic(), time.process_time()

    def spent(self, entries: int) -> Spent:
        """Return the time since then, and how many entries it was for."""
        wall, cpu = self._began
        return Spent(entries, time.monotonic() - wall, time.process_time() - cpu)


class InstantContacts:
    """Implements `ports.Contacts`: an account that has every contact at once."""

    def __init__(self) -> None:
        self._imports = count()

    async def start_import(
        self,
        contacts: Sequence[DesiredContact],  # noqa: ARG002  a port
        *,
        exclude_automations: bool,  # noqa: ARG002  a port
    ) -> AcceptedImport:
        """Import them."""
        return AcceptedImport(str(next(self._imports)), is_short=False)

    async def import_report(self, import_id: str) -> ImportReport:  # noqa: ARG002  a port
        """Say that it is done."""
        return ImportReport(ImportState.COMPLETED)

    async def find(self, email: Email) -> bool:  # noqa: ARG002  a port
        """Have it."""
        return True

    async def sync(self, contact: DesiredContact) -> None:
        """Take one contact."""


async def read_and_drop(bench: Bench, history: History, nowhere: LocalActiveCampaign) -> Spent:
    """Read a whole log as the producer does, and do nothing with it."""
    async with open_shop(bench.settings(history.dsn, nowhere, next(_schemas))) as shop:
        mark = await shop.log.mark()
        watch = Stopwatch()
        entries = [len(page) async for page in shop.log.pages(DAY1, mark)]
        return watch.spent(sum(entries))


async def carry(bench: Bench, history: History, activecampaign: LocalActiveCampaign, events: Events) -> Spent:
    """Carry a whole log, into a state of its own; what comes before the first event is not timed."""
    settings = bench.settings(history.dsn, activecampaign, next(_schemas))
    async with open_shop(settings) as shop, Store.open(settings.state) as store:
        await store.migrate()
        async with store.hold(shop.site.id) as connection:
            ledger = SiteLedger(store, connection, shop.site.id)
            await ledger.begin("bench", "day1", None, DAY1)
            pipeline, checkpoint = await _pipeline(settings, shop, store, ledger, events)
            mark = await shop.log.mark()
            watch = Stopwatch()
            with garbage_collected_rarely():
                await pipeline.run(mark)
            return watch.spent(checkpoint.statistics().read)


async def _pipeline(
    settings: Settings, shop: Shop, store: Store, ledger: SiteLedger, events: Events
) -> tuple[Pipeline, Checkpoint]:
    """Return what `backfill` builds, with every contact linked."""
    limits = settings.activecampaign
    links = ContactLinks(store, shop.site.id)
    sync = ContactSync(shop.site.id, shop.customers, links, InstantContacts(), limits, _no_time)
    await sync.snapshot(lambda _: None)
    checkpoint = Checkpoint(
        ledger,
        DAY1,
        {},
        window=settings.pipeline.window,
        max_in_flight=limits.max_in_flight,
        commit_interval_s=settings.state.commit_interval_ms / 1000,
    )
    return Pipeline(settings, shop.log, Classifier(shop.site), links, sync, events, checkpoint), checkpoint


async def _no_time(_seconds: float) -> None:
    """Wait for nothing."""
