"""Finds the customers of rows of the log, and makes entries of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from kiva_stream.model.customers import Customer
from kiva_stream.model.entries import Entry
from kiva_stream.model.ids import CustomerId, Email
from kiva_stream.model.positions import Position
from kiva_stream.source.customers import CustomerCache, ShopCustomers
from kiva_stream.source.identity import claimed, needs_customer

DATA_MAX_CHARS = 65_536  # longer data is ignored

# txid, id, occurred_at, inserted_at, action, actor_type, admin_user, message, data, customer_id
Row = tuple[
    int, int, datetime, datetime, str | None, str | None, str | None, str, str | None, CustomerId | None
]
Claim = CustomerId | Email | None  # the customer that a row names, by the id column, or by its text or data
Found = Mapping[Claim, Sequence[Customer]]  # customers by the claim that names them


class EntryCustomers:
    """Finds the customers of a page of rows, through a cache of at most `cache_rows` customers.

    Every call raises SourceError if the source cannot be read.
    """

    def __init__(self, customers: ShopCustomers, cache_rows: int) -> None:
        self._customers = customers
        self._cache = CustomerCache(cache_rows)

    def clear(self) -> None:
        """Empty the cache."""
        self._cache.clear()

    async def find(self, claims: Collection[Claim]) -> Found:
        """Return the customers by the claim that names them. A claim that names none is left out."""
        found: dict[Claim, Sequence[Customer]] = {}
        missing, emails = set(), set()
        for claim in set(claims):
            if isinstance(claim, str):
                emails.add(claim)
            elif claim is not None and (customer := self._cache.get(claim)):
                found[claim] = (customer,)
            elif claim is not None:
                missing.add(claim)
        if missing:
            read = await self._customers.by_id(missing)
            self._cache.put(read)
            found |= {customer.id: (customer,) for customer in read}
        if emails:
            found.update((await self._customers.by_email(emails)).items())
        return found


def claim_of(row: Row) -> Claim:
    """Return the claim of a row; None if it has none, or is noise."""
    action, message, data, customer_id = row[4], row[7], row[8], row[9]
    if not needs_customer(action):
        return None
    return customer_id if customer_id is not None else claimed(action, message, data)


def missing_since(rows: Sequence[Row], claims: Sequence[Claim], found: Found) -> list[datetime]:
    """Return the `inserted_at` of the rows that name a customer id that was not found."""
    pairs = zip(rows, claims, strict=True)
    return [row[3] for row, claim in pairs if isinstance(claim, int) and claim not in found]


def entries_of(rows: Sequence[Row], claims: Sequence[Claim], found: Found) -> list[Entry]:
    """Return rows as entries, each with the customer that its claim names."""
    return [_entry(row, claim, found.get(claim, ())) for row, claim in zip(rows, claims, strict=True)]


def _entry(row: Row, claim: Claim, customers: Sequence[Customer]) -> Entry:
    txid, log_id, occurred_at, inserted_at, action, actor_type, admin_user, message, data, _ = row
    customer = customers[0] if customers else None
    notes: tuple[str, ...] = ()
    if data is not None and len(data) > DATA_MAX_CHARS:
        data, notes = None, (*notes, "bad_data")
    if len(customers) > 1:
        notes = (*notes, "ambiguous")
    if customer is not None and customer.several_addresses:
        notes = (*notes, "several_addresses")
    return Entry(
        position=Position(txid, log_id),
        occurred_at=occurred_at,
        inserted_at=inserted_at,
        action=action,
        actor_type=actor_type,
        admin_user=admin_user,
        message=message,
        data=data,
        customer_id=customer.id if customer else claim if isinstance(claim, int) else None,
        customer=customer,
        notes=notes,
    )
