"""Order changes: the orders that ActiveCampaign does not show as the shop has them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import NamedTuple

from kiva_stream.model.contacts import Contact
from kiva_stream.model.ids import ContactId, CustomerId, OrderId
from kiva_stream.model.orders import DesiredOrder, Order, SentOrder
from kiva_stream.ports.state import Links, SentOrders
from kiva_stream.sync.desired_order import desired_order, fingerprint, invalid, order_source


class OrderChange(NamedTuple):
    """An order that ActiveCampaign does not show as the shop has it."""

    desired: DesiredOrder
    fingerprint: bytes
    fault: str  # why it cannot be sent, "" when it can
    sent: SentOrder | None  # what was last sent of it, accepted or refused
    contact_id: ContactId

    @property
    def id(self) -> OrderId:
        """The order's id."""
        return self.desired.id

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show yet: the order has no items, and was never accepted.

        An order that was accepted is sent again when its items are gone.
        """
        was_accepted = self.sent is not None and self.sent.was_accepted
        return not was_accepted and not self.desired.lines


class OrderChanges:
    """Compares orders with what was last sent. Every call raises CheckpointError.

    Here an order counts as sent if the state has a SentOrder of it: ActiveCampaign accepted or refused it, or
    it could not be sent, and was recorded as refused without a request; or it was sent to another connection,
    and is to be sent to this one as history. An order that was paid longer than
    `realtime_max_age_s` ago is history. `currency` has three capital letters.
    """

    def __init__(
        self,
        currency: str,
        *,
        sent: SentOrders,
        links: Links,
        realtime_max_age_s: float,
        now: Callable[[], datetime],
    ) -> None:
        self._currency = currency
        self._sent = sent
        self._links = links
        self._realtime_max_age_s = realtime_max_age_s
        self._now = now

    async def of(self, orders: Collection[Order]) -> list[OrderChange]:
        """Return the changes of those of these orders that belong to ActiveCampaign and differ."""
        sent = await self._sent.sent([order.id for order in orders])
        contacts = await self._links.of_customers({order.customer_id for order in orders})
        changes = (self._change(order, contacts, sent.get(order.id)) for order in orders)
        return [change for change in changes if change is not None]

    def _change(
        self, order: Order, contacts: Mapping[CustomerId, Contact], sent: SentOrder | None
    ) -> OrderChange | None:
        """Return the change of an order, None in the first three cases.

        | the order (the first row that applies)          | then                                             |
        |-------------------------------------------------|--------------------------------------------------|
        | its customer has no linked contact              | `ContactUpserts` upserts it if one is linked     |
        | it is not paid, and was never accepted          | it does not belong to ActiveCampaign             |
        | it is as it was last sent, accepted or refused  | there is nothing to send                         |
        | it was never sent                               | the age of its payment decides about its source  |
        | it was sent                                     | it keeps the source it was sent with             |
        """
        contact = contacts.get(order.customer_id)
        was_accepted = sent is not None and sent.was_accepted
        if contact is None or not contact.is_linked:
            return None
        if not (order.is_paid or was_accepted):
            return None
        source = sent.source if sent else order_source(order, self._now(), self._realtime_max_age_s)
        desired = desired_order(
            order, contact.email, currency=self._currency, source=source, was_accepted=was_accepted
        )
        change = OrderChange(
            desired,
            fingerprint(desired, contact.id),
            invalid(order),
            sent=sent,
            contact_id=contact.id,
        )
        return None if sent and sent.fingerprint == change.fingerprint else change
