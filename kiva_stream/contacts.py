"""The contact that ActiveCampaign should show for an address: its desired state, pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from hashlib import blake2b

import msgspec

from kiva_stream.model import Account, DesiredContact, Email, ListStatus
from kiva_stream.text import clean

# With these and an address of 254 bytes a row of an import stays below 1,599 bytes: 250 of them make the
# 400,000 bytes that ActiveCampaign refuses.
MAX_NAME = 100
MAX_PHONE = 40

FINGERPRINT_BYTES = 16

_NEVER = datetime.min.replace(tzinfo=UTC)

_BEST_STATUS_FIRST = ("active", "paused", "pending", "cancelled", "expired", "dead")
_RANK = {status: rank for rank, status in enumerate(reversed(_BEST_STATUS_FIRST), start=1)}


def countable(accounts: Iterable[Account], site_id: int, email: Email) -> list[Account]:
    """Return the accounts that share the contact of `email`: of this site, neither erased nor for testing."""
    return [account for account in accounts if _counts(account, site_id, email)]


def desired_contact(email: Email, accounts: Sequence[Account], is_new: bool) -> DesiredContact:
    """Return the contact of `email` as its accounts want it; at least one account, all of them countable.

    `is_new` says that ActiveCampaign has not confirmed the contact yet: only then may it be subscribed.
    """
    best = max(accounts, key=_merit)
    return DesiredContact(
        email=email,
        first_name=_cut(best.first_name, MAX_NAME),
        last_name=_cut(best.last_name, MAX_NAME),
        phone=_cut(best.phone, MAX_PHONE),
        customer_id=str(best.customer.id),
        list_status=_list_status(accounts, is_new),
    )


def fingerprint(desired: DesiredContact) -> bytes:
    """Return 16 bytes that differ when something differs which a linked contact would be sent.

    A subscription is sent to a new contact only, so it does not count; an unsubscription does.
    """
    if desired.list_status is ListStatus.SUBSCRIBE:
        desired = msgspec.structs.replace(desired, list_status=ListStatus.LEAVE)
    return blake2b(msgspec.json.encode(desired), digest_size=FINGERPRINT_BYTES).digest()


def _counts(account: Account, site_id: int, email: Email) -> bool:
    customer = account.customer
    barred = customer.erased or customer.is_test
    return not barred and customer.site_id == site_id and customer.email == email


def _merit(account: Account) -> tuple[int, datetime, int]:
    """Rank by status, then the newest order, then the lower id."""
    newest = (account.newest_order_at or _NEVER).replace(tzinfo=UTC)  # asyncpg's infinity has no zone
    return _RANK.get(account.status, 0), newest, -account.customer.id


def _list_status(accounts: Sequence[Account], is_new: bool) -> ListStatus:
    if not all(account.email_opt_in and not account.email_blacklisted for account in accounts):
        return ListStatus.UNSUBSCRIBE
    return ListStatus.SUBSCRIBE if is_new else ListStatus.LEAVE


def _cut(text: str, length: int) -> str:
    return clean(text)[:length].rstrip()
