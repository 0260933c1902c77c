"""The expected state: what ActiveCampaign should have of contacts, by the shop's rows, the log and the state.

The events are those that the ledger has of a contact, and those of its customers' entries below the watermark
that should have been delivered and have no outcome. Of an entry that names its customer by text alone, only
the ledger knows the contact.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from kiva_stream.model.classifications import Classification, Event
from kiva_stream.model.contacts import Contact, ContactRecord, DesiredContact
from kiva_stream.model.customers import CustomerAccount, contact_emails
from kiva_stream.model.entries import Entry
from kiva_stream.model.event_catalog import CATALOG
from kiva_stream.model.ids import ContactId, CustomerId, OrderId
from kiva_stream.model.orders import DesiredOrder, Order, OrderSource, SentOrder
from kiva_stream.model.positions import Position
from kiva_stream.model.tracked_events import mark_of
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.pipeline.classification import classifier_of
from kiva_stream.pipeline.duplicates import Duplicates
from kiva_stream.runtime.shop import Shop
from kiva_stream.settings.sections import PipelineSettings
from kiva_stream.state.evidence import Evidence, LedgerEvent, SiteProgress
from kiva_stream.state.orders import OrderStates
from kiva_stream.sync.desired_contact import countable, desired_contact, must_unsubscribe
from kiva_stream.sync.desired_order import desired_order, invalid
from kiva_stream.sync.desired_week_tag import week_tag
from kiva_stream.sync.refused_fields import left_out, without
from kiva_stream.verification.discrepancies import ExpectedEvent

NAMES = {line.number: line.ac_name for line in CATALOG.events}


class ExpectedContact(NamedTuple):
    """What ActiveCampaign should have of a contact."""

    record: ContactRecord
    contact: DesiredContact | None  # None: no customer of it counts any more
    must_unsubscribe: bool  # then it belongs off the list
    movers: list[CustomerId]  # its customers who have another address by now
    tag: WeekTag | None
    orders: list[DesiredOrder]
    events: list[ExpectedEvent]  # in log order
    left_out: Mapping[str, str] = {}  # the fields whose values ActiveCampaign refuses, with its replies

    @property
    def all_moved(self) -> bool:
        """Whether its customers have another address by now, so that what it shows moves with them."""
        return self.contact is None and bool(self.movers)


class _Log(NamedTuple):
    """The entries of some customers, and what became of them."""

    entries: Mapping[Position, Entry]
    classifications: Mapping[Position, Classification]
    without_outcome: Mapping[Position, Event]  # events of which the state knows nothing, in log order


class _Facts(NamedTuple):
    """What is read for some contacts together."""

    customer_accounts: Mapping[CustomerId, CustomerAccount]
    orders: list[Order]
    sent: Mapping[OrderId, SentOrder]
    statuses: Mapping[CustomerId, Collection[str]]  # of the orders of the current week
    kept: Mapping[ContactId, list[LedgerEvent]]
    log: _Log
    today: date  # the site's


class ExpectedState:
    """The expected state of one site. Every call raises SourceError, CheckpointError."""

    def __init__(
        self,
        shop: Shop,
        *,
        evidence: Evidence,
        sent: OrderStates,
        settings: PipelineSettings,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._shop = shop
        self._evidence = evidence
        self._sent = sent
        self._settings = settings
        self._now = now

    async def of(self, contacts: Sequence[ContactRecord], progress: SiteProgress) -> list[ExpectedContact]:
        """Return what ActiveCampaign should have of these contacts; `progress` has to be read before them."""
        facts = await self._facts(contacts, progress)
        return [self._contact(record, facts) for record in contacts]

    async def _facts(self, contacts: Sequence[ContactRecord], progress: SiteProgress) -> _Facts:
        customers = {customer for record in contacts for customer in record.customers}
        customer_accounts = await self._shop.customers.accounts(customers)
        orders = await self._shop.orders.of(customers)
        kept = await self._evidence.deliveries([record.contact.id for record in contacts])
        week = await self._shop.weeks.current()
        return _Facts(
            customer_accounts={each.customer.id: each for each in customer_accounts},
            orders=orders,
            sent=await self._sent.sent([order.id for order in orders]),
            statuses=await self._shop.weeks.statuses(customers, week),
            kept=kept,
            log=await self._log(customers, kept, progress),
            today=self._now().astimezone(ZoneInfo(self._shop.site.timezone)).date(),
        )

    def _contact(self, record: ContactRecord, facts: _Facts) -> ExpectedContact:
        contact, site = record.contact, self._shop.site
        known = facts.customer_accounts
        mine = [known[customer] for customer in record.customers if customer in known]
        counted = countable(mine, site.id, contact.email)
        statuses = [facts.statuses.get(each.customer.id, ()) for each in counted]
        orders = (order for order in facts.orders if order.customer_id in record.customers)
        wanted = (
            wanted_order(each, contact, currency=site.currency, sent=facts.sent.get(each.id))
            for each in orders
        )
        wanted_contact = (
            desired_contact(contact.email, counted, is_new=False, today=facts.today) if counted else None
        )
        fields = left_out(record, wanted_contact) if wanted_contact else []
        return ExpectedContact(
            record=record,
            contact=wanted_contact and without(wanted_contact, fields),
            left_out={name: record.left_out[name].reply for name in fields},
            must_unsubscribe=not counted and must_unsubscribe(mine),
            movers=_movers(mine, contact),
            tag=week_tag(statuses) if counted else None,
            orders=[order for order in wanted if order is not None],
            events=_events(record, facts.kept.get(contact.id, []), facts.log),
        )

    async def _log(
        self,
        customers: Collection[CustomerId],
        kept: Mapping[ContactId, Sequence[LedgerEvent]],
        progress: SiteProgress,
    ) -> _Log:
        """Return these customers' entries up to the watermark, and those whose events the ledger has."""
        named = await self._shop.log.entries_of(customers, progress.watermark)
        delivered = {each.position for rows in kept.values() for each in rows}
        others = await self._shop.log.entries(delivered - {entry.position for entry in named})
        classify = classifier_of(self._shop.site, progress.events_since)
        entries = {entry.position: entry for entry in (*named, *others)}
        classifications = {position: classify(entry) for position, entry in entries.items()}
        events = self._without_repeats(named, classifications)
        undelivered = [each for each in events if each > progress.known_from and each not in delivered]
        done = await self._evidence.accounted_for(undelivered)
        left = {position: events[position] for position in undelivered if position not in done}
        return _Log(entries, classifications, left)

    def _without_repeats(
        self, entries: Iterable[Entry], classifications: Mapping[Position, Classification]
    ) -> dict[Position, Event]:
        """Return which of these entries are events, without those that the shop wrote twice."""
        duplicates = Duplicates(self._settings.window, self._settings.duplicate_window_s)
        classified = ((entry, classifications[entry.position]) for entry in entries)
        events = ((entry, each) for entry, each in classified if isinstance(each, Event))
        return {
            entry.position: event for entry, event in events if not duplicates.compare_and_add(entry, event)
        }


def wanted_order(
    order: Order, contact: Contact, *, currency: str, sent: SentOrder | None
) -> DesiredOrder | None:
    """Return an order as ActiveCampaign should show it; None: it does not belong there, or was refused."""
    was_accepted = sent is not None and sent.was_accepted
    is_refused = bool(invalid(order)) or (sent is not None and bool(sent.refused))
    if is_refused or not (order.is_paid or was_accepted):
        return None
    source = sent.source if sent else OrderSource.HISTORICAL
    desired = desired_order(order, contact.email, currency=currency, source=source, was_accepted=was_accepted)
    return desired if sent or desired.lines else None


def _movers(customer_accounts: Iterable[CustomerAccount], contact: Contact) -> list[CustomerId]:
    """Return the customers who have another address than their contact."""
    emails = contact_emails(each.customer for each in customer_accounts)
    return [customer for customer, email in emails.items() if email != contact.email]


def _events(record: ContactRecord, kept: Sequence[LedgerEvent], log: _Log) -> list[ExpectedEvent]:
    without_outcome = (
        _event(position, event)
        for position, event in log.without_outcome.items()
        if log.entries[position].customer_id in record.customers
    )
    return sorted([*(_of_ledger(each, log) for each in kept), *without_outcome])


def _of_ledger(kept: LedgerEvent, log: _Log) -> ExpectedEvent:
    """Return a delivered event. What it said is known only while its entry still is the same event."""
    classification = log.classifications.get(kept.position)
    name = NAMES[kept.event_line]
    if isinstance(classification, Event) and classification.event_line.ac_name == name:
        return _event(kept.position, classification)._replace(delivered_at=kept.delivered_at)
    return ExpectedEvent(
        position=kept.position, event_line=kept.event_line, name=name, at=None, delivered_at=kept.delivered_at
    )


def _event(position: Position, classification: Event) -> ExpectedEvent:
    mark = mark_of(classification.eventdata)
    return ExpectedEvent(
        position=position,
        event_line=classification.event_line.number,
        name=classification.event_line.ac_name,
        at=mark.at if mark else None,
        eventdata=classification.eventdata,
    )
