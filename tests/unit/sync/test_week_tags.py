"""Week tags: which contacts' tags are changed when, by which requests; no contact ever has two."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise
from typing import Any, cast

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kiva_stream.errors import AccountRefused
from kiva_stream.model.contacts import Contact, ContactRecord
from kiva_stream.model.customers import Customer
from kiva_stream.model.held_records import HeldKey, HeldKind
from kiva_stream.model.ids import AcId, ContactId
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.observability.incidents import Incidents
from kiva_stream.ports.destination import Contacts
from kiva_stream.sync.contact_locks import ContactLocks
from kiva_stream.sync.conviction import ROW
from kiva_stream.sync.lone_requests import TagRequests
from kiva_stream.sync.tag_kind import tag_kind
from kiva_stream.sync.week_tags import LAST_TRIES_S, PAGE_ROWS, PATIENCE_S, WeekTagSync
from tests.fakes.source import FakeCustomers, FakeWeeks
from tests.fakes.state_held import FakeHeldRows, held_records, silent
from tests.fakes.week_tags import FakeDueContacts, FakeTaggedAccount
from tests.support.entries import SITE, account, customer
from tests.support.orders import NEW, NEXT_WEEK, REJECTED, WEEK, linked
from tests.support.virtual_time import now, run
from tests.support.waiting import raises_one

OPEN, CLOSED, NONE = WeekTag.OPEN, WeekTag.CLOSED, WeekTag.NONE
RETRY_HELD_S = 60.0
TAG_3 = HeldKey(HeldKind.TAG, 3)

PROBE_EVERY_S = 300


class Bench:
    """Week tag sync with what stands around it. State, shop and ActiveCampaign outlive a `begin`."""

    def __init__(self) -> None:
        self.due = FakeDueContacts()
        self.weeks = FakeWeeks(WEEK)
        self.customers = FakeCustomers()
        self.account = FakeTaggedAccount()
        self.held_rows = FakeHeldRows()

    def begin(self) -> None:
        """Begin a new process."""
        self.locks = ContactLocks()
        self.incidents = Incidents()
        self.kind = tag_kind(self.incidents, PROBE_EVERY_S)
        self.held = held_records(self.held_rows, RETRY_HELD_S)
        contacts = cast("Contacts", self.account)  # as much of it as week tags need
        self.sync = WeekTagSync(
            SITE.id,
            due=self.due,
            weeks=self.weeks,
            customers=cast("Any", self.customers),
            tags=TagRequests(
                self.account,
                contacts,
                RETRY_HELD_S,
                on_recovery=partial(self.held.make_due, HeldKind.TAG),
            ),
            locks=self.locks,
            kind=self.kind,
            held=self.held,
        )

    def run(self, story: Callable[[Bench], Awaitable[None]]) -> Bench:
        """Play a story in virtual time."""

        async def play() -> None:
            self.begin()
            await story(self)

        run(play())
        return self

    async def sync_due(self) -> None:
        await self.sync.sync_due()

    def shop(self, number: int, *statuses: str, **changes: object) -> Customer:
        """Have a customer with orders of this week."""
        who = customer(number, **changes)
        self.customers.rows[who.id] = account(who)
        if statuses:
            self.weeks.rows[who.id, WEEK] = set(statuses)
        return who

    def known(self, number: int, tag: WeekTag, **known: Any) -> ContactRecord:  # noqa: ANN401  columns are of any type
        """Have a contact that has a tag, of which we know the link; it is due."""
        ac_id = self.account.put(number, tag)
        link = self.account.tags[ac_id][tag]
        row = linked(number, **{"ac_id": ac_id, "tag": tag, "tag_link": link, **known})
        self.due.put(row)
        return row

    def stranger(self, number: int, *tags: WeekTag, **known: Any) -> None:  # noqa: ANN401
        """Have a contact of which we know no tag; it is due."""
        self.due.put(linked(number, **{"ac_id": self.account.put(number, *tags), **known}))

    def is_nothing_due(self) -> bool:
        return not self.due.marks


def to_be_closed(count: int, *refused: int) -> Bench:
    """Return a bench with contacts whose tag is to change from open to closed; it is refused for some."""
    bench = Bench()
    for number in range(1, count + 1):
        bench.shop(number, "closed")
        ac_id = bench.known(number, OPEN).ac_id
        if number in refused and ac_id is not None:
            bench.account.rejected.add(ac_id)
    return bench


# --- which tag ---


@pytest.mark.parametrize(
    ("statuses", "tag"),
    [
        ([], NONE),
        (["cancelled", "skipped"], NONE),
        (["closed"], CLOSED),
        (["complete", "skipped"], CLOSED),
        (["open", "complete"], OPEN),
    ],
)
def test_a_contact_gets_the_tag_of_its_orders_of_the_week(statuses: list[str], tag: WeekTag) -> None:
    bench = Bench()
    bench.shop(1, *statuses)
    bench.stranger(1)
    assert bench.run(Bench.sync_due).account.tag_of(1) is tag
    assert bench.is_nothing_due()


def test_an_open_order_of_any_customer_of_a_contact_decides_its_tag() -> None:
    bench = Bench()
    ann, bob = bench.shop(1, "closed"), bench.shop(2, "open", email=customer(1).email)
    bench.account.put(1, CLOSED)
    bench.due.put(linked(1, ann, bob))
    assert bench.run(Bench.sync_due).account.tag_of(1) is OPEN


def test_a_customer_who_has_another_address_now_does_not_count() -> None:
    bench = Bench()
    ann, bob = bench.shop(1, "closed"), bench.shop(2, "open")
    bench.account.put(1)
    bench.due.put(linked(1, ann, bob))
    assert bench.run(Bench.sync_due).account.tag_of(1) is CLOSED


def test_orders_of_another_week_count_for_nothing() -> None:
    bench = Bench()
    bench.shop(1)
    bench.weeks.rows[1, NEXT_WEEK] = {"open"}
    bench.stranger(1)
    assert bench.run(Bench.sync_due).account.tag_of(1) is NONE


@pytest.mark.parametrize("is_known", [True, False])
def test_a_contact_for_which_no_customer_counts_loses_its_tag(is_known: bool) -> None:
    bench = Bench()
    bench.shop(1, "open", erased=True)
    if is_known:
        bench.known(1, OPEN)
    else:
        bench.stranger(1, OPEN)
    assert bench.run(Bench.sync_due).account.tag_of(1) is None
    assert bench.is_nothing_due()


def test_a_contact_whose_customers_are_gone_loses_its_tag() -> None:
    bench = Bench()
    bench.known(1, OPEN)
    assert bench.run(Bench.sync_due).account.tag_of(1) is None


# --- with which requests ---


def test_contacts_whose_tag_is_right_are_cleared_together_without_a_request() -> None:
    bench = Bench()
    for number in range(1, 8):
        bench.shop(number, "open")
        bench.known(number, OPEN)
    bench.run(Bench.sync_due)
    assert bench.is_nothing_due()
    assert bench.account.calls == []
    assert bench.due.forgotten == []
    assert bench.due.settled_at_once == [7]


def test_a_tag_that_came_with_the_import_is_right_although_its_link_is_not_known() -> None:
    bench = Bench()
    bench.shop(1, "open")
    bench.stranger(1, OPEN, tag=OPEN)
    assert bench.run(Bench.sync_due).account.calls == []


def test_a_swap_by_a_known_link_is_two_requests_off_then_on() -> None:
    bench = to_be_closed(1)
    assert bench.run(Bench.sync_due).account.calls == ["remove", "add"]
    row, ac_id = bench.due.contacts[ContactId(1)], bench.account.put(1)
    assert (row.tag, row.ac_id) == (CLOSED, ac_id)
    assert row.tag_link is not None


def test_the_link_of_a_swap_is_known_at_the_next_one() -> None:
    bench = to_be_closed(1)

    async def story(bench: Bench) -> None:
        await bench.sync_due()
        bench.shop(1, "open")
        bench.due.touch(1)
        await bench.sync_due()

    assert bench.run(story).account.calls == ["remove", "add"] * 2
    assert bench.account.tag_of(1) is OPEN


@pytest.mark.parametrize("tag", [None, OPEN])
def test_a_swap_by_an_unknown_link_asks_first(tag: WeekTag | None) -> None:
    bench = Bench()
    bench.shop(1, "closed")
    bench.stranger(1, OPEN, tag=tag)
    assert bench.run(Bench.sync_due).account.calls == ["links", "remove", "add"]
    assert bench.account.tag_of(1) is CLOSED


def test_a_tag_that_is_there_already_is_only_noted_and_every_other_one_goes() -> None:
    bench = Bench()
    bench.shop(1, "closed")
    bench.stranger(1, OPEN, CLOSED, NONE)  # put there by hand
    assert bench.run(Bench.sync_due).account.calls == ["links", "remove", "remove"]
    assert bench.account.tag_of(1) is CLOSED
    assert bench.due.contacts[ContactId(1)].tag_link == next(iter(bench.account.tags.values()))[CLOSED]


def test_a_contact_without_a_known_id_is_found_by_its_address() -> None:
    bench = Bench()
    bench.shop(1, "closed")
    bench.stranger(1, OPEN, ac_id=None)
    assert bench.run(Bench.sync_due).account.calls == ["find", "links", "remove", "add"]
    assert bench.due.contacts[ContactId(1)].ac_id == 501


@pytest.mark.parametrize("ac_id", [None, 501])
def test_a_contact_that_activecampaign_does_not_have_is_not_due_any_more(ac_id: int | None) -> None:
    bench = Bench()
    bench.shop(1, "closed")
    bench.stranger(1, ac_id=ac_id)
    bench.account.drop(1)
    bench.run(Bench.sync_due)
    assert bench.is_nothing_due()
    assert bench.account.tags == {}


def test_a_new_contact_stays_due_and_a_refused_contact_does_not() -> None:
    bench = Bench()
    for number, status in ((1, NEW), (2, REJECTED)):
        bench.shop(number, "open")
        bench.due.put(linked(number, status=status))
    bench.run(Bench.sync_due)
    assert list(bench.due.marks) == [1]
    assert bench.account.calls == []


def test_all_pages_are_worked_several_contacts_at_once_and_a_page_is_forgotten_before_its_first_swap() -> (
    None
):
    bench = to_be_closed(PAGE_ROWS + 20)

    async def story(bench: Bench) -> None:
        began = now()
        await bench.sync_due()
        assert now() - began < 2 * 0.1 * (PAGE_ROWS + 20) / 5

    bench.run(story)
    assert bench.is_nothing_due()
    assert {bench.account.tag_of(number) for number in range(1, PAGE_ROWS + 21)} == {CLOSED}
    assert len(bench.account.calls) == 2 * (PAGE_ROWS + 20)
    assert list(map(len, bench.due.forgotten)) == [PAGE_ROWS, 20]
    assert bench.account.most_busy >= 5


def test_the_state_says_that_a_tag_is_not_known_before_the_first_request() -> None:
    bench = to_be_closed(1)

    def look(_call: str) -> None:
        assert bench.due.contacts[ContactId(1)].tag is None

    bench.account.on_call = look
    assert bench.run(Bench.sync_due).account.calls == ["remove", "add"]


def test_an_account_that_is_refused_ends_the_work_and_what_is_left_stays_due() -> None:
    bench = to_be_closed(1)
    bench.account.refuses = True

    async def story(bench: Bench) -> None:
        with raises_one(AccountRefused):
            await bench.sync_due()

    assert not bench.run(story).is_nothing_due()


# --- what is refused ---


def test_a_refused_tag_stays_due_and_the_other_contacts_get_theirs() -> None:
    bench = to_be_closed(5, 2).run(Bench.sync_due)
    assert [bench.account.tag_of(number) for number in (1, 3, 4, 5)] == [CLOSED] * 4
    assert list(bench.due.marks) == [2]
    assert bench.incidents.all() == []


def test_a_tag_that_is_refused_between_two_others_is_left_until_its_contact_is_due_again() -> None:
    async def story(bench: Bench) -> None:
        for number in (1, 2, 3):
            await bench.sync.sync_one(ContactId(number))
        assert bench.is_nothing_due()
        bench.account.rejected.clear()
        asked = len(bench.account.calls)
        await bench.sync_due()
        assert len(bench.account.calls) == asked
        bench.due.touch(2)
        await bench.sync_due()

    assert to_be_closed(3, 2).run(story).account.tag_of(2) is CLOSED


def test_a_tag_that_is_refused_first_is_tried_again_after_another_is_taken() -> None:
    async def story(bench: Bench) -> None:
        await bench.sync.sync_one(ContactId(1))
        bench.account.rejected.clear()
        await bench.sync.sync_one(ContactId(2))
        await bench.sync_due()

    assert to_be_closed(2, 1).run(story).account.tag_of(1) is CLOSED


def unlink(bench: Bench) -> None:
    row = bench.due.contacts[ContactId(2)]
    rejected = Contact(ContactId(2), row.contact.email, REJECTED)
    bench.due.contacts[ContactId(2)] = replace(row, contact=rejected)


@pytest.mark.parametrize("lose", [lambda bench: bench.account.drop(2), unlink], ids=["there", "here"])
def test_a_refused_tag_of_a_contact_that_is_gone_is_forgotten(lose: Callable[[Bench], object]) -> None:
    async def story(bench: Bench) -> None:
        for number in (1, 2):
            await bench.sync.sync_one(ContactId(number))
        lose(bench)
        for number in (2, 3):
            await bench.sync.sync_one(ContactId(number))
        assert bench.is_nothing_due()
        assert not bench.kind.has_due

    to_be_closed(3, 2).run(story)


def test_refusals_of_tags_in_a_row_pause_all_tags_until_a_probe_is_taken() -> None:
    count = ROW + 3

    async def story(bench: Bench) -> None:
        for number in range(1, count + 1):
            await bench.sync.sync_one(ContactId(number))
        (incident,) = bench.incidents.all()
        assert incident.kind == "tags"
        assert "kiva-stream setup" in incident.why
        asked = len(bench.account.calls)
        await bench.sync_due()
        assert len(bench.account.calls) == asked

        await anyio.sleep(PROBE_EVERY_S)
        bench.account.rejected.clear()
        await bench.sync_due()
        assert bench.incidents.all() == []
        await bench.sync_due()

    bench = to_be_closed(count, *range(1, count + 1)).run(story)
    assert [bench.account.tag_of(number) for number in range(1, count + 1)] == [CLOSED] * count
    assert bench.is_nothing_due()


# --- a stop in the middle of a swap ---


async def stopped_when_it_adds(bench: Bench, add_takes_s: float) -> None:
    """Sync the due contacts, and be stopped as soon as the new tag is being added."""
    bench.begin()
    async with anyio.create_task_group() as group:

        def stop(call: str) -> None:
            if call == "add":
                bench.account.takes_s = add_takes_s
                group.cancel_scope.cancel()

        bench.account.on_call = stop
        group.start_soon(bench.sync_due)


def test_a_stop_after_the_old_tag_went_still_puts_the_new_one_on() -> None:
    bench = to_be_closed(1)
    run(stopped_when_it_adds(bench, PATIENCE_S / 2))
    assert bench.account.calls == ["remove", "add"]
    assert bench.account.tag_of(1) is CLOSED
    assert bench.due.contacts[ContactId(1)].tag is CLOSED


def test_a_stop_during_an_outage_waits_no_longer_than_that_and_the_next_run_puts_the_tag_on() -> None:
    bench = to_be_closed(1)

    async def story() -> None:
        began = now()
        await stopped_when_it_adds(bench, 1e6)
        assert PATIENCE_S <= now() - began < PATIENCE_S + 1

    run(story())
    assert bench.account.tag_of(1) is None
    bench.account.takes_s, bench.account.on_call = 0.1, lambda _call: None
    assert bench.run(Bench.sync_due).account.tag_of(1) is CLOSED


def test_an_outage_without_a_stop_is_waited_for() -> None:
    bench = to_be_closed(1)
    bench.account.takes_s = 3 * PATIENCE_S
    assert bench.run(Bench.sync_due).account.tag_of(1) is CLOSED
    assert bench.is_nothing_due()


# --- what changes meanwhile ---


async def while_another_has_it(bench: Bench, change: Callable[[], None]) -> None:
    """Sync the due contacts while another request holds contact 1; change something before it ends."""
    async with anyio.create_task_group() as group, bench.locks.hold([ContactId(1)]):
        group.start_soon(bench.sync_due)
        await anyio.sleep(1)
        change()


def test_a_contact_that_becomes_due_again_before_the_swap_stays_due_and_is_not_changed() -> None:
    bench = to_be_closed(1)
    bench.run(lambda bench: while_another_has_it(bench, lambda: bench.due.touch(1)))
    assert bench.account.calls == []
    assert not bench.is_nothing_due()


def test_a_contact_that_becomes_due_again_during_the_swap_stays_due() -> None:
    bench = to_be_closed(1)
    bench.account.on_call = lambda call: bench.due.touch(1) if call == "add" else None
    assert not bench.run(Bench.sync_due).is_nothing_due()


@pytest.mark.parametrize(
    "change",
    [
        {"ac_id": None},
        {"customers": ()},
        {"status": NEW},
        {"email": "moved@example.org"},
    ],
)
def test_a_contact_that_was_moved_or_left_before_the_swap_is_not_touched(change: dict[str, Any]) -> None:
    bench = Bench()
    bench.shop(1, "closed")
    row = bench.known(1, OPEN)
    known = {"ac_id": row.ac_id, **{key: change[key] for key in change if key in ("ac_id", "customers")}}
    other = {key: change[key] for key in change if key in ("status", "email")}

    def leave() -> None:
        bench.due.contacts[ContactId(1)] = linked(1, **other, **known)

    bench.run(lambda bench: while_another_has_it(bench, leave))
    assert bench.account.calls == []
    assert bench.account.tag_of(1) is OPEN


def test_a_contact_that_is_dissolved_before_the_swap_is_not_changed() -> None:
    bench = to_be_closed(1)
    bench.run(lambda bench: while_another_has_it(bench, bench.due.marks.clear))
    assert bench.account.calls == []


# --- one contact ---


def test_one_contact_gets_its_tag_although_it_was_not_due_and_the_others_stay_due() -> None:
    bench = to_be_closed(3)
    bench.due.opened = WEEK
    del bench.due.marks[ContactId(2)]
    bench.run(lambda bench: bench.sync.sync_one(ContactId(2)))
    assert [bench.account.tag_of(number) for number in (1, 2, 3)] == [OPEN, CLOSED, OPEN]
    assert list(bench.due.marks) == [1, 3]


def test_one_contact_whose_tag_is_right_costs_no_request() -> None:
    bench = Bench()
    bench.shop(1, "open")
    bench.known(1, OPEN)
    bench.run(lambda bench: bench.sync.sync_one(ContactId(1)))
    assert bench.account.calls == []
    assert bench.is_nothing_due()


# --- weeks ---


def test_a_new_week_makes_every_contact_due_and_opened_twice_it_is_one_week() -> None:
    bench = Bench()
    bench.shop(1, "open")
    bench.known(1, OPEN)

    async def story(bench: Bench) -> None:
        await bench.sync_due()
        bench.weeks.week = NEXT_WEEK
        await bench.sync.open_week()
        assert not bench.is_nothing_due()
        await bench.sync.open_week()
        await bench.sync_due()

    assert bench.run(story).account.tag_of(1) is NONE
    assert bench.due.opened == NEXT_WEEK
    assert bench.due.times_opened == 2


def test_a_week_that_opens_while_contacts_are_worked_counts_for_all_of_them() -> None:
    bench = to_be_closed(PAGE_ROWS + 20)

    def open_week(_call: str) -> None:
        bench.weeks.week = NEXT_WEEK

    bench.account.on_call = open_week
    bench.run(Bench.sync_due)
    assert {bench.account.tag_of(number) for number in range(1, PAGE_ROWS + 21)} == {NONE}
    assert bench.is_nothing_due()


def test_run_syncs_again_after_an_interval_or_when_woken() -> None:
    bench = to_be_closed(1)

    async def story(bench: Bench) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(bench.sync.run, 60)
            await anyio.sleep(1)
            assert bench.account.tag_of(1) is CLOSED
            bench.weeks.week = NEXT_WEEK
            await anyio.sleep(50)
            assert bench.account.tag_of(1) is CLOSED
            await anyio.sleep(20)
            assert bench.account.tag_of(1) is NONE
            bench.weeks.week = WEEK
            bench.sync.wake()
            await anyio.sleep(1)
            assert bench.account.tag_of(1) is CLOSED
            group.cancel_scope.cancel()

    bench.run(story)


# --- struck at any moment ---

MAX_TURNS = 1_000


async def struck(bench: Bench, turns: int) -> bool:
    """Sync the due contacts, cancelled after so many turns of the loop; return whether it was in time."""
    bench.begin()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:

            async def strike() -> None:
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()

            group.start_soon(strike)
            await bench.sync_due()
            group.cancel_scope.cancel()
    return scope.cancelled_caught


def three_contacts() -> Bench:
    """Return a bench with a tag that is known, one that is not, and one that is to go; no time passes."""
    bench = Bench()
    bench.account.takes_s = 0
    bench.shop(1, "closed")
    bench.known(1, OPEN)
    bench.shop(2, "open")
    bench.stranger(2, CLOSED, ac_id=None)
    bench.shop(3, "open", erased=True)
    bench.known(3, OPEN)
    return bench


def test_cancelled_at_any_await_no_contact_has_two_tags_and_a_second_run_sets_them_right() -> None:
    for turns in range(MAX_TURNS):
        bench = three_contacts()
        if not run(struck(bench, turns)):
            assert turns > 20, "hardly anything was struck"
            return
        for number in (1, 2, 3):
            bench.account.tag_of(number)  # which fails when there are two
        bench.run(Bench.sync_due)
        assert [bench.account.tag_of(number) for number in (1, 2, 3)] == [CLOSED, OPEN, None], turns
        assert bench.is_nothing_due()
    pytest.fail("never came to the end")


STATUSES = st.sets(st.sampled_from(["open", "closed", "complete", "cancelled", "skipped"]))
STEP = st.one_of(
    st.tuples(st.just("orders"), st.tuples(st.integers(1, 4), st.integers(0, 2), STATUSES)),
    st.tuples(st.just("week"), st.integers(0, 2)),
    st.tuples(st.just("wait"), st.sampled_from([0.05, 0.15, 0.25, 5.0])),
    st.tuples(st.just("crash"), st.integers(0, 40)),
)


class Lives:
    """Processes, one after the other, in which orders and weeks change, struck at any await."""

    def __init__(self) -> None:
        self.bench = bench = Bench()
        for number in (1, 2):
            bench.shop(number)
            bench.known(number, NONE)
        for number in (3, 4):
            bench.shop(number)
            bench.stranger(number, *([CLOSED] if number == 3 else []))

    async def play(self, steps: list[tuple[str, Any]]) -> None:
        """Play the steps; then there is quiet."""
        while steps:
            steps = await self._live(steps)
        self.bench.begin()
        await self.bench.sync_due()

    async def _live(self, steps: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """Live until a crash, or the end; return the steps of the lives after it."""
        self.bench.begin()
        async with anyio.create_task_group() as group:
            group.start_soon(self.bench.sync.run, 1)
            for number, (kind, value) in enumerate(steps):
                await self._step(kind, value)
                if kind == "crash":
                    group.cancel_scope.cancel()
                    return steps[number + 1 :]
            group.cancel_scope.cancel()
        return []

    async def _step(self, kind: str, value: Any) -> None:  # noqa: ANN401  as many kinds as steps
        if kind == "orders":
            who, weeks, statuses = value
            self.bench.weeks.rows[who, WEEK + weeks * (NEXT_WEEK - WEEK)] = statuses
            self.bench.due.touch(who)
            self.bench.sync.wake()
        elif kind == "week":
            self.bench.weeks.week = WEEK + value * (NEXT_WEEK - WEEK)
        elif kind == "wait":
            await anyio.sleep(value)
        else:
            for _ in range(value):
                await anyio.lowlevel.checkpoint()

    def wanted(self, number: int) -> WeekTag:
        """Return the tag that is right, by rules of its own."""
        statuses = self.bench.weeks.rows.get((number, self.bench.weeks.week), set())
        if "open" in statuses:
            return OPEN
        return CLOSED if "closed" in statuses or "complete" in statuses else NONE


@given(st.lists(STEP, max_size=30))
@settings(max_examples=150)
def test_whatever_happens_no_contact_ever_has_two_tags_and_each_ends_with_the_right_one(
    steps: list[tuple[str, Any]],
) -> None:
    lives = Lives()
    run(lives.play(steps))
    assert lives.bench.is_nothing_due()
    for number in range(1, 5):
        assert lives.bench.account.tag_of(number) is lives.wanted(number)
        assert lives.bench.due.contacts[ContactId(number)].tag is lives.wanted(number)


# --- no answer ---


def silent_from(bench: Bench, *numbers: int) -> None:
    bench.account.silent = {AcId(number + 500) for number in numbers}


def tags_of(bench: Bench, count: int) -> list[WeekTag | None]:
    return [bench.account.tag_of(number) for number in range(1, count + 1)]


def test_a_tag_that_gets_no_answer_stays_due_and_all_others_are_swapped() -> None:
    bench = to_be_closed(40)
    silent_from(bench, 7)
    bench.run(Bench.sync_due)
    assert tags_of(bench, 40) == [OPEN if number == 7 else CLOSED for number in range(1, 41)]
    assert bench.due.marks.keys() == {7}


def test_a_held_tag_costs_nothing_until_its_next_try_which_comes_later_each_time() -> None:
    bench = to_be_closed(20)
    silent_from(bench, 3)
    tries: list[float] = []

    async def story(bench: Bench) -> None:
        while len(tries) < 4:
            seen = len(bench.account.unanswered)
            await bench.sync.sync_due()
            if len(bench.account.unanswered) > seen:
                tries.append(now())
            await anyio.sleep(1)
        bench.account.silent = set()
        await anyio.sleep(1_000)
        await bench.sync.sync_due()

    bench.run(story)
    waits = [later - earlier for earlier, later in pairwise(tries)]
    # The first call that gets no answer reads the tags anew: it is of another kind, and has no witness.
    most = [66 * 2**times + RETRY_HELD_S + 5 for times in range(3)]
    assert all(60 * 2**times <= wait < most[times] for times, wait in enumerate(waits))
    assert bench.account.tag_of(3) is CLOSED


def test_a_held_tag_is_tried_at_once_when_another_is_right_or_when_it_is_asked_for() -> None:
    bench = to_be_closed(20)
    silent_from(bench, 3, 4)

    async def story(bench: Bench) -> None:
        await bench.sync.sync_due()
        bench.account.silent = set()
        bench.weeks.rows[3, WEEK] = set()
        bench.due.touch(3)
        bench.due.touch(4)
        await bench.sync.sync_due()
        assert [bench.account.tag_of(number) for number in (3, 4)] == [NONE, OPEN]
        await bench.sync.sync_one(ContactId(4))

    assert bench.run(story).account.tag_of(4) is CLOSED
    assert bench.held_rows.rows == {}
    assert bench.is_nothing_due()


def with_a_held_tag() -> Bench:
    """Return a bench whose contact 3 has a held tag, and would be answered from now on."""
    bench = to_be_closed(20)
    silent_from(bench, 3)
    bench.run(Bench.sync_due)
    bench.account.silent = set()
    return bench


def test_a_held_tag_is_known_to_the_next_process_with_its_attempts_and_its_next_try() -> None:
    bench = with_a_held_tag()
    silent_from(bench, 3)
    (held,) = bench.held_rows.rows.values()
    assert (held.key, held.attempts, held.reply, held.is_suspect) == (TAG_3, 1, "500", True)

    async def story(bench: Bench) -> None:
        asked = len(bench.account.unanswered)
        await bench.sync.sync_due()
        assert len(bench.account.unanswered) == asked
        assert not bench.held.holds(ContactId(3)), "no entry waits for a tag"
        await anyio.sleep(RETRY_HELD_S)
        assert bench.held.due() == set(), "a try of a tag needs no contact check"
        await bench.sync.sync_due()
        assert bench.held_rows.rows[TAG_3].attempts == 2

    bench.run(story)


def test_a_tag_that_is_held_in_what_may_be_an_outage_is_due_when_another_one_is_answered() -> None:
    bench = to_be_closed(2)
    silent_from(bench, 1, 2)

    async def story(bench: Bench) -> None:
        await bench.sync.sync_due()
        assert bench.held.tags_due() == []
        bench.account.silent = set()
        bench.held.try_tags_now([ContactId(2)])
        await bench.sync.sync_held()
        assert bench.held.tags_due() == [ContactId(1)]

    bench.run(story)


@pytest.mark.parametrize("is_discarded", [False, True])
def test_a_held_tag_is_replayed_or_discarded_as_other_held_records(is_discarded: bool) -> None:
    bench = with_a_held_tag()

    async def story(bench: Bench) -> None:
        bench.held_rows.ask(HeldKind.TAG, 3, discard=is_discarded)
        await bench.held.refresh()
        await bench.sync.sync_held()

    bench.run(story)
    assert bench.account.tag_of(3) is (OPEN if is_discarded else CLOSED)
    assert bench.held_rows.rows == {}
    assert bench.is_nothing_due()


def test_held_tags_are_tried_again_after_the_rest_for_a_bounded_time() -> None:
    bench = with_a_held_tag()
    silent_from(bench, 3)
    bench.account.silent_s = 1_000

    async def story(bench: Bench) -> None:
        began_at = now()
        await bench.sync.try_held_again()
        assert LAST_TRIES_S <= now() - began_at < LAST_TRIES_S + 1
        bench.account.silent = set()
        await bench.sync.try_held_again()

    assert bench.run(story).account.tag_of(3) is CLOSED
    assert bench.held_rows.rows == {}


def test_to_try_held_tags_again_makes_nothing_else_due() -> None:
    bench = with_a_held_tag()

    async def story(bench: Bench) -> None:
        await bench.held.hold(HeldKind.CONTACT, {3: silent(3)})
        await bench.sync.try_held_again()
        assert bench.held.due() == set()

    bench.run(story)


def test_the_tag_of_a_contact_that_is_not_linked_any_more_is_held_no_more() -> None:
    bench = with_a_held_tag()
    del bench.due.marks[ContactId(3)]
    bench.due.contacts[ContactId(3)] = linked(3, status=NEW)

    async def story(bench: Bench) -> None:
        await bench.sync.try_held_again()
        assert bench.held.tags_due() == []

    assert bench.run(story).held_rows.rows == {}


def test_in_an_outage_of_tags_no_tag_is_held() -> None:
    bench = to_be_closed(20)
    bench.account.reads_are_answered = False
    silent_from(bench, *range(1, 21))

    async def story(bench: Bench) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(bench.sync.sync_due)
            await anyio.sleep(3_600)
            bench.account.silent = set()

    bench.run(story)
    assert tags_of(bench, 20) == [CLOSED] * 20


def test_of_many_silent_tags_at_most_three_are_held_while_reads_are_answered() -> None:
    bench = to_be_closed(20)
    silent_from(bench, *range(1, 21))

    async def story(bench: Bench) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(bench.sync.sync_due)
            await anyio.sleep(3_600)
            bench.account.silent = set()

    bench.run(story)
    assert tags_of(bench, 20).count(OPEN) == 3


def test_the_tag_of_the_only_contact_is_held_when_reads_were_answered_for_long() -> None:
    bench = to_be_closed(1)
    silent_from(bench, 1)

    async def story(bench: Bench) -> None:
        began_at = now()
        await bench.sync.sync_due()
        assert RETRY_HELD_S <= now() - began_at < 2 * RETRY_HELD_S

    assert bench.run(story).due.marks.keys() == {1}
