"""The stages and adapters of one site, put together: for a backfill, for following, for a trial."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import UTC, datetime

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.contacts import Contacts
from kiva_stream.activecampaign.events import Events
from kiva_stream.activecampaign.orders import OrderBatches
from kiva_stream.activecampaign.tags import TagLinks
from kiva_stream.app import Shop, account_name, account_setup, contact_url
from kiva_stream.checkpoint import Checkpoint
from kiva_stream.classifier import Classifier
from kiva_stream.contact_moves import ContactMoves
from kiva_stream.contact_sync import ContactPorts, ContactSync
from kiva_stream.contact_writes import ContactWrites
from kiva_stream.model import (
    Change,
    Changes,
    CustomerId,
    Entry,
    HighWaterMark,
    Position,
    SavedCheckpoint,
)
from kiva_stream.order_sync import OrderSync
from kiva_stream.pipeline import Pipeline
from kiva_stream.ports import Log
from kiva_stream.settings import Settings
from kiva_stream.start import Start
from kiva_stream.state.ledger import SiteLedger
from kiva_stream.state.links import ContactLinks
from kiva_stream.state.orders import OrderStates
from kiva_stream.state.store import Connection, Store
from kiva_stream.state.tags import DueTags
from kiva_stream.turns import Turns
from kiva_stream.week_tags import WeekTagSync

FAR = datetime.max.replace(tzinfo=UTC)  # nothing that was read before is too young to be remembered


class Returning:
    """Implements the port Log: changes of customers whose entries are dead, then what another log has.

    Their address may have come while nobody looked.
    """

    def __init__(self, log: Log, changes: Sequence[Change]) -> None:
        self._log = log
        self._changes = changes

    async def pages(self, after: Position, mark: HighWaterMark) -> AsyncIterator[list[Entry] | Changes]:
        """Yield the changes, then all pages. Raises SourceError."""
        if self._changes:
            yield Changes(list(self._changes))
        async for page in self._log.pages(after, mark):
            yield page


class Assembly:
    """What works for one site. `connection` holds the site; `client` talks to its account."""

    def __init__(
        self, settings: Settings, shop: Shop, store: Store, connection: Connection, client: Client
    ) -> None:
        self.shop = shop
        self.store = store
        self.client = client
        self.ledger = SiteLedger(store, connection, shop.site.id)
        self.links = ContactLinks(store, shop.site.id)
        self._settings = settings
        self._account = account_name(settings.activecampaign)
        self._due = DueTags(store, shop.site.id)
        self._sent = OrderStates(store, shop.site.id)
        self._turns = Turns()
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
        ids = await account_setup(self._settings, self.client, shop.site).ids()
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
            ContactWrites(self.links, self._due, contacts, self._turns, settings),
            ContactMoves(shop.site.id, shop.customers, self.links, contacts, tags, self._turns),
            settings,
            is_live=is_live,
        )
        self.tags = WeekTagSync(
            shop.site.id, self._due, shop.weeks, shop.customers, tags, contacts, self._turns
        )

    async def pipeline(self, start: Start, log: Log) -> tuple[Pipeline, Checkpoint]:
        """Build the pipeline that reads on from the start, with its checkpoint. For one run."""
        settings = self._settings
        letters = await self.ledger.customers_with_letters()
        checkpoint = Checkpoint(
            self.ledger,
            start.after,
            await self.ledger.settled_above(start.after),
            window=settings.pipeline.window,
            max_in_flight=settings.activecampaign.max_in_flight,
            commit_interval_s=settings.state.commit_interval_ms / 1000,
            letters=letters,
        )
        pipeline = Pipeline(
            settings,
            Returning(log, await self._reachable(letters)),
            self.shop.log,
            Classifier(self.shop.site, start.events_since),
            self.links,
            self.ledger,
            self.contacts,
            Events(settings.activecampaign, self.client, sleep=checkpoint.sleep),
            checkpoint,
        )
        await self._remember(pipeline, start.after)
        return pipeline, checkpoint

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
