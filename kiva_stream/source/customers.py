"""The shop's customers: read for contacts, and cached for the entries of the log."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable

import asyncpg

from kiva_stream.model.addresses import parse_email, spellings
from kiva_stream.model.customers import Customer, CustomerAccount
from kiva_stream.model.ids import CustomerId, Email
from kiva_stream.model.tombstones import NONE_FORGOTTEN, ForgottenPeople
from kiva_stream.source.source import Source


class CustomerCache:
    """The customers that were used last, at most `rows` of them. One that was not found is not cached."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._customers: OrderedDict[CustomerId, Customer] = OrderedDict()

    def get(self, customer_id: CustomerId) -> Customer | None:
        """Return a cached customer, or None."""
        customer = self._customers.get(customer_id)
        if customer is not None:
            self._customers.move_to_end(customer_id)
        return customer

    def put(self, customers: Iterable[Customer]) -> None:
        """Cache customers, and evict those that were not used for the longest time."""
        for customer in customers:
            self._customers[customer.id] = customer
        while len(self._customers) > self._rows:
            self._customers.popitem(last=False)

    def clear(self) -> None:
        """Evict all."""
        self._customers.clear()


class ShopCustomers:
    """Implements the port Customers for one site. Every call raises SourceError if the source cannot be read.

    `forgotten` people read as erased, and customers with an address of `skip_domains` as test customers.
    """

    def __init__(
        self,
        source: Source,
        site_id: int,
        skip_domains: Collection[str],
        *,
        forgotten: ForgottenPeople = NONE_FORGOTTEN,
    ) -> None:
        self._source = source
        self._site_id = site_id
        self._skip_domains = frozenset(domain.lower() for domain in skip_domains)
        self._forgotten = forgotten

    def without(self, forgotten: ForgottenPeople) -> ShopCustomers:
        """Return the same customers, but for these people, who read as erased."""
        return ShopCustomers(self._source, self._site_id, self._skip_domains, forgotten=forgotten)

    async def by_id(self, ids: Collection[CustomerId]) -> list[Customer]:
        """Return the customers of these ids that exist, on any site."""
        return [self._customer(row) for row in await self._source.fetch("customers_by_id", list(ids))]

    async def by_email(self, emails: Collection[Email]) -> dict[Email, list[Customer]]:
        """Return this site's customers of these addresses: those who are not erased first, then by id.

        They are looked up by the spellings that an index finds. A customer whose field holds several
        addresses is found by none of them.
        """
        found: dict[Email, list[Customer]] = {}
        texts = [text for email in emails for text in spellings(email)]
        for row in await self._source.look_up("customers_by_email", self._site_id, texts):
            customer = self._customer(row)
            if customer.email is not None:
                found.setdefault(customer.email, []).append(customer)
        for customers in found.values():
            customers.sort(key=lambda customer: (customer.erased, customer.id))
        return found

    async def count_reachable(self) -> int:
        """Return the approximate number of customers with an address, for an estimate."""
        rows = await self._source.fetch("count_reachable", self._site_id)
        return rows[0][0]  # type: ignore[no-any-return]  # bigint

    async def page(self, after: CustomerId, count: int) -> list[Customer]:
        """Return customers by id, erased ones and test customers too."""
        rows = await self._source.fetch("customers_after", self._site_id, after, count)
        return [self._customer(row) for row in rows]

    async def accounts(self, ids: Collection[CustomerId]) -> list[CustomerAccount]:
        """Return customers with all that a contact shows of them."""
        rows = await self._source.fetch("customer_accounts", self._site_id, list(ids))
        return [self._account(row) for row in rows]

    def _customer(self, row: asyncpg.Record) -> Customer:
        address, customer_id = parse_email(row["email"]), CustomerId(row["id"])
        return Customer(
            id=customer_id,
            site_id=row["site_id"],
            email=address.email,
            name=" ".join(f"{row['first_name'] or ''} {row['last_name'] or ''}".split()),
            is_test=row["is_test"] or self._is_skipped(address.email),
            erased=row["erased"] or self._forgotten.includes(customer_id, address.email),
            several_addresses=address.several,
        )

    def _is_skipped(self, email: Email | None) -> bool:
        return email is not None and email.rpartition("@")[2] in self._skip_domains

    def _account(self, row: asyncpg.Record) -> CustomerAccount:
        return CustomerAccount(
            customer=self._customer(row),
            first_name=row["first_name"] or "",
            last_name=row["last_name"] or "",
            phone=row["phone"] or "",
            status=row["status"] or "",
            newest_order_at=row["newest_order_at"],
            email_opt_in=row["email_opt_in"],
            email_blacklisted=row["email_blacklisted"],
            next_delivery=row["next_delivery"],
            cancel_date=row["cancel_date"],
            birthday=row["birthday"],
            box_type=row["box_type"],
            joined_at=row["joined_at"],
        )
