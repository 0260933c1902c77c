"""The contact that ActiveCampaign should show for an address: its desired state, without I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from hashlib import blake2b

import msgspec

from kiva_stream.model.contacts import Contact, DesiredContact, ListStatus
from kiva_stream.model.customers import Customer, CustomerAccount
from kiva_stream.model.ids import CustomerId, Email
from kiva_stream.model.text_cleaning import clean

MAX_NAME = 100
MAX_PHONE = 40
MAX_FIELD = 100

NAMES = ("first_name", "last_name", "phone")  # of the attributes of DesiredContact

FINGERPRINT_BYTES = 16  # of the hash in a fingerprint

_NEVER = datetime.min.replace(tzinfo=UTC)

_BEST_STATUS_FIRST = ("active", "paused", "pending", "cancelled", "expired", "dead")
_LEFT = frozenset({"cancelled", "expired", "dead"})  # only these show a cancel date
_RANK = {status: rank for rank, status in enumerate(reversed(_BEST_STATUS_FIRST), start=1)}


def countable(accounts: Iterable[CustomerAccount], site_id: int, email: Email) -> list[CustomerAccount]:
    """Return the customer accounts that make up a contact: those of its site and address.

    Erased customers and test accounts are not among them, since their `contact_email` is None.
    """
    return [
        account
        for account in accounts
        if account.customer.site_id == site_id and account.customer.contact_email == email
    ]


def obstacle(customer: Customer, site_id: int) -> str:
    """Return why a customer does not belong at ActiveCampaign; "" if they do."""
    if customer.site_id != site_id:
        return f"is of site {customer.site_id}, and source.site_id is {site_id}"
    if customer.erased:
        return "is erased at the shop"
    if customer.is_test:
        return "is a test account, by its flag or by source.skip_domains"
    return "" if customer.email else "has no usable e-mail address"


def desired_contact(
    email: Email, accounts: Sequence[CustomerAccount], *, is_new: bool, today: date
) -> DesiredContact:
    """Return the contact that one or more customer accounts make up, all of them countable.

    With `is_new`, ActiveCampaign has not confirmed the contact yet; only then may it be subscribed. `today`
    is the date at the site. Only a cancelled account shows no next delivery; an expired or dead one shows the
    one that the shop has, besides its cancel date.
    """
    best = max(accounts, key=_merit)
    return DesiredContact(
        email=email,
        first_name=_cut(best.first_name, MAX_NAME),
        last_name=_cut(best.last_name, MAX_NAME),
        phone=_cut(best.phone, MAX_PHONE),
        customer_id=str(best.customer.id),
        list_status=_list_status(accounts, is_new),
        status=_cut(best.status, MAX_FIELD),
        next_delivery=_written(best.next_delivery if best.status != "cancelled" else None),
        cancel_date=_written(best.cancel_date if best.status in _LEFT else None),
        birthday=_written(best.birthday if best.birthday and best.birthday <= today else None),
        box_type=None if best.box_type is None else _cut(best.box_type, MAX_FIELD),
        notes=("stale_next_delivery",) if _is_stale(best, today) else (),
    )


def customers_to_move(
    contacts: Mapping[CustomerId, Contact], emails: Mapping[CustomerId, Email]
) -> dict[CustomerId, Email]:
    """Return the customers whose contact at ActiveCampaign has an address that is not theirs any more."""
    return {
        customer: emails[customer]
        for customer, contact in contacts.items()
        if contact.is_linked and contact.email != emails[customer]
    }


def wants_emails(accounts: Iterable[CustomerAccount]) -> bool:
    """Return whether none of these customer accounts opted out or is blacklisted."""
    return all(account.email_opt_in and not account.email_blacklisted for account in accounts)


def must_unsubscribe(accounts: Collection[CustomerAccount]) -> bool:
    """Return whether a contact must be unsubscribed, given that none of its customers counts any more.

    `accounts` are those of its customers that the shop still has. The contact must be unsubscribed if all of
    them are erased, or if one of them opted out or is blacklisted.
    """
    return all(account.customer.erased for account in accounts) or not wants_emails(accounts)


def fingerprint(desired: DesiredContact) -> bytes:
    """Return bytes that are equal exactly when the same change would be sent for a linked contact.

    They are a hash, and a byte that says which of NAMES are filled. Earlier versions left that byte out. One
    that is not sent counts as filled, since ActiveCampaign may show an older value.

    A subscription and a tag are sent only for a contact that is not linked. They are left out, so that the
    contact does not differ as soon as it is linked. An unsubscription is part of the fingerprint.
    """
    if desired.list_status is ListStatus.SUBSCRIBE:
        desired = msgspec.structs.replace(desired, list_status=ListStatus.KEEP)
    desired = msgspec.structs.replace(desired, tag=None, notes=())
    filled = sum((getattr(desired, name) != "") << bit for bit, name in enumerate(NAMES))
    digest = blake2b(msgspec.json.encode(desired), digest_size=FINGERPRINT_BYTES).digest()
    return digest + bytes([filled])


def is_same(desired: DesiredContact, recorded: bytes | None) -> bool:
    """Return whether a recorded fingerprint, also of an earlier version, is that of a desired contact."""
    return recorded is not None and fingerprint(desired).startswith(recorded)


def cleared(desired: DesiredContact, recorded: bytes | None) -> frozenset[str]:
    """Return which of NAMES are empty, and were filled by a recorded fingerprint.

    What an earlier version confirmed is not known to have been filled.
    """
    filled = recorded[FINGERPRINT_BYTES] if recorded and len(recorded) > FINGERPRINT_BYTES else 0
    return frozenset(
        name for bit, name in enumerate(NAMES) if filled >> bit & 1 and getattr(desired, name) == ""
    )


def _merit(account: CustomerAccount) -> tuple[int, datetime, int]:
    """Rank by status, then the newest order, then the lower id."""
    # asyncpg returns moments in UTC, but PostgreSQL's infinity as a datetime without a zone.
    newest = (account.newest_order_at or _NEVER).replace(tzinfo=UTC)
    return _RANK.get(account.status, 0), newest, -account.customer.id


def _list_status(accounts: Sequence[CustomerAccount], is_new: bool) -> ListStatus:
    if not wants_emails(accounts):
        return ListStatus.UNSUBSCRIBE
    return ListStatus.SUBSCRIBE if is_new else ListStatus.KEEP


def _cut(text: str, length: int) -> str:
    return clean(text)[:length].rstrip()


def _written(day: date | None) -> str:
    return day.isoformat() if day else ""


def _is_stale(account: CustomerAccount, today: date) -> bool:
    return account.status == "active" and account.next_delivery is not None and account.next_delivery < today
