"""What the state says has become of entries and contacts, for `verify`; a repair takes it back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from kiva_stream.errors import CheckpointError, SettingsError
from kiva_stream.model.contacts import Contact, ContactRecord, NotOnList
from kiva_stream.model.ids import ContactId, CustomerId, OrderId
from kiva_stream.model.positions import Position
from kiva_stream.state.links import contact_from, record_from
from kiva_stream.state.store import Store, columns


class SiteProgress(NamedTuple):
    """How far a site has come, at one moment."""

    counted_from: Position
    watermark: Position
    pruned_to: Position | None  # up to here the ledger was pruned; None: it was not
    events_since: datetime | None
    outcomes: int  # of entries at or below the watermark
    parked: int
    is_held: bool  # by a process that works the site

    @property
    def known_from(self) -> Position:
        """The position above which the state knows what became of entries."""
        return max(self.counted_from, self.pruned_to or self.counted_from)


class LedgerEvent(NamedTuple):
    """A delivered event, as the ledger has it."""

    position: Position
    event_line: int  # the number in the catalogue
    delivered_at: datetime


class Evidence:
    """What the state says of one site. Every call raises CheckpointError.

    It reads what is stored now, past the cache of `ContactLinks`: another process may write.
    """

    def __init__(self, store: Store, site_id: int) -> None:
        self._store = store
        self._site_id = site_id

    async def progress(self, account: str) -> SiteProgress:
        """Return how far the site has come. Raises SettingsError when its state is another account's."""
        for row in await self._store.fetch("site_progress", self._site_id):
            if row["account"] != account:
                raise SettingsError(
                    f"The state of site {self._site_id} belongs to the ActiveCampaign account "
                    f"{row['account']}, and activecampaign.api_url and event_actid name {account}."
                )
            has_forgotten = row["forgotten_id"] is not None
            return SiteProgress(
                counted_from=Position(row["counted_txid"], row["counted_id"]),
                watermark=Position(row["watermark_txid"], row["watermark_id"]),
                pruned_to=Position(row["forgotten_txid"], row["forgotten_id"]) if has_forgotten else None,
                events_since=row["events_since"],
                outcomes=int(row["outcomes"]),
                parked=row["parked"],
                is_held=row["is_held"],
            )
        raise CheckpointError(f"Nothing has been done for site {self._site_id} yet: start a backfill.")

    async def sample(self, count: int) -> list[ContactRecord]:
        """Return up to `count` contacts at ActiveCampaign that have a customer, drawn at random."""
        return await self._records("sample_contacts", count)

    async def count(self) -> int:
        """Return how many contacts at ActiveCampaign have a customer."""
        rows = await self._store.fetch("count_contacts_with_customer", self._site_id)
        return rows[0][0]  # type: ignore[no-any-return]  # bigint

    async def contacts(self, ids: Collection[ContactId]) -> list[ContactRecord]:
        """Return the records of these contacts."""
        return await self._records("contacts", list(ids))

    async def contacts_of(self, customers: Collection[CustomerId]) -> dict[CustomerId, Contact]:
        """Return the contacts of these customers. A customer without one is left out."""
        rows = await self._store.fetch("contacts_of_customers", self._site_id, list(customers))
        return {row["customer_id"]: contact_from(row) for row in rows}

    async def without_customer(self) -> list[ContactRecord]:
        """Return the contacts at ActiveCampaign that have no customer."""
        return await self._records("contacts_without_customer")

    async def without_id(self) -> list[ContactRecord]:
        """Return the contacts at ActiveCampaign whose id there is not known."""
        return await self._records("contacts_without_id")

    async def came_alone(self) -> list[ContactRecord]:
        """Return the contacts that no import has put on the list."""
        return await self._records("contacts_not_on_list", NotOnList.CAME_ALONE)

    async def count_of_other_list(self) -> int:
        """Return how many contacts were linked before the account had the list that it has now."""
        rows = await self._store.fetch("count_other_list", self._site_id, NotOnList.OTHER_LIST)
        return rows[0][0]  # type: ignore[no-any-return]  # bigint

    async def due(self, contacts: Collection[ContactId]) -> set[ContactId]:
        """Return which of these contacts have a week tag that is due."""
        rows = await self._store.fetch("due_among", self._site_id, list(contacts))
        return {row["contact_id"] for row in rows}

    async def deliveries(self, contacts: Collection[ContactId]) -> dict[ContactId, list[LedgerEvent]]:
        """Return the events that were delivered to these contacts, in log order."""
        found: defaultdict[ContactId, list[LedgerEvent]] = defaultdict(list)
        for row in await self._store.fetch("events_of_contacts", self._site_id, list(contacts)):
            event = LedgerEvent(Position(row["txid"], row["log_id"]), row["event"], row["delivered_at"])
            found[row["contact_id"]].append(event)
        return found

    async def accounted_for(self, positions: Collection[Position]) -> set[Position]:
        """Return which of these entries were delivered, to any contact, or are dead or parked."""
        rows = await self._store.fetch("accounted_for", self._site_id, *columns(list(positions), 2))
        return {Position(row["txid"], row["log_id"]) for row in rows}

    async def forgotten(self, customers: Collection[CustomerId]) -> set[CustomerId]:
        """Return which of these customers were forgotten on request."""
        rows = await self._store.fetch("forgotten_among", self._site_id, list(customers))
        return {row["customer_id"] for row in rows}

    async def unconfirm_contact(self, contact: ContactId) -> None:
        """Record that nothing but its id is known of a contact at ActiveCampaign."""
        await self._store.fetch("unconfirm_contacts", self._site_id, [contact])

    async def unconfirm_orders(self, orders: Collection[OrderId]) -> None:
        """Record that nothing is known of these orders at ActiveCampaign."""
        await self._store.fetch("unconfirm_orders", self._site_id, list(orders))

    async def record_resent(self, position: Position, contact: ContactId, event_line: int) -> None:
        """Record an event that was sent again since its contact's log did not list it."""
        await self._store.fetch("record_resent", self._site_id, *position, contact, event_line)

    async def _records(self, block: str, *args: object) -> list[ContactRecord]:
        rows = await self._store.fetch(block, self._site_id, *args)
        return [record_from(row, contact_from(row)) for row in rows]
