"""The ports of contact sync, as its parts share them."""

from __future__ import annotations

from typing import NamedTuple

from kiva_stream.ports.destination import Contacts
from kiva_stream.ports.source import Customers, Orders, Weeks
from kiva_stream.ports.stages import OrderDelivery
from kiva_stream.ports.state import Links, TagsDue
from kiva_stream.sync.contact_locks import ContactLocks
from kiva_stream.sync.held_records import HeldRecords
from kiva_stream.sync.lone_requests import ContactRequests, TagRequests


class ContactPorts(NamedTuple):
    """What contact sync needs of the outside, and what it shares with week tags, orders and the pipeline."""

    customers: Customers
    links: Links
    orders: Orders
    order_delivery: OrderDelivery
    weeks: Weeks
    due: TagsDue
    contacts: Contacts
    alone: ContactRequests  # the changes of single contacts
    tags: TagRequests
    locks: ContactLocks
    held: HeldRecords
