"""Customers, as the shop's rows describe them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime

import msgspec

from kiva_stream.model.ids import CustomerId, Email


class Customer(msgspec.Struct, frozen=True, gc=False):
    """What the classifier and the batcher need of an entry's customer."""

    id: CustomerId
    site_id: int
    email: Email | None  # None: no usable address
    name: str  # "first last" as stored, single blanks; "" when there is none
    is_test: bool  # marked at the shop, or with an address of `skip_domains`
    erased: bool  # soft-deleted
    several_addresses: bool = False  # in its e-mail field; `email` is the first usable one

    @property
    def contact_email(self) -> Email | None:
        """The address of the contact that it belongs to; None if it belongs to none.

        An erased customer and a test account belong to none, whatever their address.
        """
        return None if self.erased or self.is_test else self.email


def contact_emails(customers: Iterable[Customer]) -> dict[CustomerId, Email]:
    """Return the addresses of the customers that belong to a contact."""
    return {each.id: each.contact_email for each in customers if each.contact_email}


class CustomerAccount(msgspec.Struct, frozen=True):
    """A customer with all that its contact at ActiveCampaign shows."""

    customer: Customer
    first_name: str
    last_name: str
    phone: str
    status: str
    newest_order_at: datetime | None  # created_at of the newest order
    email_opt_in: bool
    email_blacklisted: bool
    next_delivery: date | None = None
    cancel_date: date | None = None  # of cancelled_at, in the site's timezone
    birthday: date | None = None  # year 1904: year unknown
    box_type: str | None = ""  # the box's name, "" without a box, None when its row is gone
    joined_at: datetime = datetime.min.replace(tzinfo=UTC)  # when the shop made the account
