"""Which differences of a contact are discrepancies, and which another process has yet to close. On fakes."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import anyio
from msgspec.structs import replace

from kiva_stream.errors import ContactGone
from kiva_stream.model.contacts import (
    Contact,
    ContactRecord,
    ContactStatus,
    DesiredContact,
    ListStatus,
    NotOnList,
    ShownContact,
)
from kiva_stream.model.customers import Customer
from kiva_stream.model.entries import Entry
from kiva_stream.model.event_catalog import CATALOG
from kiva_stream.model.ids import AcId, ContactId, CustomerId, Email, OrderId
from kiva_stream.model.orders import NEVER, Order, OrderSource, SentOrder, ShownOrder
from kiva_stream.model.positions import Position
from kiva_stream.model.tracked_events import LoggedEvent
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.runtime.shop import Shop
from kiva_stream.settings.sections import ActiveCampaignSettings
from kiva_stream.state.evidence import SiteProgress
from kiva_stream.verification.contact_comparison import Account, ContactComparison
from kiva_stream.verification.discrepancies import Discrepancy, DiscrepancyKind, ExpectedEvent
from kiva_stream.verification.expected_state import ExpectedContact, wanted_order
from kiva_stream.verification.verify import beside_another

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
NAME = CATALOG.events[0].ac_name
EMAIL = Email("ann@example.org")
CONTACT = Contact(ContactId(1), EMAIL, ContactStatus.LINKED)
ANN = ContactRecord(CONTACT, (CustomerId(7),), b"f", AcId(4))
DESIRED = DesiredContact(EMAIL, "", "", "", "7", ListStatus.KEEP)
SHOWN = ShownContact(EMAIL, "", "", "", {"customer_id": "7"}, is_subscribed=True)
PROGRESS = SiteProgress(Position(0, 0), Position(50, 50), None, None, outcomes=9, parked=1, is_held=False)
RIGHT = ExpectedContact(
    ANN, DESIRED, must_unsubscribe=False, movers=[], tag=WeekTag.NONE, orders=[], events=[]
)


class World:
    """The state, the shop and ActiveCampaign in one, as far as the comparison reads them."""

    def __init__(self, expected: ExpectedContact = RIGHT, progress: SiteProgress = PROGRESS) -> None:
        self.expected = expected
        self.now = progress
        self.shown = {AcId(4): SHOWN}
        self.at_address: AcId | None = AcId(4)
        self.tags_there = {WeekTag.NONE: 1}
        self.is_due = False
        self.logged: list[LoggedEvent] = []
        self.in_source = {30: Position(30, 30)}
        self.known: set[Position] = set()
        self.forgotten_ones: set[CustomerId] = set()
        self.entries_below = 10
        self.alone: list[ContactRecord] = []
        self.of_other_list = 0

    async def progress(self, _account: str) -> SiteProgress:
        return self.now

    async def of(self, *_asked: object) -> list[ExpectedContact]:
        return [self.expected]

    async def events(self, _contact: AcId, **_how: object) -> list[LoggedEvent]:
        return self.logged

    async def due(self, contacts: Collection[ContactId]) -> set[ContactId]:
        return set(contacts) if self.is_due else set()

    async def accounted_for(self, positions: Collection[Position]) -> set[Position]:
        return self.known & set(positions)

    async def forgotten(self, customers: Collection[CustomerId]) -> set[CustomerId]:
        return self.forgotten_ones & set(customers)

    async def contact(self, contact: AcId) -> ShownContact:
        if contact not in self.shown:
            raise ContactGone("gone")
        return self.shown[contact]

    async def find(self, _email: Email) -> AcId | None:
        return self.at_address

    async def links(self, _contact: AcId) -> dict[WeekTag, int]:
        return self.tags_there

    async def orders(self, _ids: Collection[OrderId]) -> dict[OrderId, ShownOrder]:
        return {}

    async def by_id(self, ids: Collection[int]) -> dict[int, Position]:
        return {number: self.in_source[number] for number in ids if number in self.in_source}

    async def entries(self, positions: Collection[Position]) -> list[Entry]:
        message = NOW, NOW, None, None, None, ""
        return [Entry(position, *message, None, CustomerId(7), None) for position in positions]

    async def count(self, _after: Position, _until: Position) -> int | None:
        return self.entries_below

    async def page(self, _after: CustomerId, _count: int) -> list[Customer]:
        return []

    async def without_customer(self) -> list[ContactRecord]:
        return []

    async def without_id(self) -> list[ContactRecord]:
        return []

    async def came_alone(self) -> list[ContactRecord]:
        return self.alone

    async def count_of_other_list(self) -> int:
        return self.of_other_list

    def comparison(self, *, holds_site: bool = False) -> ContactComparison:
        parts = cast("Any", self)
        account = Account("account", parts, parts, parts, parts)
        shop = Shop(*[parts] * 8)
        titles = dict.fromkeys(DesiredContact.__struct_fields__, "a field")
        return ContactComparison(
            shop,
            evidence=parts,
            expected_state=parts,
            account=account,
            titles=titles,
            lookup_settle_s=30,
            holds_site=holds_site,
            now=lambda: NOW,
        )

    def discrepancies(self, *, holds_site: bool = False) -> list[Discrepancy]:
        return anyio.run(self.comparison(holds_site=holds_site).compare, [ANN])

    def kinds(self, *, holds_site: bool = False) -> list[DiscrepancyKind]:
        return [each.kind for each in self.discrepancies(holds_site=holds_site)]


def test_a_contact_in_step_has_no_discrepancy() -> None:
    assert World().discrepancies() == []


def test_a_contact_that_is_gone_is_one_discrepancy_and_nothing_else_of_it_is_read() -> None:
    world = World(RIGHT._replace(tag=WeekTag.OPEN))
    world.shown, world.at_address = {}, None
    (found,) = world.discrepancies()
    assert (found.kind, found.contact, found.customer, found.ac_id) == (DiscrepancyKind.NO_CONTACT, 1, 7, 4)


def test_values_that_are_left_out_are_one_discrepancy_with_the_replies() -> None:
    desired = replace(DESIRED, phone=None, birthday=None)
    world = World(RIGHT._replace(contact=desired, left_out={"phone": "422 no", "birthday": "never"}))
    world.shown = {AcId(4): replace(SHOWN, phone="as before")}
    (found,) = world.discrepancies()
    assert found.kind is DiscrepancyKind.LEFT_OUT
    assert found.what.endswith("phone: 422 no; birthday: never")


def test_a_contact_under_another_id_is_compared_there() -> None:
    world = World()
    world.shown, world.at_address = {AcId(9): replace(SHOWN, first_name="x", fields={})}, AcId(9)
    assert [(each.kind, each.ac_id) for each in world.discrepancies()] == [
        (DiscrepancyKind.CONTACT_ID, 9),
        (DiscrepancyKind.FIELDS, 9),
    ]


def test_a_week_tag_that_another_process_has_yet_to_swap_is_no_discrepancy() -> None:
    wrong = RIGHT._replace(tag=WeekTag.OPEN)
    world = World(wrong, PROGRESS._replace(is_held=True))
    world.is_due = True
    assert world.kinds() == []
    assert world.kinds(holds_site=True) == [DiscrepancyKind.TAG]
    world.now = PROGRESS
    assert world.kinds() == [DiscrepancyKind.TAG]  # nobody is there to do it


def test_a_contact_to_unsubscribe_that_is_on_the_list_is_a_discrepancy() -> None:
    without_customers = RIGHT._replace(contact=None, must_unsubscribe=True, tag=None)
    world = World(without_customers)
    world.tags_there = {}
    assert world.kinds() == [DiscrepancyKind.LIST]
    world.expected = without_customers._replace(must_unsubscribe=False)
    assert world.kinds() == []


def test_a_customer_with_another_address_is_named() -> None:
    (found,) = World(RIGHT._replace(movers=[CustomerId(8)])).discrepancies()
    assert (found.kind, found.contact, found.customer) == (DiscrepancyKind.MOVED, 1, 8)


def test_a_contact_whose_customers_all_moved_has_no_other_discrepancy() -> None:
    left = RIGHT._replace(contact=None, must_unsubscribe=True, movers=[CustomerId(7)], tag=None)
    assert World(left).kinds() == [DiscrepancyKind.MOVED]


def event(number: int, age_s: float | None) -> ExpectedEvent:
    at = None if age_s is None else NOW - timedelta(seconds=age_s)
    return ExpectedEvent(Position(number, number), 1, NAME, "x", f"at=x; log={number}", at)


def listed(*numbers: int) -> list[LoggedEvent]:
    return [LoggedEvent(NAME, f"at=x; log={number}", None) for number in numbers]


def test_an_event_is_missing_only_when_there_was_time_to_list_it() -> None:
    world = World(RIGHT._replace(events=[event(1, 900), event(2, 29), event(3, 31), event(4, None)]))
    world.logged = listed(1)
    found = world.discrepancies()
    assert [(each.kind, each.position) for each in found] == [
        (DiscrepancyKind.NO_EVENT, Position(3, 3)),
        (DiscrepancyKind.NO_EVENT, Position(4, 4)),
    ]


def test_events_that_the_log_may_have_dropped_are_one_discrepancy() -> None:
    world = World(RIGHT._replace(events=[event(number, 900) for number in range(1, 6)]))
    world.logged = listed(5)
    (found,) = world.discrepancies()
    assert (found.kind, found.what[:32]) == (DiscrepancyKind.NOT_LISTED, "4 events up to entry 4:4 are old")


def test_an_unexpected_event_is_a_discrepancy_unless_the_state_cannot_know_of_it() -> None:
    world = World()
    world.logged = listed(30)
    assert world.kinds() == [DiscrepancyKind.UNEXPECTED]
    world.known = {Position(30, 30)}  # delivered to another contact, say
    assert world.kinds() == []
    world.known, world.forgotten_ones = set(), {CustomerId(7)}
    assert world.kinds() == []
    world.forgotten_ones, world.now = set(), PROGRESS._replace(watermark=Position(29, 29))
    assert world.kinds() == []  # on its way to its outcome
    world.now = PROGRESS._replace(pruned_to=Position(30, 30))
    assert world.kinds() == []  # from before the ledger began
    world.now, world.in_source = PROGRESS, {}
    assert world.kinds() == [DiscrepancyKind.UNEXPECTED]  # of no entry at all


def test_entries_without_an_outcome_are_counted_without_the_parked_ones() -> None:
    world = World()
    assert anyio.run(world.comparison().compare_state) == []
    world.entries_below = 12
    (found,) = anyio.run(world.comparison().compare_state)
    assert found.what.startswith("2 entries")
    world.entries_below = 3  # the shop threw old ones away
    assert anyio.run(world.comparison().compare_state) == []


def test_beside_a_process_that_works_the_site_a_fifth_of_the_limit_is_taken() -> None:
    settings = ActiveCampaignSettings(
        api_url="https://account.example", api_token="t", event_actid="1", event_key="k"
    )
    assert beside_another(settings).requests_per_second == 1
    assert beside_another(replace(settings, requests_per_second=3)).requests_per_second == 1
    assert beside_another(replace(settings, requests_per_second=20)).requests_per_second == 4


ORDER = Order(OrderId(4), CustomerId(7), "complete", "completed", NOW, NOW, 350, 0, 0, ())


def wanted(order: Order, sent: SentOrder | None) -> str | None:
    found = wanted_order(order, CONTACT, currency="USD", sent=sent)
    return None if found is None else found.normalized_status


def test_only_orders_that_belong_there_and_were_not_refused_are_expected() -> None:
    sent = SentOrder(OrderId(4), OrderSource.REAL_TIME, b"f", NOW)
    unpaid = replace(ORDER, paid_at=None, payment_status="failed")
    assert wanted(ORDER, sent) == "COMPLETED"
    assert wanted(ORDER, None) is None  # it has no items, and was never sent
    assert wanted(unpaid, None) is None
    assert wanted(unpaid, sent) == "FAILED"
    assert wanted(unpaid, replace(sent, accepted_at=NEVER)) is None
    assert wanted(ORDER, replace(sent, refused="no")) is None
    assert wanted(replace(ORDER, total_cents=-1), sent) is None


def test_contacts_that_no_import_put_on_the_list_are_told_each_and_those_of_another_list_together() -> None:
    world = World()
    world.alone, world.of_other_list = [ANN], 1_200
    one, many = anyio.run(world.comparison().compare_state)
    assert (one.kind, one.contact, one.customer) == ("not on list", ANN.contact.id, 7)
    assert (many.kind, many.contact, many.what[:5]) == ("not on list", None, "1,200")


def test_a_contact_that_came_alone_is_told_where_it_is_compared() -> None:
    world = World()
    record = replace(ANN, not_on_list=NotOnList.CAME_ALONE)
    world.expected = world.expected._replace(record=record)
    assert [each.kind for each in world.discrepancies()] == ["not on list"]
