"""Contact checks: contacts that are compared though no entry asks for it. They have no outcome."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from kiva_stream.model.classifications import Noise
from kiva_stream.model.deliveries import Delivery
from kiva_stream.model.ids import CustomerId, OrderId
from kiva_stream.model.outcomes import Reason, Span
from kiva_stream.model.pages import ClassifiedPage
from kiva_stream.model.positions import Position


class ContactCheck(NamedTuple):
    """A customer whose contact and orders are to be compared."""

    customer: CustomerId
    changed_at: datetime  # of a customer who is erased: when their newest entry of the page was inserted
    orders: frozenset[OrderId] = frozenset()

    def delivery(self, position: Position) -> Delivery:
        """Return the check as a delivery for the contact's lane, with a span that is counted nowhere.

        The orders are left out: the batcher marks them dirty, and the next batch of the contact upserts them.
        """
        return Delivery(
            position, self.changed_at, Span(position, 1), self.customer, event_line=None, is_entry=False
        )


def checks_of(page: ClassifiedPage) -> list[ContactCheck]:
    """Return the checks that a page asks for: of customers who are erased by now, then of changed ones.

    A deleted row is not among the changes. That its customer is erased shows by an entry of theirs, which is
    skipped as `erased`.
    """
    erased = {
        entry.customer_id: entry.inserted_at
        for entry, classification in page.classifications
        if isinstance(classification, Noise) and classification.why is Reason.ERASED and entry.customer_id
    }
    changed = [ContactCheck(each.customer.id, each.changed_at, each.orders) for each in page.changes]
    return [*(ContactCheck(customer, inserted_at) for customer, inserted_at in erased.items()), *changed]
