"""`forget --customer`: erases a person at ActiveCampaign and here; a tombstone stays, and keeps them out."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import anyio
import msgspec

from kiva_stream.activecampaign.erasure import Erasure
from kiva_stream.errors import SettingsError
from kiva_stream.model.contacts import Contact
from kiva_stream.model.ids import CustomerId, Email
from kiva_stream.observability.incidents import Incidents
from kiva_stream.runtime.account import PATIENCE_S
from kiva_stream.runtime.held_site import hold_site
from kiva_stream.runtime.shop import open_shop
from kiva_stream.runtime.working_site import WorkingSite
from kiva_stream.settings.sections import Settings
from kiva_stream.state.dead_letters import DeadLetterFilter
from kiva_stream.state.store import Store
from kiva_stream.state.tombstones import Tombstones


class Receipt(msgspec.Struct, frozen=True):
    """What `forget` deleted. It names the person by the shop's id alone."""

    customer: str
    forgotten_at: datetime
    contact: str  # what became of it
    is_address_barred: bool  # a new customer with this address is kept out too
    deleted: dict[str, int]  # how many of what, where


async def forget(settings: Settings, customer: CustomerId) -> Receipt:
    """Erase a customer; return what was deleted where. It holds the site.

    Run again after an interruption, it finishes what was begun. Raises SettingsError when neither the shop
    nor the state knows this customer, SourceError, AccountRefused, CheckpointError, HeldError, and TryLater
    when ActiveCampaign stays out of reach.
    """
    incidents = Incidents()
    async with (
        open_shop(settings, incidents=incidents) as shop,
        Store.open_migrated(settings.state) as store,
        hold_site(settings, shop, store, incidents=incidents, patience_s=PATIENCE_S) as held,
    ):
        site = await WorkingSite.open(held)
        return await CustomerErasure(site).go(customer)


class CustomerErasure:
    """One run of `forget`. The tombstone is written first, so that an interrupted run keeps them out too."""

    def __init__(self, site: WorkingSite) -> None:
        self._site = site
        self._tombstones = Tombstones(site.held.store, site.shop.site.id)
        self._erasure = Erasure(site.held.client, site.ids)
        self._deleted: Counter[str] = Counter()

    async def go(self, customer: CustomerId) -> Receipt:
        """Erase the customer, and return what was deleted."""
        site = self._site
        await site.contacts.finish_imports()  # one under way would create the contact again
        contact = (await site.links.of_customers([customer])).get(customer)
        email = await self._address(customer, contact)
        is_shared = email is not None and await self._is_shared(customer, contact, email)
        await self._tombstones.record(customer, None if is_shared else email)
        await self._forget_orders(customer)
        if contact is None:
            self._count(await self._tombstones.forget_customer(customer))
        elif is_shared:
            await self._detach(customer, contact)
        else:
            await self._delete(contact)
        await site.held.ledger.count_contacts()
        stays, is_gone = "shared: it stays, for the others", "deleted" if contact else "there was none"
        return Receipt(
            customer=str(customer),
            forgotten_at=datetime.now(UTC),
            contact=stays if contact and is_shared else is_gone,
            is_address_barred=not is_shared,
            deleted={what: count for what, count in self._deleted.items() if count},
        )

    async def _address(self, customer: CustomerId, contact: Contact | None) -> Email | None:
        """Return the address of a customer. Raises SettingsError when shop and state do not know them."""
        if contact is not None:
            return contact.email
        for found in await self._site.shop.customers.by_id([customer]):
            return found.email
        choice = DeadLetterFilter(customers=[customer])
        is_known = customer in (await self._tombstones.forgotten_people()).customers
        if not is_known and not await self._site.held.dead_letters.counts(choice):
            raise SettingsError(f"There is no customer {customer}, at the shop or in the state.")
        return None

    async def _is_shared(self, customer: CustomerId, contact: Contact | None, email: Email) -> bool:
        """Return whether another customer has this contact, or will have it by the address."""
        customers = self._site.shop.customers
        others = (await customers.by_email([email])).get(email, [])
        if contact is not None:
            (record,) = await self._site.links.records([contact.id])
            others = others + await customers.by_id(record.customers)
        site_id = self._site.shop.site.id
        return any(
            other.id != customer and other.site_id == site_id and not (other.erased or other.is_test)
            for other in others
        )

    async def _forget_orders(self, customer: CustomerId) -> None:
        """Delete a customer's orders at ActiveCampaign, then in the state.

        Orders accepted just now may be in no list: the shop may have deleted them, and ActiveCampaign does
        not show them yet. So wait until it does.
        """
        known = [order.id for order in await self._site.shop.orders.of([customer])]
        await anyio.sleep(self._site.held.settings.activecampaign.order_settle_s)
        there = await self._erasure.delete_orders(customer)
        self._deleted["orders at ActiveCampaign"] += len(there)
        self._deleted["orders in the state"] += await self._tombstones.forget_orders(there | set(known))

    async def _detach(self, customer: CustomerId, contact: Contact) -> None:
        """Upsert a shared contact as the other customers want it, then take this customer off it."""
        site = self._site.without(await self._tombstones.forgotten_people())
        await site.upsert_as_history(contact)
        self._count(await self._tombstones.forget_customer(customer))
        await site.tags.sync_one(contact.id)

    async def _delete(self, contact: Contact) -> None:
        """Delete a contact at ActiveCampaign, then in the state."""
        (record,) = await self._site.links.records([contact.id])
        ac_id = record.ac_id or await self._site.account.find(contact.email)
        if ac_id is not None:
            self._deleted["contacts at ActiveCampaign"] += await self._erasure.delete_contact(ac_id)
        self._count(await self._tombstones.forget_contact(contact.id))

    def _count(self, gone: dict[str, int]) -> None:
        self._deleted.update(
            {f"{what.replace('_', ' ')} in the state": count for what, count in gone.items()}
        )
