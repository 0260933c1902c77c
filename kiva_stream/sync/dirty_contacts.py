"""Dirty contacts: the next batch of each waits for a comparison of the contact, whatever its entries say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from kiva_stream.model.contacts import Contact
from kiva_stream.model.deliveries import Need
from kiva_stream.model.ids import ContactId, OrderId


class DirtyContacts:
    """The dirty contacts, each with its dirty orders. They are kept in memory only."""

    def __init__(self) -> None:
        self._orders: defaultdict[ContactId, set[OrderId]] = defaultdict(set)

    def __contains__(self, contact: Contact) -> bool:
        return contact.id in self._orders

    def mark(self, contact: Contact, orders: Collection[OrderId]) -> None:
        """Make a contact dirty, and these orders of it."""
        self._orders[contact.id].update(orders)

    def orders(self, contact: Contact) -> Collection[OrderId]:
        """Return the dirty orders of a contact."""
        return self._orders.get(contact.id, ())

    def with_orders(self, orders: Collection[OrderId]) -> set[ContactId]:
        """Return the contacts that have one of these dirty orders."""
        return {contact for contact, mine in self._orders.items() if not mine.isdisjoint(orders)}

    def take(self, need: Need) -> Need:
        """Make the contact of a need clean; return the need, extended by the orders that were dirty."""
        return need._replace(orders=need.orders.union(self._orders.pop(need.contact.id, ())))
