"""`verify`: compares source, state and ActiveCampaign, and closes discrepancies where that is asked for.

Differences are compared once more before they are reported: a process that works the site may be about to
remove them.
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
from kiva_stream.model.account_ids import AccountIds
from kiva_stream.model.contacts import ContactRecord
from kiva_stream.model.customers import Customer
from kiva_stream.model.ids import ContactId, CustomerId
from kiva_stream.observability.incidents import Incidents
from kiva_stream.runtime.account import PATIENCE_S, account_name, account_setup, answered_url
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

SHARE = 5  # beside another process, one part in five of the account's limit is used
OF_STATE = frozenset(
    {
        DiscrepancyKind.OUTCOME,
        DiscrepancyKind.NO_LINK,
        DiscrepancyKind.REFUSED,
        DiscrepancyKind.NO_CUSTOMER,
        DiscrepancyKind.CONTACT_ID,
        DiscrepancyKind.NOT_ON_LIST,
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
        return cls(
            kind=discrepancy.kind,
            what=discrepancy.what,
            customer=None if discrepancy.customer is None else str(discrepancy.customer),
            ac_contact_id=None if discrepancy.ac_id is None else str(discrepancy.ac_id),
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
    """Return the discrepancies of a sample of contacts, or of one customer's; after a repair, those left.

    Without `repair` it holds nothing and leaves no trace. Raises SettingsError, also when a customer does not
    belong at ActiveCampaign; SourceError, AccountRefused, CheckpointError, HeldError, and TryLater when
    ActiveCampaign stays out of reach.
    """
    incidents = Incidents()
    async with (
        open_shop(settings, incidents=incidents) as opened,
        Store.open_migrated(settings.state) as store,
    ):
        account, site_id = settings.activecampaign, opened.site.id
        progress = await Evidence(store, site_id).progress(account_name(account))
        if request.repair:
            async with hold_site(settings, opened, store, incidents=incidents, patience_s=PATIENCE_S) as held:
                site = await WorkingSite.open(held)
                run = await Verification.open(
                    settings, shop=held.shop, store=store, client=held.client, holds_site=True
                )
                return await run.go(request, site)
        if progress.is_held:
            account = beside_another(account)
        shop = opened.without(await Tombstones(store, site_id).forgotten_people())
        answered = await answered_url(account, store)
        async with Client(account, patience_s=PATIENCE_S, answered=answered) as client:
            run = await Verification.open(settings, shop=shop, store=store, client=client, holds_site=False)
            return await run.go(request)


def beside_another(account: ActiveCampaignSettings) -> ActiveCampaignSettings:
    """Return the account as it may be used beside the process that works the site: a fifth of its limit."""
    return replace(account, requests_per_second=max(1, account.requests_per_second // SHARE))


class Verification:
    """One run of `verify`."""

    def __init__(
        self,
        settings: Settings,
        *,
        shop: Shop,
        store: Store,
        client: Client,
        ids: AccountIds,
        holds_site: bool,
    ) -> None:
        account = settings.activecampaign
        self._settings = settings
        self._shop = shop
        self._client = client
        self._evidence = Evidence(store, shop.site.id)
        self._expected_state = ExpectedState(
            shop,
            evidence=self._evidence,
            sent=OrderStates(store, shop.site.id),
            settings=settings.pipeline,
        )
        self._comparison = ContactComparison(
            shop,
            evidence=self._evidence,
            expected_state=self._expected_state,
            account=Account(
                name=account_name(account),
                contacts=Contacts(account, client, ids),
                read_backs=ReadBacks(client, ids),
                tags=TagLinks(client, ids),
                logs=TrackingLogs(client),
            ),
            titles=field_titles(account),
            lookup_settle_s=account.lookup_settle_s,
            holds_site=holds_site,
        )

    @classmethod
    async def open(
        cls, settings: Settings, *, shop: Shop, store: Store, client: Client, holds_site: bool
    ) -> Verification:
        """Look up the ids of the account's parts, and return a run that compares with them."""
        ids = await account_setup(settings, client, shop.site).ids()
        return cls(settings, shop=shop, store=store, client=client, ids=ids, holds_site=holds_site)

    async def go(self, request: VerifyRequest, site: WorkingSite | None = None) -> VerifyReport:
        """Compare, and repair the discrepancies if a working site is given."""
        customer = await self._customer(request.customer)
        contacts, total = await self._contacts(request, customer)
        found = left = await self._confirmed(customer, contacts)
        if site and found:
            await self._repair(site, found, with_events=request.events)
            left = await self._compare_again(customer, found)
        left_keys = {each.key for each in left}
        return VerifyReport(
            discrepancies=[DiscrepancyRow.of(each) for each in left],
            closed=[DiscrepancyRow.of(each) for each in found if each.key not in left_keys],
            contacts=len(contacts),
            contacts_total=total,
            is_sample=customer is None and len(contacts) < total,
            requests=dict(self._client.requests),
        )

    async def _customer(self, asked: CustomerId | None) -> Customer | None:
        """Return the customer of the request. Raises SettingsError when there is nothing to compare."""
        if asked is None:
            return None
        found = next(iter(await self._shop.customers.by_id([asked])), None)
        why = obstacle(found, self._shop.site.id) if found else "is not in the shop's database"
        if why and not await self._evidence.contacts_of([asked]):
            raise SettingsError(f"Customer {asked} {why}, and has no contact: there is nothing to look at.")
        return found or Customer(
            id=asked, site_id=self._shop.site.id, email=None, name="", is_test=False, erased=True
        )

    async def _contacts(
        self, request: VerifyRequest, customer: Customer | None
    ) -> tuple[list[ContactRecord], int]:
        """Return the contacts to compare, and how many there are in all."""
        total = await self._evidence.count()
        if customer is None:
            return await self._evidence.sample(request.sample), total
        contacts = await self._evidence.contacts_of([customer.id])
        return await self._records(each.id for each in contacts.values()), total

    # --- comparing ---

    async def _confirmed(
        self, customer: Customer | None, contacts: Sequence[ContactRecord]
    ) -> list[Discrepancy]:
        """Return the discrepancies of two comparisons, between which what is in flight can arrive."""
        first = {each.key: each for each in await self._compare(customer, contacts, with_state=True)}
        if not first:
            return []
        poll_s = self._settings.source.poll_interval_s if await self._comparison.is_beside_another() else 0
        await anyio.sleep(self._settings.activecampaign.order_settle_s + poll_s)
        again = await self._compare_again(customer, first.values())
        return [each for each in again if each.key in first]

    async def _compare_again(
        self, customer: Customer | None, found: Collection[Discrepancy]
    ) -> list[Discrepancy]:
        """Compare the contacts that differed, and the state when it differed."""
        contacts = await self._records({each.contact for each in found if each.contact is not None})
        with_state = any(each.kind in OF_STATE for each in found)
        return await self._compare(customer, contacts, with_state=with_state)

    async def _compare(
        self, customer: Customer | None, contacts: Sequence[ContactRecord], *, with_state: bool
    ) -> list[Discrepancy]:
        found: list[Discrepancy] = []
        if with_state and customer is None:
            found += await self._comparison.compare_state()
        elif with_state and customer:
            found += await self._comparison.compare_links([customer])
        found += await self._comparison.compare(contacts)
        return list({each.key: each for each in found}.values())

    async def _records(self, ids: Iterable[ContactId]) -> list[ContactRecord]:
        """Return those of these contacts that are at ActiveCampaign and have a customer."""
        found = await self._evidence.contacts(list(ids))
        return [row for row in found if row.contact.is_linked and row.customers]

    # --- repairing ---

    async def _repair(self, site: WorkingSite, found: Collection[Discrepancy], *, with_events: bool) -> None:
        """Close discrepancies, then wait until ActiveCampaign shows the result."""
        account = self._settings.activecampaign
        events = Events(account, self._client)
        repair = Repair(site, evidence=self._evidence, expected_state=self._expected_state, events=events)
        await repair.close(found)
        settle_s = account.order_settle_s
        if with_events and any(each.kind is DiscrepancyKind.NO_EVENT for each in found):
            await repair.resend(found, await self._comparison.progress())
            settle_s = max(settle_s, account.lookup_settle_s)
        await anyio.sleep(settle_s)
