"""Current contacts: contacts' records together with their customers' rows as they are now."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from kiva_stream.model.contacts import ContactRecord
from kiva_stream.model.customers import CustomerAccount
from kiva_stream.model.ids import ContactId, CustomerId
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.ports.source import Customers
from kiva_stream.sync.desired_contact import countable, must_unsubscribe
from kiva_stream.sync.desired_week_tag import week_tag


class CurrentContact(NamedTuple):
    """A contact's record, with its customers' rows as they are now."""

    record: ContactRecord
    accounts: list[CustomerAccount]  # of all its customers whom the shop still has
    counted: list[CustomerAccount]  # those of them that make up the contact: see `countable`

    @property
    def id(self) -> ContactId:
        """The contact's id."""
        return self.record.contact.id

    @property
    def is_erased(self) -> bool:
        """Whether the shop erased all customers of the contact; one whose row is gone counts as erased."""
        return all(account.customer.erased for account in self.accounts)

    @property
    def must_unsubscribe(self) -> bool:
        """Whether the contact must be unsubscribed. Two conditions must both hold.

        None of its customers counts any more. And the function `must_unsubscribe` finds that all its accounts
        are erased, or that one of them, erased or not, opted out.
        """
        return bool(self.record.customers) and not self.counted and must_unsubscribe(self.accounts)

    def week_tag(self, statuses: Mapping[CustomerId, Collection[str]]) -> WeekTag:
        """Return the contact's tag by the statuses of its customers' orders of the week."""
        return week_tag(statuses.get(account.customer.id, ()) for account in self.counted)


async def read_current(
    customers: Customers, site_id: int, records: Collection[ContactRecord]
) -> list[CurrentContact]:
    """Read the rows of contacts' customers. Raises SourceError."""
    ids = {customer for record in records for customer in record.customers}
    rows = {row.customer.id: row for row in await customers.accounts(ids)}
    found = []
    for record in records:
        mine = [rows[customer] for customer in record.customers if customer in rows]
        found.append(CurrentContact(record, mine, countable(mine, site_id, record.contact.email)))
    return found


def counted_customers(contacts: Collection[CurrentContact]) -> set[CustomerId]:
    """Return the customers that count for these contacts."""
    return {account.customer.id for contact in contacts for account in contact.counted}
