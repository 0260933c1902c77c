"""Verifier: looks at contacts where they should be, at ActiveCampaign and in the state, and tells the gaps.

It only reads, behind everything else in the account's budget. What the process that works the site has yet to
do is no gap.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import anyio

from kiva_stream.errors import ContactGone
from kiva_stream.model.contacts import ContactRecord, ContactStatus, ShownContact
from kiva_stream.model.customers import Customer
from kiva_stream.model.event_catalog import CATALOG
from kiva_stream.model.ids import AcId, ContactId, CustomerId
from kiva_stream.model.positions import Position
from kiva_stream.ports.destination import Contacts, ReadBacks, TrackingLogs, WeekTags
from kiva_stream.runtime.shop import Shop
from kiva_stream.state.evidence import Evidence, Stand
from kiva_stream.verification.discrepancies import (
    Discrepancy,
    DiscrepancyKind,
    Expected,
    Fault,
    Findings,
    contact_faults,
    findings,
    order_fault,
    tag_fault,
)
from kiva_stream.verification.expected_state import ExpectedContact, ExpectedState

CUSTOMERS_AT_ONCE = 1_000
CONTACTS_AT_ONCE = 20  # are read together, and looked at side by side
EVENT_NAMES = frozenset(CATALOG.ac_names())


class Account(NamedTuple):
    """What is asked of ActiveCampaign."""

    name: str  # by which the state knows it
    contacts: Contacts
    read_backs: ReadBacks
    tags: WeekTags
    logs: TrackingLogs


class ContactComparison:
    """Looks at one site; `titles` are those of the fields, by the attribute of DesiredContact.

    `is_owner`: this process holds the site, so that nobody else will do what is missing. Every call raises
    SettingsError, SourceError, CheckpointError, AccountRefused, TryLater, or ExceptionGroups of them.
    """

    def __init__(
        self,
        shop: Shop,
        evidence: Evidence,
        expectations: ExpectedState,
        account: Account,
        titles: Mapping[str, str],
        lookup_settle_s: float,
        *,
        is_owner: bool,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._shop = shop
        self._evidence = evidence
        self._expectations = expectations
        self._account = account
        self._titles = titles
        self._settle = timedelta(seconds=lookup_settle_s)
        self._is_owner = is_owner
        self._now = now

    async def stand(self) -> Stand:
        """Return where the site stands."""
        return await self._evidence.stand(self._account.name)

    # --- source and state ---

    async def look_at_state(self) -> list[Discrepancy]:
        """Return the gaps that can be seen without ActiveCampaign, of all customers and contacts."""
        found = [*await self._without_outcome()]
        after = CustomerId(0)
        while page := await self._shop.customers.page(after, CUSTOMERS_AT_ONCE):
            after = page[-1].id
            found += await self.look_at_links(page)
        for linked in await self._evidence.nobodys():
            found.append(
                _gap(linked, DiscrepancyKind.NO_CUSTOMER, "no customer has it, and it was not cleared")
            )
        for linked in await self._evidence.without_id():
            found.append(_gap(linked, DiscrepancyKind.CONTACT_ID, "the state does not know its id there"))
        return found

    async def look_at_links(self, customers: Iterable[Customer]) -> list[Discrepancy]:
        """Return who of these customers belongs at ActiveCampaign and has no contact there."""
        usable = [each.id for each in customers if each.email and not each.erased and not each.is_test]
        links = await self._evidence.places(usable)
        return [
            Discrepancy(
                DiscrepancyKind.NO_LINK, "belongs at ActiveCampaign, and never came there", customer=customer
            )
            for customer in usable
            if customer not in links or links[customer].status is ContactStatus.NEW
        ]

    async def _without_outcome(self) -> list[Discrepancy]:
        """Return whether the log has more entries up to the watermark than have an outcome or are parked."""
        stand = await self.stand()
        entries = await self._shop.positions.count(stand.counted_from, stand.watermark)
        missing = (entries or 0) - stand.outcomes - stand.parked
        what = f"{missing:,} entries at or below the watermark {stand.watermark} have no outcome"
        return [Discrepancy(DiscrepancyKind.OUTCOME, what)] if missing > 0 else []

    # --- ActiveCampaign ---

    async def look(self, contacts: Sequence[ContactRecord]) -> list[Discrepancy]:
        """Return the gaps of these contacts, by the order of the contacts."""
        found: list[Discrepancy] = []
        for first in range(0, len(contacts), CONTACTS_AT_ONCE):
            found += await self._look(contacts[first : first + CONTACTS_AT_ONCE])
        return found

    async def _look(self, contacts: Sequence[ContactRecord]) -> list[Discrepancy]:
        stand = await self.stand()  # first: what is read later is no older
        due = await self._due(contacts, stand)
        gaps: dict[int, list[Discrepancy]] = {}

        async def look_at(should: ExpectedContact) -> None:
            linked = should.linked
            found = await self._look_at(should, stand, has_tag=linked.contact.id not in due)
            gaps[linked.contact.id] = found

        async with anyio.create_task_group() as group:
            for should in await self._expectations.of(contacts, stand):
                group.start_soon(look_at, should)
        return [gap for linked in contacts for gap in gaps[linked.contact.id]]

    async def _due(self, contacts: Sequence[ContactRecord], stand: Stand) -> set[ContactId]:
        """Return the contacts whose week tag another process has yet to look at."""
        if self._is_owner or not stand.is_held:
            return set()
        return await self._evidence.due([linked.contact.id for linked in contacts])

    async def _look_at(self, should: ExpectedContact, stand: Stand, *, has_tag: bool) -> list[Discrepancy]:
        linked = should.linked
        found = [
            _gap(linked, DiscrepancyKind.MOVED, "has another address than their contact")._replace(
                customer=customer
            )
            for customer in should.movers
        ]
        shown = await self._shown(linked.ac_id)
        ac_id = linked.ac_id if shown else await self._account.contacts.find(linked.contact.email)
        if ac_id is None:
            return [*found, _gap(linked, DiscrepancyKind.NO_CONTACT, "ActiveCampaign has no such contact")]
        if shown is None:
            what = f"its id there is {ac_id}, by the state {linked.ac_id or 'not known'}"
            found.append(_gap(linked, DiscrepancyKind.CONTACT_ID, what, ac_id))
            shown = await self._account.read_backs.contact(ac_id)
        faults = [*self._faults_of_contact(should, shown)]
        if (
            has_tag
            and not should.is_left
            and (fault := tag_fault(should.tag, (await self._account.tags.links(ac_id)).keys()))
        ):
            faults.append(fault)
        found += [_gap(linked, *fault, ac_id) for fault in faults]
        return [*found, *await self._order_gaps(should, ac_id), *await self._event_gaps(should, stand, ac_id)]

    async def _shown(self, ac_id: AcId | None) -> ShownContact | None:
        try:
            return None if ac_id is None else await self._account.read_backs.contact(ac_id)
        except ContactGone:
            return None

    def _faults_of_contact(self, should: ExpectedContact, shown: ShownContact) -> Iterator[Fault]:
        if should.contact:
            yield from contact_faults(should.contact, shown, self._titles)
        elif should.must_unsubscribe and shown.is_subscribed and not should.is_left:
            yield Fault(DiscrepancyKind.LIST, "it is on the list, though nobody has it any more")

    async def _order_gaps(self, should: ExpectedContact, ac_id: AcId) -> list[Discrepancy]:
        wanted = {order.id: order for order in should.orders}
        shown = await self._account.read_backs.orders(wanted)
        faults = ((number, order_fault(order, shown.get(number))) for number, order in wanted.items())
        return [
            _gap(should.linked, *fault, ac_id)._replace(order=number) for number, fault in faults if fault
        ]

    async def _event_gaps(self, should: ExpectedContact, stand: Stand, ac_id: AcId) -> list[Discrepancy]:
        found = findings(
            should.events, await self._account.logs.events(ac_id, low_priority=True), EVENT_NAMES
        )
        gaps = [*self._gaps_of(found, should.linked, ac_id)]
        if found.others:
            gaps += await self._unexpected(found, should.linked, stand, ac_id)
        return gaps

    def _gaps_of(self, found: Findings, linked: ContactRecord, ac_id: AcId) -> Iterator[Discrepancy]:
        for kind, events, words in (
            (DiscrepancyKind.NO_EVENT, self._settled(found.missing), "its log does not list"),
            (DiscrepancyKind.REPEATED, found.repeated, "its log lists more than once"),
            (DiscrepancyKind.OUT_OF_ORDER, found.out_of_order, "it arrived after a later one:"),
        ):
            for each in events:
                what = f"{words} '{each.name}' of entry {each.position}"
                yield _gap(linked, kind, what, ac_id)._replace(position=each.position)
        if not_listed := self._settled(found.not_listed):
            what = (
                f"{len(not_listed):,} events up to entry {not_listed[-1].position} are older than all that "
                "its log lists: lost, or listed no more"
            )
            yield _gap(linked, DiscrepancyKind.NOT_LISTED, what, ac_id)

    def _settled(self, events: Iterable[Expected]) -> list[Expected]:
        """Return the events that ActiveCampaign has had the time to list."""
        until = self._now() - self._settle
        return [each for each in events if each.delivered_at is None or each.delivered_at <= until]

    async def _unexpected(
        self, found: Findings, linked: ContactRecord, stand: Stand, ac_id: AcId
    ) -> list[Discrepancy]:
        """Return the events that nobody sent: of no entry, or of one that is no event of this contact.

        Those above the watermark are on their way to their outcome; those from before the counts or the
        ledger began may be of earlier times, and those of the forgotten are not kept.
        """
        positions = await self._shop.positions.by_id({mark.log for _, mark in found.others})
        there = [each for each in positions.values() if stand.known_from < each <= stand.watermark]
        known = await self._evidence.accounted_for(there) | await self._of_forgotten(there)
        accounted = {number for number, each in positions.items() if each not in there or each in known}
        return [
            _gap(
                linked,
                DiscrepancyKind.UNEXPECTED,
                f"its log lists '{name}' of the entry with the id {mark.log}",
                ac_id,
            )._replace(position=positions.get(mark.log))
            for name, mark in found.others
            if mark.log not in accounted
        ]

    async def _of_forgotten(self, positions: Collection[Position]) -> set[Position]:
        """Return those of these entries whose customer is forgotten on request."""
        entries = await self._shop.log.entries(positions)
        gone = await self._evidence.forgotten({each.customer_id for each in entries if each.customer_id})
        return {each.position for each in entries if each.customer_id in gone}


def _gap(linked: ContactRecord, kind: DiscrepancyKind, what: str, ac_id: AcId | None = None) -> Discrepancy:
    customer = linked.customers[0] if linked.customers else None
    return Discrepancy(kind, what, linked.contact.id, customer, ac_id or linked.ac_id)
