"""The shop of one site: its database opened, checked, and read by kind of row."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from kiva_stream.model.site import Site
from kiva_stream.model.tombstones import ForgottenPeople
from kiva_stream.observability.incidents import Incidents
from kiva_stream.ports.state import IdGaps
from kiva_stream.settings.sections import Settings
from kiva_stream.source.changes import ChangeLog
from kiva_stream.source.contract import require_contract
from kiva_stream.source.customers import ShopCustomers
from kiva_stream.source.horizon import Horizon
from kiva_stream.source.log import SystemLog
from kiva_stream.source.log_positions import LogPositions
from kiva_stream.source.orders import ShopOrders
from kiva_stream.source.site import read_site
from kiva_stream.source.source import WAITS_S, Source
from kiva_stream.source.weeks import DeliveryWeeks


class Shop(NamedTuple):
    """The source of one site, which satisfies the contract."""

    site: Site
    customers: ShopCustomers
    orders: ShopOrders
    weeks: DeliveryWeeks
    changes: ChangeLog
    log: SystemLog
    horizon: Horizon
    positions: LogPositions

    def without(self, forgotten: ForgottenPeople, id_gaps: IdGaps | None = None) -> Shop:
        """Return the same shop; forgotten customers read as erased, and the log keeps its id gaps."""
        customers = self.customers.without(forgotten)
        changes = self.changes.with_customers(customers)
        return self._replace(
            customers=customers, changes=changes, log=self.log.with_customers(customers, id_gaps)
        )


@asynccontextmanager
async def open_shop(
    settings: Settings,
    *,
    waits_s: Sequence[float] = WAITS_S,
    incidents: Incidents | None = None,
    is_patient: bool = False,
) -> AsyncIterator[Shop]:
    """Connect to the shop's database. Raises SourceError when it is out of reach or not to contract.

    A failure that may pass is retried `waits_s` apart: one to connect only with `is_patient`. An incident is
    open meanwhile.
    """
    async with Source.open(
        settings.source, waits_s=waits_s, incidents=incidents, is_patient=is_patient
    ) as source:
        schema, site_id = settings.source.schema, settings.source.site_id
        horizon = settings.source.horizon
        await source.read(lambda found: require_contract(found, schema, site_id, horizon=horizon))
        yield shop_of(settings, source, await read_site(source, site_id))


def shop_of(settings: Settings, source: Source, site: Site) -> Shop:
    """Return the shop of a site whose database satisfies the contract."""
    horizon = Horizon(source, settings.source)
    customers = ShopCustomers(source, site.id, settings.source.skip_domains)
    return Shop(
        site=site,
        customers=customers,
        orders=ShopOrders(source, site.id),
        weeks=DeliveryWeeks(source, site.id),
        changes=ChangeLog(source, site.id, customers),
        log=SystemLog(source, settings.source, customers),
        horizon=horizon,
        positions=LogPositions(source, site.id, horizon),
    )
