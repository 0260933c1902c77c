"""The ports of contact sync, as its parts share them."""

from __future__ import annotations

from typing import NamedTuple

from kiva_stream.ports.source import Customers, Orders, Weeks
from kiva_stream.ports.stages import OrderDelivery
from kiva_stream.ports.state import Links, TagsDue


class ContactPorts(NamedTuple):
    """What contact sync needs of the outside; what only its writes and moves need is theirs."""

    customers: Customers
    links: Links
    orders: Orders
    order_delivery: OrderDelivery
    weeks: Weeks
    due: TagsDue
