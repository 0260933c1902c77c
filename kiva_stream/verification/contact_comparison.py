"""Comparison: what the shop and the log say of contacts, with ActiveCampaign and the state.

It only reads, with the lowest priority in the account's budget. What the process that works the site has yet
to do is no discrepancy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import anyio

from kiva_stream.errors import ContactGone
from kiva_stream.model.contacts import ContactRecord, ContactStatus, NotOnList, ShownContact
from kiva_stream.model.customers import Customer, contact_emails
from kiva_stream.model.event_catalog import CATALOG
from kiva_stream.model.ids import LOWEST_ID, AcId, ContactId, CustomerId
from kiva_stream.model.positions import Position
from kiva_stream.ports.destination import Contacts, ReadBacks, TrackingLogs, WeekTags
from kiva_stream.runtime.shop import Shop
from kiva_stream.state.evidence import Evidence, SiteProgress
from kiva_stream.verification.discrepancies import (
    Difference,
    Discrepancy,
    DiscrepancyKind,
    EventDifferences,
    ExpectedEvent,
    compare_events,
    contact_differences,
    order_difference,
    tag_difference,
)
from kiva_stream.verification.expected_state import ExpectedContact, ExpectedState

CUSTOMERS_AT_ONCE = 1_000
CONTACTS_AT_ONCE = 20  # are read together, and compared side by side
NO_IMPORT = Difference(
    DiscrepancyKind.NOT_ON_LIST, "it came by a request of its own, and no import has put it on the list"
)
EVENT_NAMES = frozenset(CATALOG.ac_names())


class Account(NamedTuple):
    """The parts of ActiveCampaign's API that are read."""

    name: str  # the state's name for it
    contacts: Contacts
    read_backs: ReadBacks
    tags: WeekTags
    logs: TrackingLogs


class ContactComparison:
    """Compares one site; `titles` are those of the fields, by the attribute of DesiredContact.

    `holds_site`: this process holds the site, so that no other will do what is missing. Every call raises
    SettingsError, SourceError, CheckpointError, AccountRefused, TryLater, or ExceptionGroups of them.
    """

    def __init__(
        self,
        shop: Shop,
        *,
        evidence: Evidence,
        expected_state: ExpectedState,
        account: Account,
        titles: Mapping[str, str],
        lookup_settle_s: float,
        holds_site: bool,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._shop = shop
        self._evidence = evidence
        self._expected_state = expected_state
        self._account = account
        self._titles = titles
        self._lookup_settle = timedelta(seconds=lookup_settle_s)
        self._holds_site = holds_site
        self._now = now

    async def progress(self) -> SiteProgress:
        """Return how far the site is."""
        return await self._evidence.progress(self._account.name)

    async def is_beside_another(self) -> bool:
        """Return whether another process works the site."""
        return not self._holds_site and (await self.progress()).is_held

    # --- source and state ---

    async def compare_state(self) -> list[Discrepancy]:
        """Return what can be seen without ActiveCampaign, of all customers and contacts."""
        found = [*await self._without_outcome()]
        after = CustomerId(LOWEST_ID)
        while page := await self._shop.customers.page(after, CUSTOMERS_AT_ONCE):
            after = page[-1].id
            found += await self.compare_links(page)
        found += [
            _discrepancy(record, DiscrepancyKind.NO_CUSTOMER, "no customer has it, and it was not cleared")
            for record in await self._evidence.without_customer()
        ]
        found += [
            _discrepancy(record, DiscrepancyKind.CONTACT_ID, "the state does not know its id there")
            for record in await self._evidence.without_id()
        ]
        return [*found, *await self._not_on_list()]

    async def _not_on_list(self) -> list[Discrepancy]:
        """Return the contacts that no import put on the list, and how many were on another one."""
        found = [_discrepancy(record, *NO_IMPORT) for record in await self._evidence.came_alone()]
        if count := await self._evidence.count_of_other_list():
            what = (
                f"{count:,} contacts were there before the account had this list; move the members of the "
                "old list to it at ActiveCampaign"
            )
            found.append(Discrepancy(DiscrepancyKind.NOT_ON_LIST, what))
        return found

    async def compare_links(self, customers: Iterable[Customer]) -> list[Discrepancy]:
        """Return which of these customers belong at ActiveCampaign and have no contact there."""
        usable = contact_emails(customers)
        contacts = await self._evidence.contacts_of(usable)
        never_came = "belongs at ActiveCampaign, and never came there"
        missing = [
            Discrepancy(DiscrepancyKind.NO_LINK, never_came, customer=customer)
            for customer in usable
            if customer not in contacts or contacts[customer].status is ContactStatus.NEW
        ]
        refused = "ActiveCampaign refuses the contact; the reply is that of its dead letters"
        return missing + [
            Discrepancy(DiscrepancyKind.REFUSED, refused, contact=contact.id, customer=customer)
            for customer in usable
            if (contact := contacts.get(customer)) and contact.is_refused
        ]

    async def _without_outcome(self) -> list[Discrepancy]:
        """Return whether the log has more entries up to the watermark than have an outcome or are parked."""
        progress = await self.progress()
        entries = await self._shop.positions.count(progress.counted_from, progress.watermark)
        missing = (entries or 0) - progress.outcomes - progress.parked
        what = f"{missing:,} entries at or below the watermark {progress.watermark} have no outcome"
        return [Discrepancy(DiscrepancyKind.OUTCOME, what)] if missing > 0 else []

    # --- ActiveCampaign ---

    async def compare(self, contacts: Sequence[ContactRecord]) -> list[Discrepancy]:
        """Return the discrepancies of these contacts, in the order of the contacts."""
        return [
            each
            for first in range(0, len(contacts), CONTACTS_AT_ONCE)
            for each in await self._compare(contacts[first : first + CONTACTS_AT_ONCE])
        ]

    async def _compare(self, contacts: Sequence[ContactRecord]) -> list[Discrepancy]:
        progress = await self.progress()  # read first, so that all else is at least as new
        due = await self._tags_due(contacts, progress)
        by_contact: dict[int, list[Discrepancy]] = {}

        async def compare_one(expected: ExpectedContact) -> None:
            contact = expected.record.contact.id
            by_contact[contact] = await self._compare_one(expected, progress, with_tag=contact not in due)

        async with anyio.create_task_group() as group:
            for expected in await self._expected_state.of(contacts, progress):
                group.start_soon(compare_one, expected)
        return [each for record in contacts for each in by_contact[record.contact.id]]

    async def _tags_due(self, contacts: Sequence[ContactRecord], progress: SiteProgress) -> set[ContactId]:
        """Return the contacts whose week tag another process has yet to swap."""
        if self._holds_site or not progress.is_held:
            return set()
        return await self._evidence.due([record.contact.id for record in contacts])

    async def _compare_one(
        self, expected: ExpectedContact, progress: SiteProgress, *, with_tag: bool
    ) -> list[Discrepancy]:
        record = expected.record
        moved = _discrepancy(record, DiscrepancyKind.MOVED, "has another address than their contact")
        found = [moved._replace(customer=customer) for customer in expected.movers]
        # There are three cases: ActiveCampaign has the contact under the id that the state knows, under
        # another id, which its address finds, or not at all.
        shown = await self._shown(record.ac_id)
        ac_id = record.ac_id if shown else await self._account.contacts.find(record.contact.email)
        if ac_id is None:
            what = "ActiveCampaign has no such contact"
            return [*found, _discrepancy(record, DiscrepancyKind.NO_CONTACT, what)]
        if shown is None:
            what = f"its id there is {ac_id}, by the state {record.ac_id or 'not known'}"
            found.append(_discrepancy(record, DiscrepancyKind.CONTACT_ID, what, ac_id=ac_id))
            shown = await self._account.read_backs.contact(ac_id)
        differences = [*self._contact_differences(expected, shown)]
        if with_tag:
            differences += await self._tag_differences(expected, ac_id)
        found += [_discrepancy(record, *each, ac_id=ac_id) for each in differences]
        found += await self._compare_orders(expected, ac_id)
        return [*found, *await self._compare_events(expected, progress, ac_id)]

    async def _shown(self, ac_id: AcId | None) -> ShownContact | None:
        try:
            return None if ac_id is None else await self._account.read_backs.contact(ac_id)
        except ContactGone:
            return None

    def _contact_differences(self, expected: ExpectedContact, shown: ShownContact) -> Iterator[Difference]:
        if expected.left_out:
            replies = (f"{name.replace('_', ' ')}: {reply}" for name, reply in expected.left_out.items())
            what = f"ActiveCampaign refuses values, which are left out; {'; '.join(replies)}"
            yield Difference(DiscrepancyKind.LEFT_OUT, what)
        if expected.record.not_on_list is NotOnList.CAME_ALONE:
            yield NO_IMPORT
        if expected.contact:
            yield from contact_differences(expected.contact, shown, self._titles)
        elif expected.must_unsubscribe and shown.is_subscribed and not expected.all_moved:
            yield Difference(DiscrepancyKind.LIST, "it is on the list, though nobody has it any more")

    async def _tag_differences(self, expected: ExpectedContact, ac_id: AcId) -> list[Difference]:
        if expected.all_moved:
            return []
        difference = tag_difference(expected.tag, (await self._account.tags.links(ac_id)).keys())
        return [difference] if difference else []

    async def _compare_orders(self, expected: ExpectedContact, ac_id: AcId) -> list[Discrepancy]:
        wanted = {order.id: order for order in expected.orders}
        shown = await self._account.read_backs.orders(wanted)
        differences = ((order, order_difference(wanted[order], shown.get(order))) for order in wanted)
        return [
            _discrepancy(expected.record, *each, ac_id=ac_id)._replace(order=order)
            for order, each in differences
            if each
        ]

    # --- events ---

    async def _compare_events(
        self, expected: ExpectedContact, progress: SiteProgress, ac_id: AcId
    ) -> list[Discrepancy]:
        logged = await self._account.logs.events(ac_id, low_priority=True)
        differences = compare_events(expected.events, logged, EVENT_NAMES)
        found = [*self._of_expected_events(differences, expected.record, ac_id)]
        if differences.unexpected:
            found += await self._unexpected_events(
                differences, expected.record, progress=progress, ac_id=ac_id
            )
        return found

    def _of_expected_events(
        self, found: EventDifferences, record: ContactRecord, ac_id: AcId
    ) -> Iterator[Discrepancy]:
        for kind, events, words in (
            (DiscrepancyKind.NO_EVENT, self._listed_by_now(found.missing), "its log does not list"),
            (DiscrepancyKind.REPEATED, found.repeated, "its log lists more than once"),
            (DiscrepancyKind.OUT_OF_ORDER, found.out_of_order, "it arrived after a later one:"),
        ):
            for each in events:
                what = f"{words} '{each.name}' of entry {each.position}"
                yield _discrepancy(record, kind, what, ac_id=ac_id)._replace(position=each.position)
        if not_listed := self._listed_by_now(found.not_listed):
            what = (
                f"{len(not_listed):,} events up to entry {not_listed[-1].position} are older than all that "
                "its log lists: lost, or listed no more"
            )
            yield _discrepancy(record, DiscrepancyKind.NOT_LISTED, what, ac_id=ac_id)

    def _listed_by_now(self, events: Iterable[ExpectedEvent]) -> list[ExpectedEvent]:
        """Return the events that ActiveCampaign has had the time to list."""
        until = self._now() - self._lookup_settle
        return [each for each in events if each.delivered_at is None or each.delivered_at <= until]

    async def _unexpected_events(
        self, found: EventDifferences, record: ContactRecord, *, progress: SiteProgress, ac_id: AcId
    ) -> list[Discrepancy]:
        """Return the listed events that are of no entry, or of an entry that is no event of this contact.

        The state cannot know of every entry, so that an event passes when its entry
        - lies above the watermark: it is on its way to its outcome;
        - lies below the beginning of the counts or of the ledger: it may be of earlier times;
        - was delivered, to whichever contact, or is parked or a dead letter;
        - is of a forgotten person, whose deliveries are not kept.
        """
        positions = await self._shop.positions.by_id({mark.log for _, mark in found.unexpected})
        known = [each for each in positions.values() if progress.known_from < each <= progress.watermark]
        accounted = await self._evidence.accounted_for(known) | await self._of_forgotten(known)
        passed = {log_id for log_id, at in positions.items() if at not in known or at in accounted}
        return [
            _discrepancy(
                record,
                DiscrepancyKind.UNEXPECTED,
                f"its log lists '{name}' of the entry with the id {mark.log}",
                ac_id=ac_id,
            )._replace(position=positions.get(mark.log))
            for name, mark in found.unexpected
            if mark.log not in passed
        ]

    async def _of_forgotten(self, positions: Collection[Position]) -> set[Position]:
        """Return those of these entries whose customer is forgotten on request."""
        entries = await self._shop.log.entries(positions)
        gone = await self._evidence.forgotten({each.customer_id for each in entries if each.customer_id})
        return {each.position for each in entries if each.customer_id in gone}


def _discrepancy(
    record: ContactRecord, kind: DiscrepancyKind, what: str, *, ac_id: AcId | None = None
) -> Discrepancy:
    customer = record.customers[0] if record.customers else None
    return Discrepancy(
        kind=kind, what=what, contact=record.contact.id, customer=customer, ac_id=ac_id or record.ac_id
    )
