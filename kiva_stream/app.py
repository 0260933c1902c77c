"""The composition root: opens pools and sessions, builds the adapters, turns SIGTERM into a drain."""

from __future__ import annotations

import gc
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import urlsplit

import anyio

from kiva_stream import telemetry
from kiva_stream.activecampaign.account import AccountSetup, Wanted, field_titles
from kiva_stream.activecampaign.client import Client
from kiva_stream.errors import CheckpointError, DrainTimeoutError, TryLater
from kiva_stream.estimates import swaps_s
from kiva_stream.kiva.changes import ChangeLog
from kiva_stream.kiva.contract import require_contract
from kiva_stream.kiva.customers import ShopCustomers
from kiva_stream.kiva.log import SystemLog
from kiva_stream.kiva.orders import ShopOrders
from kiva_stream.kiva.source import WAITS_S, Source
from kiva_stream.kiva.weeks import DeliveryWeeks
from kiva_stream.model import Site
from kiva_stream.ports import Troubles
from kiva_stream.reports import Equation, StatusReport
from kiva_stream.settings import ActiveCampaignSettings, Settings
from kiva_stream.state.status import SiteStatus, read_status
from kiva_stream.state.store import Store

GARBAGE_THRESHOLD = 70_000  # objects; Python's own is 700 or 2,000, by its version
PATIENCE_S = 30.0  # of a set-up that cannot reach ActiveCampaign: api_url may be mistyped


class Shop(NamedTuple):
    """The source of one site, known to be to contract."""

    site: Site
    customers: ShopCustomers
    orders: ShopOrders
    weeks: DeliveryWeeks
    changes: ChangeLog
    log: SystemLog


@asynccontextmanager
async def open_shop(
    settings: Settings, *, waits_s: Sequence[float] = WAITS_S, troubles: Troubles | None = None
) -> AsyncIterator[Shop]:
    """Connect to the shop's database. Raises SourceError when it is out of reach or not to contract.

    What may pass is tried again `waits_s` apart, and `troubles` hears of it.
    """
    async with Source.open(settings.source, waits_s=waits_s, troubles=troubles) as source:
        schema, site_id, horizon = settings.source.schema, settings.source.site_id, settings.source.horizon
        await source.read(lambda found: require_contract(found, schema, site_id, horizon=horizon))
        customers = ShopCustomers(source, site_id, settings.source.skip_domains)
        log = SystemLog(source, settings.source, customers)
        yield Shop(
            await log.site(),
            customers,
            ShopOrders(source, site_id),
            DeliveryWeeks(source, site_id),
            ChangeLog(source, site_id, customers),
            log,
        )


def account_name(settings: ActiveCampaignSettings) -> str:
    """Return by what the state knows the account: two with the same are the same account."""
    return f"{urlsplit(settings.api_url).netloc} {settings.event_actid}"


def account_setup(settings: Settings, client: Client, site: Site | None) -> AccountSetup:
    """Return what the account needs for a site; without one it can be looked at, not set up."""
    account = settings.activecampaign
    shop_url = website(site.admin_base_url) if site else ""
    name = site.name if site else "us"
    return AccountSetup(
        client,
        Wanted(
            site_id=settings.source.site_id,
            site_name=name,
            titles=field_titles(account),
            sender_url=account.list_sender_url or shop_url,
            sender_reminder=account.list_sender_reminder or f"You are a customer of {name}.",
            link_url=account.connection_link_url or shop_url,
            logo_url=account.connection_logo_url,
        ),
    )


def contact_url(api_url: str) -> str:
    """Return where people look at a contact of the account, its id to be added.

    The account `green` is at green.api-us1.com for programs and at green.activehosted.com for people.
    """
    host = urlsplit(api_url).netloc
    account, _, rest = host.partition(".")
    return f"https://{account + '.activehosted.com' if rest.startswith('api-') else host}/app/contacts/"


def website(url: str) -> str:
    """Return scheme and host of a URL; one that was stored without a scheme is https."""
    parts = urlsplit(url if "://" in url else f"https://{url.lstrip('/')}")
    return f"{parts.scheme}://{parts.netloc}"


async def set_up(settings: Settings) -> list[str]:
    """Create what is missing, in the state database and at ActiveCampaign; return it, a phrase each.

    Safe to repeat. Raises SourceError, CheckpointError, AccountRefused, SettingsError, and TryLater when
    ActiveCampaign stays out of reach.
    """
    async with open_shop(settings) as shop, Store.open(settings.state) as store:
        created = [f"the state schema {settings.state.schema}"] if await store.migrate() else []
        async with Client(settings.activecampaign, patience_s=PATIENCE_S) as client:
            try:
                return created + await account_setup(settings, client, shop.site).set_up()
            except TryLater as error:
                raise TryLater(f"{error}: check api_url, or try again later.") from None


def equation_of(status: SiteStatus) -> Equation:
    """Return the outcome equation of a site."""
    return Equation.of(status.outcomes, status.pending, status.parked)


async def status(settings: Settings) -> StatusReport:
    """Return where the site stands, from the state schema alone. Raises CheckpointError."""
    site_id = settings.source.site_id
    async with Store.open(settings.state) as store:
        await store.require_version()
        found = await read_status(store, site_id)
    if found is None:
        raise CheckpointError(f"Nothing has been done for site {site_id} yet: start a backfill.")
    now = datetime.now(UTC)
    return StatusReport(
        site=str(site_id),
        account=found.account,
        phase=found.phase,
        since=found.since,
        events_since=found.events_since,
        counted_from=str(found.counted_from),
        watermark=str(found.watermark),
        high_water_mark=str(found.high_water_mark) if found.high_water_mark else None,
        entries_total=found.entries,
        equation=equation_of(found),
        events=found.events,
        contacts=found.contacts,
        orders=found.orders,
        tags_due=found.tags_due,
        tags_left_s=swaps_s(found.tags_due, settings.activecampaign),
        notes=found.notes,
        troubles=found.troubles,
        erased=[str(customer) for customer in found.erased],
        held_by=found.held_by,
        held_since=found.held_since,
        committed_at=found.committed_at,
        updated_at=now,
        lag_s=None if found.caught_up_at is None else max((now - found.caught_up_at).total_seconds(), 0.0),
    )


@contextmanager
def garbage_collected_rarely() -> Iterator[None]:
    """Look for reference cycles a hundred times more rarely in this block.

    The window keeps tens of thousands of entries alive, none of them in a cycle; walking through them again
    and again was a fifth of the CPU of an event. What is dropped is freed by its reference count as ever.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(GARBAGE_THRESHOLD, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


class Stopping:
    """Turns SIGINT and SIGTERM into a drain.

    `drain` makes the work return early. What has not returned `timeout_s` seconds later is cut short, and so
    is all of it by a second signal.
    """

    def __init__(self, drain: Callable[[], None], timeout_s: float) -> None:
        self.signal: int | None = None  # the first one that came
        self.was_cut_short = False  # by a second one
        self._drain = drain
        self._timeout_s = timeout_s
        self._is_late = False

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work. Raises DrainTimeoutError when it did not drain in time, and what the work raises."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._listen, group.cancel_scope)
            await work()
            group.cancel_scope.cancel()
        if self._is_late:
            raise DrainTimeoutError(
                f"What was in flight did not finish within {self._timeout_s:g} s. Nothing is lost: "
                "run the same command again."
            )

    async def _listen(self, scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            self.signal = await anext(signals)
            telemetry.log.info(
                "draining; a second signal cuts it short",
                signal=signal.Signals(self.signal).name,
                at_most_s=self._timeout_s,
            )
            self._drain()
            with anyio.move_on_after(self._timeout_s) as patience:
                await anext(signals)
                self.was_cut_short = True
            self._is_late = patience.cancelled_caught
            scope.cancel()
