"""The stages and adapters of one site, put together: for a backfill, for following, for a trial."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio

from kiva_stream.activecampaign.account import AccountIds
from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.contacts import Contacts
from kiva_stream.activecampaign.events import Events
from kiva_stream.activecampaign.orders import OrderBatches
from kiva_stream.activecampaign.tags import TagLinks
from kiva_stream.activecampaign.tracking_log import TrackingLogs
from kiva_stream.model.checkpoint import SavedCheckpoint
from kiva_stream.model.entries import Change, Changes, ReopenedEntries
from kiva_stream.model.ids import CustomerId
from kiva_stream.model.positions import HighWaterMark, Position
from kiva_stream.pipeline.checkpoint import Checkpoint
from kiva_stream.pipeline.classification import classifier_of
from kiva_stream.pipeline.dead_letter_replay import DeadLetterReplay
from kiva_stream.pipeline.delivery_lookup import TrackingLogLookup
from kiva_stream.pipeline.late_arrivals import LateArrivals, LogWithLateArrivals
from kiva_stream.pipeline.leftovers import LeftoversFirst
from kiva_stream.pipeline.pipeline import Pipeline
from kiva_stream.ports.source import Log
from kiva_stream.runtime.account import account_name, account_setup, contact_url
from kiva_stream.runtime.shop import Shop
from kiva_stream.runtime.start_position import Start
from kiva_stream.settings.sections import Settings
from kiva_stream.state.dead_letters import SiteDeadLetters
from kiva_stream.state.id_gaps import SiteIdGaps
from kiva_stream.state.leases import Lease, hold, renew
from kiva_stream.state.ledger import SiteLedger
from kiva_stream.state.links import ContactLinks
from kiva_stream.state.orders import OrderStates
from kiva_stream.state.store import Store
from kiva_stream.state.tags import DueTags
from kiva_stream.state.tombstones import Tombstones
from kiva_stream.sync.contact_locks import ContactLocks
from kiva_stream.sync.contact_moves import ContactMoves
from kiva_stream.sync.contact_sync import ContactPorts, ContactSync
from kiva_stream.sync.contact_writes import ContactWrites
from kiva_stream.sync.order_sync import OrderSync
from kiva_stream.sync.week_tags import WeekTagSync

FAR = datetime.max.replace(tzinfo=UTC)  # nothing that was read before is too young to be remembered


@asynccontextmanager
async def held(settings: Settings, shop: Shop, store: Store, client: Client) -> AsyncIterator[Assembly]:
    """Hold the site for this process, and give what works for it; the client sends nothing when that is lost.

    Raises HeldError when another process holds the site or its account, CheckpointError.
    """
    account = account_name(settings.activecampaign)
    async with hold(store, shop.site.id, account, settings.state.lease_s) as lease:
        client.guard, client.regained = lease.require, lease.regained
        shop.customers.bar(await Tombstones(store, shop.site.id).barred())
        async with anyio.create_task_group() as group:
            group.start_soon(renew, store, lease)
            yield Assembly(settings, shop, store, lease, client)
            group.cancel_scope.cancel()


class Assembly:
    """What works for one site, which `lease` holds; `client` talks to its account."""

    def __init__(self, settings: Settings, shop: Shop, store: Store, lease: Lease, client: Client) -> None:
        self.shop = shop
        self.store = store
        self.client = client
        self.ledger = SiteLedger(store, lease, shop.site.id)
        self.links = ContactLinks(store, shop.site.id, settings.source.customer_cache_rows)
        self._settings = settings
        self._account = account_name(settings.activecampaign)
        self._due = DueTags(store, shop.site.id)
        self._sent = OrderStates(store, shop.site.id)
        self.letters = SiteDeadLetters(store, shop.site.id)
        self._replays: DeadLetterReplay
        self._late: LateArrivals | None = None
        if not shop.log.horizon:
            shop.log.gaps = gaps = SiteIdGaps(store, lease, shop.site.id)
            self._late = LateArrivals(shop.log, gaps, settings.source.gap_reread_s)
        self._locks = ContactLocks()
        self.ids: AccountIds
        self.account: Contacts
        self.orders: OrderSync
        self.contacts: ContactSync
        self.tags: WeekTagSync

    async def saved(self) -> SavedCheckpoint | None:
        """Return the site's checkpoint. Raises SettingsError, HeldError: the state is another account's."""
        return await self.ledger.saved(self._account)

    async def open(self, *, is_live: bool = False) -> None:
        """Look up what contacts refer to by number, and bind the site to its account.

        Raises SettingsError before `setup`, HeldError, AccountRefused, CheckpointError.
        """
        settings, shop = self._settings.activecampaign, self.shop
        self.ids = ids = await account_setup(self._settings, self.client, shop.site).ids()
        await self.ledger.bind(self._account, contact_url(settings.api_url))
        self.account = contacts = Contacts(settings, self.client, ids)
        tags = TagLinks(self.client, ids)
        uploads = OrderBatches(self.client, ids)
        self.orders = OrderSync(shop.site.currency, shop.orders, self._sent, self.links, uploads, settings)
        self.contacts = ContactSync(
            shop.site,
            ContactPorts(
                shop.customers, self.links, contacts, shop.orders, self.orders, shop.weeks, self._due
            ),
            ContactWrites(self.links, self._due, contacts, self._locks, settings),
            ContactMoves(shop.site.id, shop.customers, self.links, contacts, tags, self._locks),
            settings,
            is_live=is_live,
        )
        self.tags = WeekTagSync(
            shop.site.id, self._due, shop.weeks, shop.customers, tags, contacts, self._locks
        )

    def once(self) -> Log:
        """Return the log for who reads it once: with what is late, where it is read without a horizon."""
        return LogWithLateArrivals(self.shop.log, self._late) if self._late else self.shop.log

    async def asides(self, until: Position) -> AsyncIterator[ReopenedEntries | Changes]:
        """Yield what comes outside the log's order by now, below a position: replays, and what is late.

        Raises SourceError, CheckpointError.
        """
        async for page in self._replays.pages(until):
            yield page
        if self._late is not None:
            async for late in self._late.pages(until):
                yield late

    async def pipeline(self, start: Start, log: Log) -> tuple[Pipeline, Checkpoint]:
        """Build the pipeline that reads on from the start, with its checkpoint. For one run.

        What earlier runs left aside comes first, and with it the dead letters that are to be replayed; those
        above the start come again in their place.
        """
        settings, shop = self._settings, self.shop
        left, asked = await self.ledger.left(), await self.letters.asked()
        replays = {position: letter.why for position, letter in asked.items() if position <= start.after}
        self._replays = DeadLetterReplay(self.letters, shop.log, shop.customers, shop.orders)
        checkpoint = Checkpoint(
            self.ledger,
            start.after,
            left,
            window=settings.pipeline.window,
            max_in_flight=settings.activecampaign.max_in_flight,
            commit_interval_s=settings.state.commit_interval_ms / 1000,
            parked_max=settings.state.parked_max_entries,
        )
        pipeline = Pipeline(
            settings,
            LeftoversFirst(
                log, shop.log, left.parked, replays, await self._reachable(left.dead_letter_customers)
            ),
            shop.log,
            classifier_of(shop.site, start.events_since),
            self.links,
            self.ledger,
            self.contacts,
            Events(
                settings.activecampaign,
                self.client,
                sleep=checkpoint.sleep,
                unless_drained=checkpoint.unless_drained,
            ),
            self._look_ups() if settings.activecampaign.lookup else None,
            checkpoint,
            self._is_down,
        )
        await self._remember(pipeline, start.after)
        return pipeline, checkpoint

    def _is_down(self) -> bool:
        """Return whether the whole account has to wait just now."""
        return any(trouble.kind in {"activecampaign", "key"} for trouble in self.client.troubles.all())

    def _look_ups(self) -> TrackingLogLookup:
        return TrackingLogLookup(self.links, self.account, TrackingLogs(self.client))

    async def _reachable(self, customers: Collection[CustomerId]) -> list[Change]:
        """Return those of these customers who have an address now, as changes."""
        now = datetime.now(UTC)
        found = await self.shop.customers.by_id(customers) if customers else []
        return [Change(customer, now) for customer in found if customer.email]

    async def _remember(self, pipeline: Pipeline, position: Position) -> None:
        """Show the pipeline what the log says up to a position, as far back as duplicates are told."""
        log = self.shop.log
        first = await log.before(position, self._settings.pipeline.window)
        async for entries in log.pages(first, HighWaterMark(position, FAR), settle=False):
            pipeline.remember(entries)
