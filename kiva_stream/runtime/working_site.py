"""The working site: a held site whose account is set up, with the stages that work for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import partial

from kiva_stream.activecampaign.contacts import Contacts
from kiva_stream.activecampaign.events import Events
from kiva_stream.activecampaign.ids_in_use import IdsInUse
from kiva_stream.activecampaign.orders import OrderBatches
from kiva_stream.activecampaign.tags import TagLinks
from kiva_stream.activecampaign.tracking_log import TrackingLogs
from kiva_stream.errors import RecordsHeld
from kiva_stream.model.account_ids import AccountIds
from kiva_stream.model.checkpoint import Leftovers, SavedCheckpoint
from kiva_stream.model.contacts import Contact
from kiva_stream.model.deliveries import Need
from kiva_stream.model.entries import Change
from kiva_stream.model.held_records import HeldKind
from kiva_stream.model.ids import CustomerId, OrderId
from kiva_stream.model.orders import NEVER
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import DAY1, Position
from kiva_stream.model.tombstones import ForgottenPeople
from kiva_stream.observability.logs import log
from kiva_stream.pipeline.checkpoint import Checkpoint
from kiva_stream.pipeline.classification import classifier_of
from kiva_stream.pipeline.dead_letter_replay import DeadLetterReplay
from kiva_stream.pipeline.delivery_lookup import TrackingLogLookup
from kiva_stream.pipeline.late_arrivals import LateArrivals, LogWithLateArrivals
from kiva_stream.pipeline.leftovers import LeftoversFirst
from kiva_stream.pipeline.parked_bound import ParkedBound
from kiva_stream.pipeline.pipeline import Pipeline
from kiva_stream.ports.source import Log
from kiva_stream.runtime.account import account_name, account_setup, contact_url
from kiva_stream.runtime.held_site import HeldSite
from kiva_stream.runtime.shop import Shop
from kiva_stream.runtime.start_position import all_up_to
from kiva_stream.state.account_ids import SiteAccountIds
from kiva_stream.state.held_records import StoredHeldRecords
from kiva_stream.state.orders import OrderStates
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
from kiva_stream.sync.order_sync import OrderSync
from kiva_stream.sync.tag_kind import TagKind, tag_kind
from kiva_stream.sync.week_tags import WeekTagSync

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class WorkingSite:
    """The stages of a held site: contacts, orders and week tags; and the pipeline, made for one run."""

    def __init__(
        self, held: HeldSite, ids: AccountIds, held_records: HeldRecords, *, is_live: bool = False
    ) -> None:
        settings, shop, links, client = held.settings.activecampaign, held.shop, held.links, held.client
        due, locks = DueTags(held.store, shop.site.id), ContactLocks()
        self.held, self.ids, self.is_live, self.shop, self.links = held, ids, is_live, shop, links
        self.ids_in_use, self.held_records = _ids_in_use(held, ids), held_records
        self.account = account = Contacts(settings, client, ids)
        due_again = {kind: partial(held_records.make_due, kind) for kind in HeldKind}
        before_probe, every_s = self.ids_in_use.require_same, settings.retry_refused_s
        self.order_kind = order_kind(client.incidents, every_s, before_probe)
        self._tag_kind = tag_kind(client.incidents, every_s, before_probe)
        self.orders = _order_sync(held, OrderBatches(client, ids, before_probe), self)
        ports = ContactPorts(
            customers=shop.customers,
            links=links,
            orders=shop.orders,
            order_delivery=self.orders,
            weeks=shop.weeks,
            due=due,
            contacts=account,
            alone=ContactRequests(
                account,
                settings.retry_held_s,
                self.ids_in_use.are_missing,
                on_recovery=due_again[HeldKind.LIST],
            ),
            tags=TagRequests(
                TagLinks(client, ids), account, settings.retry_held_s, on_recovery=due_again[HeldKind.TAG]
            ),
            locks=locks,
            held=held_records,
        )
        self._refusals = ContactRefusals(links, client.incidents, every_s, before_probe=before_probe)
        self.contacts = ContactSync(
            shop.site,
            ports,
            writes=ContactWrites(ports, settings, refusals=self._refusals),
            refusals=self._refusals,
            order_kind=self.order_kind,
            moves=ContactMoves(shop.site.id, ports),
            settings=settings,
            is_live=is_live,
        )
        self.tags = _week_tag_sync(shop, ports, self._tag_kind)

    @classmethod
    async def open(cls, held: HeldSite, *, is_live: bool = False) -> WorkingSite:
        """Look up what contacts and orders refer to by id, and bind the site to its account.

        What the state has of other ids, since `setup` created something anew, counts as not sent: see
        `SiteAccountIds.adopt`. No other working site of this one may be at work.
        Raises SettingsError before `setup`, HeldError, AccountRefused, CheckpointError.
        """
        account = held.settings.activecampaign
        ids = await account_setup(held.settings, held.client, held.shop.site).ids()
        await held.ledger.bind(account_name(account), contact_url(account.api_url))
        await SiteAccountIds(held.store, held.shop.site.id).adopt(ids)
        rows = StoredHeldRecords(held.store, held.shop.site.id)
        held_records = HeldRecords(
            rows, await rows.read(), account.retry_held_s, requests_per_s=account.requests_per_second
        )
        return cls(held, ids, held_records, is_live=is_live)

    def without(self, forgotten: ForgottenPeople) -> WorkingSite:
        """Return the same site with these forgotten people. No work of this one may be under way."""
        held = self.held.without(forgotten)
        return WorkingSite(held, self.ids, self.held_records, is_live=self.is_live)

    def pauses(self) -> list[str]:
        """Return why kinds of requests are paused: ActiveCampaign refuses them for the account's sake."""
        whys = (self.order_kind.why, self._tag_kind.why)
        return [*self._refusals.pauses(), *(why for why in whys if why is not None)]

    async def upsert_as_history(self, contact: Contact, orders: Collection[OrderId] = ()) -> str:
        """Upsert a contact and orders as entries of long ago would, so that no automation starts.

        Return why it is held, as ActiveCampaign did not take it and it is to be tried again, else "".
        Raises SourceError, AccountRefused, CheckpointError.
        """
        self.held_records.try_now([contact.id])
        try:
            await self.contacts.upsert([Need(contact, DAY1, LONG_AGO, orders=frozenset(orders))])
        except RecordsHeld as error:
            log.warning("a contact is held", contact=contact.id, why=str(error))
            return str(error)
        return ""

    async def mark_dirty(self, orders: Collection[OrderId]) -> None:
        """Have the next entries of the contacts of these orders wait for them.

        Raises SourceError, CheckpointError.
        """
        found = await self.shop.orders.orders(orders)
        contacts = await self.links.of_customers({order.customer_id for order in found})
        for order in found:
            if contact := contacts.get(order.customer_id):
                self.contacts.mark_dirty(contact, [order.id])

    async def look_up_id(self, contact: Contact) -> None:
        """Record ActiveCampaign's id of a contact, if it has one of this address.

        Raises AccountRefused, CheckpointError.
        """
        ac_id = await self.account.find(contact.email)
        if ac_id is not None:
            await self.links.record_ids({contact.email: ac_id}, await self.links.ids_known_up_to())

    def whole_log(self) -> Log:
        """Return the log as a backfill reads it: with late arrivals, if it is read without a horizon."""
        log: Log = self.shop.log
        for late in self.held.late_arrivals:
            log = LogWithLateArrivals(log, late)
        return log

    def reopened(self) -> list[DeadLetterReplay | LateArrivals]:
        """Return what yields entries outside the log's order while it is followed, for one run."""
        shop = self.shop
        replay = DeadLetterReplay(
            self.held.dead_letters, entries=shop.log, customers=shop.customers, orders=shop.orders
        )
        return [replay, *self.held.late_arrivals]

    async def resume(self, start: SavedCheckpoint) -> PipelineRun:
        """Read what earlier runs left, and return the run that continues at the start.

        Raises CheckpointError.
        """
        self.contacts.note_rewind(start.rewound_at)
        left, asked = await self.held.ledger.leftovers(), await self.held.dead_letters.replay_requests()
        replays = {position: letter.why for position, letter in asked.items() if position <= start.watermark}
        return PipelineRun(self, start=start, left=left, replays=replays)


def _week_tag_sync(shop: Shop, ports: ContactPorts, kind: TagKind) -> WeekTagSync:
    return WeekTagSync(
        shop.site.id,
        due=ports.due,
        weeks=ports.weeks,
        customers=shop.customers,
        tags=ports.tags,
        locks=ports.locks,
        kind=kind,
        held=ports.held,
    )


def _order_sync(held: HeldSite, uploads: OrderBatches, site: WorkingSite) -> OrderSync:
    return OrderSync(
        held.shop.site.currency,
        orders=held.shop.orders,
        sent=OrderStates(held.store, held.shop.site.id),
        links=held.links,
        uploads=uploads,
        kind=site.order_kind,
        held=site.held_records,
        settings=held.settings.activecampaign,
        crashed_at=held.crashed_at or NEVER,
    )


class PipelineRun:
    """One run of the pipeline: its checkpoint, and what earlier runs left.

    The dead letters among `replays` are delivered with what was left. Those above the start are read
    again with the log.
    """

    def __init__(
        self,
        site: WorkingSite,
        *,
        start: SavedCheckpoint,
        left: Leftovers,
        replays: Mapping[Position, Reason],
    ) -> None:
        settings = site.held.settings
        self.checkpoint = Checkpoint(
            site.held.ledger,
            start.watermark,
            left,
            window=settings.pipeline.window,
            max_in_flight=settings.activecampaign.max_in_flight,
            parked_max=settings.state.parked_max_entries,
            commit_interval_s=settings.state.commit_interval_ms / 1000,
        )
        self.replays = replays
        self._site = site
        self._start = start
        self._left = left

    async def pipeline(self, log: Log) -> Pipeline:
        """Build the pipeline that reads what was left, then this log. Raises SourceError."""
        site, shop = self._site, self._site.shop
        settings, client = site.held.settings, site.held.client
        changes = await self._now_with_address(self._left.dead_letter_customers)
        pipeline = Pipeline(
            settings,
            log=LeftoversFirst(log, shop.log, parked=site.held.ledger, replays=self.replays, changes=changes),
            entries=shop.log,
            classify=classifier_of(shop.site, self._start.events_since),
            links=site.links,
            dead_letters=site.held.ledger,
            contact_delivery=site.contacts,
            events=Events(
                settings.activecampaign,
                client,
                sleep=self.checkpoint.draining.sleep,
                unless_drained=self.checkpoint.draining.unless_drained,
            ),
            lookup=TrackingLogLookup(site.links, site.account, TrackingLogs(client))
            if settings.activecampaign.lookup
            else None,
            checkpoint=self.checkpoint,
            held=site.held_records,
            bound=ParkedBound(
                site.held.ledger,
                most=settings.state.parked_max_entries,
                is_full=lambda: self.checkpoint.is_full,
                incidents=client.incidents,
            ),
            is_down=site.held.is_account_down,
        )
        await self._remember(pipeline)
        return pipeline

    async def _now_with_address(self, customers: Collection[CustomerId]) -> list[Change]:
        """Return those of these customers who have an address by now, as changes."""
        now = datetime.now(UTC)
        found = await self._site.shop.customers.by_id(customers) if customers else []
        return [Change(customer, now) for customer in found if customer.email]

    async def _remember(self, pipeline: Pipeline) -> None:
        """Have the pipeline remember the entries before the start that a new one may repeat."""
        shop, start = self._site.shop, self._start.watermark
        first = await shop.positions.before(start, self._site.held.settings.pipeline.window)
        async for entries in shop.log.pages(first, all_up_to(start), settle=False):
            pipeline.remember(entries)


def _ids_in_use(held: HeldSite, ids: AccountIds) -> IdsInUse:
    account = held.settings.activecampaign
    lookup = account_setup(held.settings, held.client, held.shop.site).ids
    return IdsInUse(ids, lookup, fresh_s=account.retry_refused_s)
