"""`sync --customer`: one customer's contact, orders and week tag upserted; no events, no checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec

from kiva_stream.activecampaign.account_ids import field_titles
from kiva_stream.errors import AccountRefused, SettingsError
from kiva_stream.model.contacts import Contact, ContactRecord, ContactStatus, DesiredContact, ListStatus
from kiva_stream.model.customers import contact_emails
from kiva_stream.model.ids import CustomerId, Email, OrderId
from kiva_stream.model.orders import SentOrder
from kiva_stream.observability.incidents import Incidents
from kiva_stream.runtime.account import PATIENCE_S, contact_url
from kiva_stream.runtime.held_site import hold_site
from kiva_stream.runtime.shop import Shop, open_shop
from kiva_stream.runtime.working_site import WorkingSite
from kiva_stream.settings.sections import ActiveCampaignSettings, Settings
from kiva_stream.state.orders import OrderStates
from kiva_stream.state.store import Store
from kiva_stream.sync.desired_contact import countable, customers_to_move, desired_contact, obstacle

LIST_WORDS = {
    ListStatus.SUBSCRIBE: "subscribed",
    ListStatus.UNSUBSCRIBE: "unsubscribed",
    ListStatus.KEEP: "left as it is",
}


class CustomerSyncReport(msgspec.Struct, frozen=True):
    """What became of one customer."""

    customer: str
    contact: str  # new | linked | rejected: what kiva_stream knows of it now
    why: str  # of a rejected one
    sent: bool  # whether anything of the contact had to be sent
    ac_contact_id: int | None
    url: str | None  # its page at ActiveCampaign
    fields: dict[str, str]  # as they are wanted there, by title
    list_status: str  # subscribed | unsubscribed | left as it is
    tag: str | None  # the week tag it has there
    orders: dict[str, int]  # sent | refused | unchanged | not sent
    refusals: dict[str, str]  # ActiveCampaign's replies to refused orders, by order id
    requests: dict[str, int]  # by endpoint
    reply: str = ""  # of ActiveCampaign, if it refuses the contact, or did not take it
    left_out: dict[str, str] = {}  # its replies to values that it refuses, by field


async def sync_customer(settings: Settings, customer: CustomerId) -> CustomerSyncReport:
    """Upsert a customer's contact, orders and week tag; return what became of them. It holds the site.

    Raises SettingsError, also when this customer does not belong at ActiveCampaign; then nothing was sent.
    Raises SourceError, AccountRefused, CheckpointError, HeldError, and TryLater when ActiveCampaign stays out
    of reach.
    """
    incidents = Incidents()
    async with (
        open_shop(settings, incidents=incidents) as shop,
        Store.open_migrated(settings.state) as store,
        hold_site(settings, shop, store, incidents=incidents, patience_s=PATIENCE_S) as held,
    ):
        email = await _address(held.shop, customer)
        site = await WorkingSite.open(held)
        return await CustomerSync(site, OrderStates(store, shop.site.id)).go(customer, email)


class CustomerSync:
    """One run of `sync --customer`."""

    def __init__(self, site: WorkingSite, sent: OrderStates) -> None:
        self._site = site
        self._shop = site.shop
        self._sent = sent

    async def go(self, customer: CustomerId, email: Email) -> CustomerSyncReport:
        """Upsert the contact, its orders and its week tag; compare what the state knows before and after."""
        settings, contact = self._site.held.settings.activecampaign, await self._contact(customer, email)
        orders = await self._shop.orders.paid_by([customer])
        before, sent_before = await self._record(contact), await self._sent.sent(orders)
        await self._site.contacts.retry_refused([contact], is_asked=True)
        desired = await self._desired(before)
        held = await self._site.upsert_as_history(contact, orders)
        if pauses := self._site.pauses():
            raise AccountRefused(" ".join(pauses))
        await self._look_up_id(contact)
        if contact.is_linked:
            await self._site.tags.sync_one(contact.id)
        after, sent_after = await self._record(contact), await self._sent.sent(orders)
        return CustomerSyncReport(
            customer=str(customer),
            contact=contact.status,
            why=contact.why,
            sent=after.fingerprint != before.fingerprint,
            ac_contact_id=after.ac_id,
            url=f"{contact_url(settings.api_url)}{after.ac_id}" if after.ac_id else None,
            fields=_fields(desired, settings) if desired else {},
            list_status=LIST_WORDS[desired.list_status] if desired else "",
            tag=after.tag,
            orders=order_counts(orders, sent_before, sent_after),
            refusals={str(each.id): each.refused for each in sent_after.values() if each.refused},
            requests=dict(self._site.held.client.requests),
            reply=contact.reply or held,
            left_out={name: each.reply for name, each in after.left_out.items()},
        )

    async def _contact(self, customer: CustomerId, email: Email) -> Contact:
        """Return the contact of a customer's address, linked with all customers of that address.

        One of the others may have opted out. If ActiveCampaign has the contact already, its id is recorded.
        """
        links = self._site.links
        others = (await self._shop.customers.by_email([email])).get(email, [])
        emails = {**contact_emails(others), customer: email}
        await self._site.contacts.move(customers_to_move(await links.link(emails), emails))
        contact = (await links.link(emails))[customer]
        await self._look_up_id(contact)
        return contact

    async def _look_up_id(self, contact: Contact) -> None:
        """Look up ActiveCampaign's id of a contact, if none is known: else it could get a second week tag."""
        if (await self._record(contact)).ac_id is None:
            await self._site.look_up_id(contact)

    async def _record(self, contact: Contact) -> ContactRecord:
        (record,) = await self._site.links.records([contact.id])
        return record

    async def _desired(self, record: ContactRecord) -> DesiredContact | None:
        """Return the desired contact; None when none of its customers counts any more."""
        site, contact = self._shop.site, record.contact
        customer_accounts = await self._shop.customers.accounts(record.customers)
        counted = countable(customer_accounts, site.id, contact.email)
        today = datetime.now(ZoneInfo(site.timezone)).date()
        is_new = contact.status is ContactStatus.NEW
        return desired_contact(contact.email, counted, is_new=is_new, today=today) if counted else None


async def _address(shop: Shop, customer: CustomerId) -> Email:
    """Return a customer's address. Raises SettingsError when nothing of it belongs at ActiveCampaign."""
    found = next(iter(await shop.customers.by_id([customer])), None)
    if found is None:
        raise SettingsError(f"There is no customer {customer} in the shop's database.")
    if why := obstacle(found, shop.site.id):
        raise SettingsError(f"Customer {customer} {why}: nothing of it is sent.")
    assert found.email is not None  # noqa: S101  `obstacle` requires one
    return found.email


def order_counts(
    orders: Collection[OrderId], before: Mapping[OrderId, SentOrder], after: Mapping[OrderId, SentOrder]
) -> dict[str, int]:
    """Count orders by what became of them, from what was last sent of each before and after."""
    return dict(Counter(_became(before.get(order), after.get(order)) for order in orders))


def _became(before: SentOrder | None, after: SentOrder | None) -> str:
    if after is None:
        return "not sent"
    if after.refused:
        return "refused"
    return "unchanged" if after == before else "sent"


def _fields(desired: DesiredContact, settings: ActiveCampaignSettings) -> dict[str, str]:
    """Return the custom fields that are sent, by title."""
    fields = {title: getattr(desired, name) for name, title in field_titles(settings).items()}
    return {title: text for title, text in fields.items() if text is not None}
