"""`verify`: compares source, state and ActiveCampaign, and closes gaps where that is asked for.

What differs is looked at once more before it is called a gap: a process that works the site may be at it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import anyio
import msgspec
from msgspec.structs import replace

from kiva_stream.activecampaign.account_ids import field_titles
from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.contacts import Contacts
from kiva_stream.activecampaign.events import Events
from kiva_stream.activecampaign.read_backs import ReadBacks
from kiva_stream.activecampaign.tags import TagLinks
from kiva_stream.activecampaign.tracking_log import TrackingLogs
from kiva_stream.errors import SettingsError
from kiva_stream.model.contacts import ContactRecord, ContactStatus
from kiva_stream.model.customers import Customer
from kiva_stream.model.ids import ContactId, CustomerId
from kiva_stream.runtime.account import PATIENCE_S, account_name, account_setup
from kiva_stream.runtime.held_site import hold_site
from kiva_stream.runtime.shop import Shop, open_shop
from kiva_stream.runtime.working_site import WorkingSite
from kiva_stream.settings.sections import ActiveCampaignSettings, Settings
from kiva_stream.state.evidence import Evidence
from kiva_stream.state.orders import OrderStates
from kiva_stream.state.store import Store
from kiva_stream.state.tombstones import Tombstones
from kiva_stream.sync.desired_contact import obstacle
from kiva_stream.verification.contact_comparison import Account, ContactComparison
from kiva_stream.verification.discrepancies import Discrepancy, DiscrepancyKind
from kiva_stream.verification.expected_state import ExpectedState
from kiva_stream.verification.repair import Repair

SHARE = 5  # one part in so many of the limit is taken beside another process
OF_STATE = frozenset(
    {
        DiscrepancyKind.OUTCOME,
        DiscrepancyKind.NO_LINK,
        DiscrepancyKind.NO_CUSTOMER,
        DiscrepancyKind.CONTACT_ID,
    }
)


class VerifyRequest(msgspec.Struct, frozen=True):
    """What `verify` compares, and whether it closes the discrepancies it finds."""

    sample: int  # contacts
    customer: CustomerId | None = None  # instead of a sample
    repair: bool = False
    events: bool = False  # with `repair`: missing events are sent too


class DiscrepancyRow(msgspec.Struct, frozen=True):
    """A discrepancy, as a report shows it."""

    kind: str
    what: str
    customer: str | None
    ac_contact_id: str | None

    @classmethod
    def of(cls, discrepancy: Discrepancy) -> DiscrepancyRow:
        """Write a discrepancy."""
        customer, ac_id = discrepancy.customer, discrepancy.ac_id
        return cls(
            kind=discrepancy.kind,
            what=discrepancy.what,
            customer=None if customer is None else str(customer),
            ac_contact_id=None if ac_id is None else str(ac_id),
        )


class VerifyReport(msgspec.Struct, frozen=True):
    """The answer of `verify`."""

    discrepancies: list[DiscrepancyRow] = msgspec.field(name="gaps")  # after a repair: those that are left
    closed: list[DiscrepancyRow]
    contacts: int  # that were compared
    contacts_total: int
    is_sample: bool
    requests: dict[str, int]  # by endpoint


async def verify(settings: Settings, request: VerifyRequest) -> VerifyReport:
    """Return the gaps of a sample of contacts, or of one customer's; with `repair`, those that are left.

    Without `repair` it holds nothing and leaves no trace. Raises SettingsError also when a customer does not
    belong at ActiveCampaign; SourceError, AccountRefused, CheckpointError, HeldError, and TryLater when
    ActiveCampaign stays out of reach.
    """
    async with open_shop(settings) as opened, Store.open(settings.state) as store:
        await store.require_version()
        account, site_id = settings.activecampaign, opened.site.id
        stand = await Evidence(store, site_id).stand(account_name(account))
        if request.repair:
            async with hold_site(settings, opened, store, patience_s=PATIENCE_S) as held:
                site = await WorkingSite.open(held)
                return await Verification(settings, held.shop, store, held.client).run(request, site)
        if stand.is_held:
            account = beside_another(account)
        shop = opened.without(await Tombstones(store, site_id).barred())
        async with Client(account, patience_s=PATIENCE_S) as client:
            return await Verification(settings, shop, store, client).run(request)


def beside_another(account: ActiveCampaignSettings) -> ActiveCampaignSettings:
    """Return the account as it may be used beside the process that works the site: a fifth of its limit."""
    return replace(account, requests_per_second=max(1, account.requests_per_second // SHARE))


class Verification:
    """One run of `verify`."""

    def __init__(self, settings: Settings, shop: Shop, store: Store, client: Client) -> None:
        self._settings = settings
        self._shop = shop
        self._client = client
        self._evidence = Evidence(store, shop.site.id)
        self._expectations = ExpectedState(
            shop, self._evidence, OrderStates(store, shop.site.id), settings.pipeline
        )
        self._verifier: ContactComparison

    async def run(self, request: VerifyRequest, site: WorkingSite | None = None) -> VerifyReport:
        """Do it; close gaps where there is a working site to do so with."""
        self._verifier = await self._verifier_of_account(is_owner=site is not None)
        customer = await self._customer(request.customer)
        contacts, total = await self._contacts(request, customer)
        gaps = await self._gaps(customer, contacts, is_alone=site is not None)
        left = gaps
        if site and gaps:
            await self._repair(site, gaps, with_events=request.events)
            left = await self._look_again(customer, gaps)
        left_keys = {gap.key for gap in left}
        return VerifyReport(
            discrepancies=[DiscrepancyRow.of(gap) for gap in left],
            closed=[DiscrepancyRow.of(gap) for gap in gaps if gap.key not in left_keys],
            contacts=len(contacts),
            contacts_total=total,
            is_sample=customer is None and len(contacts) < total,
            requests=dict(self._client.requests),
        )

    async def _verifier_of_account(self, *, is_owner: bool) -> ContactComparison:
        settings, client = self._settings.activecampaign, self._client
        ids = await account_setup(self._settings, client, self._shop.site).ids()
        account = Account(
            account_name(settings),
            Contacts(settings, client, ids),
            ReadBacks(client, ids),
            TagLinks(client, ids),
            TrackingLogs(client),
        )
        titles, settle_s = field_titles(settings), settings.lookup_settle_s
        evidence, expectations = self._evidence, self._expectations
        return ContactComparison(
            self._shop, evidence, expectations, account, titles, settle_s, is_owner=is_owner
        )

    async def _customer(self, asked: CustomerId | None) -> Customer | None:
        """Return the customer that was asked for. Raises SettingsError when there is nothing to look at."""
        if asked is None:
            return None
        found = next(iter(await self._shop.customers.by_id([asked])), None)
        why = obstacle(found, self._shop.site.id) if found else "is not in the shop's database"
        if why and not await self._evidence.places([asked]):
            raise SettingsError(f"Customer {asked} {why}, and has no contact: there is nothing to look at.")
        return found or Customer(asked, self._shop.site.id, None, "", is_test=False, erased=True)

    async def _contacts(
        self, request: VerifyRequest, customer: Customer | None
    ) -> tuple[list[ContactRecord], int]:
        """Return the contacts to look at, and how many there are."""
        total = await self._evidence.count()
        if customer is None:
            return await self._evidence.drawn(request.sample), total
        links = await self._evidence.places([customer.id])
        return await self._linked(each.id for each in links.values()), total

    # --- looking ---

    async def _gaps(
        self, customer: Customer | None, contacts: Sequence[ContactRecord], *, is_alone: bool
    ) -> list[Discrepancy]:
        """Return what differs at both of two looks."""
        first = {gap.key: gap for gap in await self._look(customer, contacts, with_state=True)}
        if not first:
            return []
        stand = await self._verifier.stand()
        poll_s = self._settings.source.poll_interval_s if stand.is_held and not is_alone else 0
        await anyio.sleep(self._settings.activecampaign.order_settle_s + poll_s)
        again = await self._look_again(customer, first.values())
        return [gap for gap in again if gap.key in first]

    async def _look_again(
        self, customer: Customer | None, gaps: Collection[Discrepancy]
    ) -> list[Discrepancy]:
        contacts = await self._linked({gap.contact for gap in gaps if gap.contact is not None})
        return await self._look(customer, contacts, with_state=any(gap.kind in OF_STATE for gap in gaps))

    async def _look(
        self, customer: Customer | None, contacts: Sequence[ContactRecord], *, with_state: bool
    ) -> list[Discrepancy]:
        found: list[Discrepancy] = []
        if with_state and customer is None:
            found += await self._verifier.look_at_state()
        elif with_state and customer:
            found += await self._verifier.look_at_links([customer])
        found += await self._verifier.look(contacts)
        return list({gap.key: gap for gap in found}.values())

    async def _linked(self, ids: Iterable[ContactId]) -> list[ContactRecord]:
        """Return those of these contacts that are at ActiveCampaign and somebody's, as the state has them."""
        found = await self._evidence.contacts(list(ids))
        return [row for row in found if row.contact.status is ContactStatus.LINKED and row.customers]

    # --- repairing ---

    async def _repair(self, site: WorkingSite, gaps: Collection[Discrepancy], *, with_events: bool) -> None:
        """Close gaps, and wait until ActiveCampaign shows it."""
        events = Events(self._settings.activecampaign, self._client)
        repair = Repair(site, self._evidence, self._expectations, events)
        await repair.close(gaps)
        settle_s = self._settings.activecampaign.order_settle_s
        if with_events and any(gap.kind is DiscrepancyKind.NO_EVENT for gap in gaps):
            await repair.resend(gaps, await self._verifier.stand())
            settle_s = max(settle_s, self._settings.activecampaign.lookup_settle_s)
        await anyio.sleep(settle_s)
