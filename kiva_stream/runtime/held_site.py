"""The held site: its lease, its account's client, its shop without forgotten people, its stored state."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from kiva_stream.activecampaign.client import Client
from kiva_stream.model.checkpoint import SavedCheckpoint
from kiva_stream.model.tombstones import ForgottenPeople
from kiva_stream.observability.incidents import Incidents
from kiva_stream.pipeline.late_arrivals import LateArrivals
from kiva_stream.runtime.account import account_name, answered_url
from kiva_stream.runtime.shop import Shop
from kiva_stream.settings.sections import Settings
from kiva_stream.state.dead_letters import SiteDeadLetters
from kiva_stream.state.id_gaps import SiteIdGaps
from kiva_stream.state.incidents import SiteIncidents
from kiva_stream.state.leases import Lease, hold, renew
from kiva_stream.state.ledger import SiteLedger
from kiva_stream.state.links import ContactLinks
from kiva_stream.state.store import Store
from kiva_stream.state.tombstones import Tombstones


@asynccontextmanager
async def hold_site(
    settings: Settings,
    shop: Shop,
    store: Store,
    *,
    incidents: Incidents,
    patience_s: float = math.inf,
    retry_refused_s: float | None = None,
) -> AsyncIterator[HeldSite]:
    """Hold the site while the block lasts. Its client sends nothing once the lease is lost.

    The incidents are persisted from here on, those of the shop's database too if `shop` was opened with them.
    `patience_s` and `retry_refused_s` are those of the client.
    Raises HeldError when another process holds the site or its account, CheckpointError.
    """
    account, site_id = settings.activecampaign, shop.site.id
    async with (
        hold(store, site_id, account_name(account), lease_s=settings.state.lease_s) as lease,
        Client(
            account,
            patience_s=patience_s,
            retry_refused_s=retry_refused_s,
            answered=await answered_url(account, store),
            incidents=incidents,
            fencing=lease,
        ) as client,
    ):
        forgotten = await Tombstones(store, site_id).forgotten_people()
        async with anyio.create_task_group() as group:
            group.start_soon(renew, store, lease)
            async with incidents.persisted_in(SiteIncidents(store, site_id)):
                yield HeldSite(
                    settings=settings, shop=shop, store=store, lease=lease, client=client, forgotten=forgotten
                )
            group.cancel_scope.cancel()


class HeldSite:
    """A site that `lease` holds. `WorkingSite` works off its log."""

    def __init__(
        self,
        *,
        settings: Settings,
        shop: Shop,
        store: Store,
        lease: Lease,
        client: Client,
        forgotten: ForgottenPeople,
    ) -> None:
        site_id = shop.site.id
        id_gaps = None if shop.horizon.is_used else SiteIdGaps(store, lease, site_id)
        self.settings = settings
        self.shop = shop.without(forgotten, id_gaps)
        self.store = store
        self.client = client
        self.ledger = SiteLedger(store, lease, site_id)
        self.links = ContactLinks(store, site_id, settings.source.customer_cache_rows)
        self.dead_letters = SiteDeadLetters(store, site_id)
        self.late_arrivals = (
            [LateArrivals(self.shop.log, id_gaps, settings.source.gap_reread_s)] if id_gaps else []
        )
        self.crashed_at = lease.crashed_at
        self._lease = lease

    def without(self, forgotten: ForgottenPeople) -> HeldSite:
        """Return the same site, whose forgotten people are these."""
        return HeldSite(
            settings=self.settings,
            shop=self.shop,
            store=self.store,
            lease=self._lease,
            client=self.client,
            forgotten=forgotten,
        )

    async def saved(self) -> SavedCheckpoint | None:
        """Return the site's checkpoint. Raises SettingsError, HeldError: the state is another account's."""
        return await self.ledger.saved(account_name(self.settings.activecampaign))

    def is_account_down(self) -> bool:
        """Return whether all calls to the account have to wait just now."""
        return any(each.kind in {"activecampaign", "key"} for each in self.client.incidents.all())
