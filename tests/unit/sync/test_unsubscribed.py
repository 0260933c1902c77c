"""Who has unsubscribed stays unsubscribed, whichever way their contact goes.

The real stages on fakes of the ports, one process after the other, some of them struck down. The account
judges each subscription when it is sent, by rules that know nothing of how the code comes to them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, cast

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiva_stream.commands.sync_customer import CustomerSync
from kiva_stream.model.bulk_imports import AcceptedImport, ImportReport, ImportState
from kiva_stream.model.contacts import Contact, ContactStatus, DesiredContact, ListStatus
from kiva_stream.model.customers import Customer, CustomerAccount
from kiva_stream.model.entries import Change, Changes, Entry
from kiva_stream.model.ids import AcId, CustomerId, Email, OrderId
from kiva_stream.model.orders import SentOrder
from kiva_stream.model.positions import HighWaterMark, Position
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.runtime.working_site import WorkingSite
from kiva_stream.state.orders import OrderStates
from kiva_stream.sync.contact_locks import ContactLocks
from kiva_stream.sync.contact_moves import ContactMoves
from kiva_stream.sync.contact_ports import ContactPorts
from kiva_stream.sync.contact_sync import ContactSync
from kiva_stream.sync.contact_writes import ContactWrites
from kiva_stream.sync.week_tags import WeekTagSync
from tests.fakes.destination_contacts import AcContact, FakeContacts, FakeTags
from tests.fakes.source import FakeCustomers, FakeLog
from tests.support.entries import EVENT, SITE, SYNC_ONLY, account, customer, entry, position, up_to
from tests.support.pipeline_world import World
from tests.support.virtual_time import run
from tests.support.waiting import no_time

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DAY = timedelta(days=1)
TAGS_EVERY_S = 1e-5  # some turns of the loop: there is always something to be seen of the week tags
BACKOFF_MAX_S = 100 * TAGS_EVERY_S  # in a second the week tags would be looked at 100,000 times

ANN, BOB, CARL = customer(1), customer(2), customer(3)
TWIN = customer(4, email=ANN.email)
NOBODY = customer(5, email=None)
ANNS = Email("customer1@example.org")
PEOPLE = (ANN, BOB, CARL, TWIN, NOBODY)
GHOST = Email("ghost@example.org")  # unsubscribed at ActiveCampaign before we knew of it
STRANGER = Email("stranger@example.org")  # has been there all along, and never on the list
FRESH = Email("fresh@example.org")  # nobody has it
ADDRESSES = [*(each.email for each in (ANN, BOB, CARL) if each.email), GHOST, STRANGER, FRESH]

RESUBSCRIBED = "email.resubscribe"
LINES = {  # what an entry says, and how old it is when it is written
    "nothing": ("email.menu", timedelta()),
    "something": (EVENT, timedelta()),
    "edited": (SYNC_ONLY, timedelta()),
    "unsubscribed": ("email.unsubscribe", timedelta()),
    "re-subscribed": (RESUBSCRIBED, timedelta()),
    "re-subscribed a moment less than a day ago": (RESUBSCRIBED, DAY - timedelta(microseconds=1)),
    "re-subscribed a day ago": (RESUBSCRIBED, DAY),
}
CHANGES: dict[str, dict[str, object]] = {
    "opts out": {"email_opt_in": False},
    "opts in": {"email_opt_in": True},
    "is blacklisted": {"email_blacklisted": True},
    "is blacklisted no more": {"email_blacklisted": False},
    "is erased": {"erased": True},
}


class Happens(NamedTuple):
    """Something happens to a customer, and an entry says something; "": no entry is written."""

    who: int
    what: str = ""  # one of CHANGES, an address, "gets a phone", "loses the address", "leaves"; "": nothing
    says: str = ""


class Run(NamedTuple):
    """A process, what happens while it works, and when it is struck: after calls, or turns of the loop."""

    kind: Literal["backfill", "follow", "sync"]
    meanwhile: tuple[Happens, ...] = ()
    struck: tuple[Literal["call", "turn"], int] | None = None
    who: int = 1  # of a sync


class Passes(NamedTuple):
    """Hours pass, and perhaps a week opens."""

    hours: int
    new_week: bool = False


class Trouble(NamedTuple):
    """How ActiveCampaign is from now on: whom it does not take, and how its imports go."""

    failing: frozenset[Email] = frozenset()
    excluded: frozenset[Email] = frozenset()
    refused: frozenset[Email] = frozenset()
    alone: frozenset[Email] = frozenset()
    reports: tuple[ImportState, ...] = ()
    works_lost: bool = False


Step = Happens | Run | Passes | Trouble


def wants_mail(rows: Iterable[CustomerAccount]) -> bool:
    """Return whether nobody of these opted out or is blacklisted."""
    return not any(row.email_blacklisted or not row.email_opt_in for row in rows)


class JudgedAccount(FakeContacts):
    """An account that has each subscription judged when it is sent, and can strike after a call was done."""

    def __init__(self, imports: Callable[[Email], None], returns: Callable[[Email], None]) -> None:
        super().__init__()
        self._judge_import = imports
        self._judge_return = returns
        self.were_off: set[AcContact] = set()  # have been off the list, for whatever reason
        self.came_alone: set[AcContact] = set()  # not by an import
        self.passed_over: set[AcContact] = set()  # left out of an import, and there all the same
        self.calls_left = -1  # until it strikes
        self.strike: Callable[[], None] = lambda: None

    async def start_import(
        self, contacts: Sequence[DesiredContact], *, exclude_automations: bool
    ) -> AcceptedImport:
        for each in contacts:
            if each.list_status is ListStatus.SUBSCRIBE:
                self._judge_import(each.email)
        self.passed_over |= {one for one in self.there.values() if one.email in self.excluded}
        accepted = await super().start_import(contacts, exclude_automations=exclude_automations)
        await self._done()
        return accepted

    async def import_report(self, import_id: str) -> ImportReport:
        report = await super().import_report(import_id)
        await self._done()
        return report

    async def upsert(self, wanted: DesiredContact) -> AcId:
        number = await super().upsert(wanted)
        self.came_alone.add(self.there[number])
        await self._done()
        return number

    async def set_list(self, contact: AcId, *, subscribed: bool) -> None:
        if subscribed:
            self._judge_return(self.there[contact].email)
        await super().set_list(contact, subscribed=subscribed)
        await self._done()

    async def rename(self, contact: AcId, email: Email) -> None:
        await super().rename(contact, email)
        await self._done()

    async def clear_customer_id(self, contact: AcId) -> None:
        await super().clear_customer_id(contact)
        await self._done()

    async def add_tag(self, contact: AcId, tag: WeekTag) -> int:
        link = await super().add_tag(contact, tag)
        await self._done()
        return link

    async def remove(self, link: int) -> None:
        await super().remove(link)
        await self._done()

    @property
    def excused(self) -> set[AcContact]:
        """Those who need not be on the list."""
        return self.were_off | self.came_alone | self.passed_over

    async def work(self) -> None:
        """Work what was accepted, though nobody asks for it any more."""
        for import_id in self.imports:
            while import_id not in self._ended:
                await super().import_report(import_id)

    def leaves(self, email: Email) -> None:
        """Have a person unsubscribe here, on their own."""
        if self.id_of(email) and self.at(email).is_on_list:
            self._set_list(self.at(email), subscribed=False)

    def _set_list(self, one: AcContact, *, subscribed: bool) -> None:
        super()._set_list(one, subscribed=subscribed)
        if not subscribed:
            self.were_off.add(one)

    async def _done(self) -> None:
        self.calls_left -= 1
        if self.calls_left == 0:
            self.strike()
            await anyio.lowlevel.checkpoint()


class ReadByContactSync(FakeCustomers):
    """The shop's rows as contact sync reads them; `seen` are those that it read last."""

    def __init__(self, shop: FakeCustomers) -> None:
        super().__init__()
        self.rows = shop.rows
        self.seen: dict[CustomerId, CustomerAccount] = {}

    async def accounts(self, ids: Collection[CustomerId]) -> list[CustomerAccount]:
        rows = await super().accounts(ids)
        self.seen |= {row.customer.id: row for row in rows}
        return rows


class SearchedShop:
    """Implements what a trial asks of the shop's customers."""

    def __init__(self, shop: FakeCustomers) -> None:
        self.accounts = shop.accounts
        self._shop = shop

    async def by_email(self, emails: Collection[Email]) -> dict[Email, list[Customer]]:
        await anyio.lowlevel.checkpoint()
        people = [row.customer for row in self._shop.rows.values()]
        return {email: [each for each in people if each.email == email] for email in emails}


class ShopLog(FakeLog):
    """A log that tells of `changed` customers too, as following does."""

    changed: tuple[CustomerId, ...] = ()

    async def pages(self, after: Position, mark: HighWaterMark) -> AsyncIterator[list[Entry] | Changes]:
        async for page in super().pages(after, mark):
            if self.changed:
                changes = [Change(self.people[each].customer, NOW) for each in self.changed]
                self.changed = ()
                yield Changes(changes)
            yield page


class NothingSent:
    """Implements what a trial asks of the orders that were sent."""

    async def sent(self, _ids: Collection[OrderId]) -> dict[OrderId, SentOrder]:
        await anyio.lowlevel.checkpoint()
        return {}


class Life(World):
    """The lives of processes on one state, among people who come, go, and come back."""

    tags: WeekTagSync  # of the newest process, as is this
    read: ReadByContactSync

    def __init__(self, *rows: CustomerAccount, page_rows: int = 2, import_min_contacts: int = 10) -> None:
        super().__init__(
            [],
            page_rows=page_rows,
            now=NOW,
            import_min_contacts=import_min_contacts,
            backoff_max_s=BACKOFF_MAX_S,
        )
        self.shop = FakeCustomers(rows or map(account, PEOPLE))
        self.log = self.shop_log = ShopLog([], page_rows)
        self.entries = type(self.entries)(self.log)
        self.log.people = self.shop.rows
        self.contacts = self.account = JudgedAccount(self._judge_import, self._judge_return)
        self.account.add(STRANGER)
        self.account.add(GHOST)
        self.account.at(GHOST).is_on_list = False
        self.account.were_off.add(self.account.at(GHOST))

    # --- what is allowed ---

    def _judge_import(self, email: Email) -> None:
        """Check that an import may subscribe: the one that creates the contact, if all of it want that."""
        assert self.links.by_email[email].status is not ContactStatus.LINKED, "subscribed by a later import"
        assert wants_mail(self._rows_read(email)), "subscribed against somebody's will"

    def _judge_return(self, email: Email) -> None:
        """Check that a contact may be put on the list alone: by a young entry of one whom all agree with."""
        assert self.is_live, "brought back by history"
        assert wants_mail(self._rows_read(email)), "brought back against somebody's will"
        assert any(self._asks(row, email) for row in self.log.entries), "brought back unasked"

    def _rows_read(self, email: Email) -> list[CustomerAccount]:
        """Return the rows, as they were read last, of those whose contact and whose address this is."""
        linked = [who for who, contact in self.links.by_customer.items() if contact.email == email]
        rows = [self.read.seen[who] for who in linked if who in self.read.seen]
        mine = [row for row in rows if row.customer.email == email and not row.customer.erased]
        assert mine, "subscribed for nobody"
        return mine

    def _asks(self, row: Entry, email: Email) -> bool:
        """Return whether an entry that is being worked asks for this contact's return, and is young."""
        if row.action != RESUBSCRIBED or row.customer_id is None or row.position not in self.log.read:
            return False
        contact = self.links.by_customer.get(row.customer_id)
        is_mine = contact is not None and contact.email == email
        return is_mine and self.now - row.inserted_at < DAY and row.position not in self.ledger.delivered

    def check(self, who: int = 0) -> None:
        """Check who is on the list when all is done, by the rows as they are now; of one, or of all."""
        odd = self.account.refused_alone | self.account.refused | self.account.excluded
        contacts = [self.links.by_customer[CustomerId(who)]] if who else self.links.by_id.values()
        for contact in contacts:
            if contact.status is ContactStatus.LINKED and contact.email not in odd:
                number = self.account.id_of(contact.email) or self.links.ac_ids.get(contact.id)
                assert number is not None, "linked, and not there"
                self._check(contact, self.account.there[number])

    def _check(self, contact: Contact, there: AcContact) -> None:
        rows, mine = self._rows_at(contact.email), self._rows_of(contact)
        counted = [row for row in rows if not row.customer.erased]
        if not wants_mail(counted) or all(row.customer.erased for row in mine):
            assert not there.is_on_list, "on the list against somebody's will"
        elif counted and there not in self.account.excused:
            assert there.is_on_list, "never subscribed"

    def _rows_at(self, email: Email) -> list[CustomerAccount]:
        return [row for row in self.shop.rows.values() if row.customer.email == email]

    def _rows_of(self, contact: Contact) -> list[CustomerAccount]:
        return [self.shop.rows[who] for who, each in self.links.by_customer.items() if each is contact]

    def is_on_list(self, who: int = 1) -> bool | None:
        """Return whether a customer is on the list; None: they never were."""
        return self.account.at(self.links.by_customer[CustomerId(who)].email).is_on_list

    # --- what happens ---

    async def play(self, *steps: Step) -> None:
        """Have all of this happen, in this order."""
        for step in steps:
            match step:
                case Happens():
                    self._write(step)
                    self.change(step)
                case Run():
                    await self._live(step)
                case Passes():
                    await self._pass(step)
                case Trouble():
                    await self._set_account(step)

    async def come_to_rest(self) -> None:
        """Have a backfill, then a following, with nothing in their way."""
        await self.play(Trouble(), Passes(0), Run("backfill"), Run("follow"))

    async def _pass(self, time: Passes) -> None:
        await self.account.work()
        self.now += timedelta(hours=time.hours)
        if time.new_week:
            self.weeks.week += timedelta(days=7)
            ordered_before = {who for who, _week in self.weeks.rows}
            self.weeks.rows.clear()
            for each in PEOPLE:
                if each.id not in ordered_before:
                    self.weeks.put(each, "open")

    async def _set_account(self, how: Trouble) -> None:
        if how.excluded != self.account.excluded:  # whom an import leaves out was told when it was accepted
            await self.account.work()
        self.account.failing, self.account.excluded = set(how.failing), set(how.excluded)
        self.account.refused, self.account.refused_alone = set(how.refused), set(how.alone)
        self.account.reports = [ImportReport(state) for state in how.reports]
        self.account.works_lost = how.works_lost

    def _write(self, one: Happens) -> None:
        if one.says:
            action, age = LINES[one.says]
            who = self.shop.rows[CustomerId(one.who)].customer
            when = self.now - age
            data = '{"order_id": 1}' if action == SYNC_ONLY else None
            row = entry(self.size + 1, who, action=action, occurred_at=when, inserted_at=when, data=data)
            self.log.entries.append(row)

    def change(self, one: Happens) -> None:
        """Have what happens be seen from now on."""
        who = CustomerId(one.who)
        row = self.shop.rows[who]
        if one.what in CHANGES:
            self.shop.change(who, **CHANGES[one.what])
        elif one.what == "gets a phone":
            self.shop.change(who, phone=f"{row.phone}1")
        elif one.what == "loses the address":
            self.shop.change(who, email=None)
        elif one.what == "leaves":
            contact = self.links.by_customer.get(who)
            self.account.leaves(contact.email if contact else row.customer.email or Email(""))
        elif one.what:
            self.shop.change(who, email=Email(one.what))

    async def _live(self, run: Run) -> None:
        """Live a process, to its end or until it is struck; check what it leaves, unless it was struck."""
        if run.kind == "sync" and not self._may_sync(run.who):
            return
        self.is_live = run.kind == "follow"
        mark = self.size
        self.begin()
        self._foresee(run, mark)
        with anyio.CancelScope() as scope:
            self._set_strike(run, scope.cancel)
            async with anyio.create_task_group() as group:
                if run.struck and run.struck[0] == "turn":
                    group.start_soon(_strike, run.struck[1], scope.cancel)
                await self._work(run, mark)
                group.cancel_scope.cancel()
        self.account.calls_left = -1
        is_over = not self.log.before and not scope.cancel_called
        is_current = run.kind != "backfill" or not run.meanwhile  # else the next run sees what happened
        while self.log.before:  # who is struck down does not see it
            self.log.before.pop(min(self.log.before))()
        if is_over and is_current:
            self.check(run.who if run.kind == "sync" else 0)

    def _foresee(self, run: Run, mark: int) -> None:
        """Write what will be written, and have it happen when it is read; before the next page, if never."""
        first = len([row for row in self.log.entries if row.position <= self.ledger.watermark]) + 1
        for one in run.meanwhile:
            self._write(one if one.says else one._replace(says="nothing"))
        if run.kind == "follow":
            for place, one in enumerate(run.meanwhile, start=mark + 1):
                self.log.before[place] = partial(self._change_and_tell, one)
        elif run.meanwhile:
            self.log.before[first] = partial(self._change_all, run.meanwhile)

    def _change_all(self, happening: Iterable[Happens]) -> None:
        for one in happening:
            self.change(one)

    def _change_and_tell(self, one: Happens) -> None:
        self.change(one)
        self.shop_log.changed += (CustomerId(one.who),)

    def _set_strike(self, run: Run, strike: Callable[[], None]) -> None:
        self.account.strike = strike
        self.account.calls_left = run.struck[1] if run.struck and run.struck[0] == "call" else -1

    def _may_sync(self, who: int) -> bool:
        row = self.shop.rows[CustomerId(who)].customer
        return row.email is not None and not row.erased

    # --- processes ---

    def _sync(self) -> ContactSync:
        settings, locks, tags = self.settings.activecampaign, ContactLocks(), FakeTags(self.account)
        shop, there, due, weeks = self.shop, self.account, self.due, self.weeks
        self.read = ReadByContactSync(shop)
        self.tags = WeekTagSync(
            SITE.id, due=due, weeks=weeks, customers=shop, tags=tags, contacts=there, locks=locks
        )
        ports = ContactPorts(
            customers=self.read,
            links=self.links,
            orders=self.orders,
            order_delivery=self.order_delivery,
            weeks=weeks,
            due=due,
            contacts=there,
            tags=tags,
            locks=locks,
        )
        return ContactSync(
            SITE,
            ports,
            writes=ContactWrites(ports, settings, sleep=no_time, now=lambda: self.now),
            moves=ContactMoves(SITE.id, ports._replace(customers=shop)),
            settings=settings,
            is_live=self.is_live,
            now=lambda: self.now,
        )

    async def _work(self, run: Run, mark: int) -> None:
        if run.kind == "backfill":
            await self._backfill(mark)
        elif run.kind == "follow":
            await self._follow(mark)
        else:
            await self._trial(CustomerId(run.who))

    async def _backfill(self, mark: int) -> None:
        """Do what `BackfillRun` does."""
        await self.sync.snapshot(position(mark), lambda _count: None)
        async with self.sync.working():
            await self.pipeline.run(up_to(mark))
        await self.tags.look_at_week()
        await self.tags.sync_due()

    async def _follow(self, mark: int) -> None:
        """Do what `ServiceRun` does in a round."""
        async with anyio.create_task_group() as background:
            background.start_soon(self.tags.run, TAGS_EVERY_S)
            await self.sync.snapshot(position(mark), lambda _count: None)
            async with self.sync.working():
                await self.pipeline.run(up_to(self.size))
            background.cancel_scope.cancel()

    async def _trial(self, who: CustomerId) -> None:
        """Do what `sync --customer` does."""
        email = self.shop.rows[who].customer.email
        assert email is not None
        sent = cast("OrderStates", NothingSent())
        await CustomerSync(self.settings.activecampaign, SiteAmongFakes(self), sent).go(who, email)


class SiteAmongFakes(WorkingSite):
    """A working site with what `sync --customer` uses of it."""

    def __init__(self, life: Life) -> None:
        fakes: Any = life
        shop: Any = SimpleNamespace(site=SITE, customers=SearchedShop(life.shop), orders=life.orders)
        held: Any = SimpleNamespace(client=SimpleNamespace(requests={}))
        self.shop, self.held = shop, held
        self.links, self.contacts = fakes.links, fakes.sync
        self.tags, self.account = fakes.tags, fakes.account


async def _strike(turns: int, strike: Callable[[], None]) -> None:
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()
    strike()


# Whatever happens

WHO = st.sampled_from([1, 1, 1, 2, 3, 4, 4, 5])
SOME = st.frozensets(st.sampled_from(ADDRESSES), max_size=2)
WILL = st.sampled_from(["opts out", "opts in", "is blacklisted", "is blacklisted no more", "leaves"])
EDIT = st.sampled_from(["gets a phone", "loses the address", "is erased", *ADDRESSES])
HAPPENS = st.one_of(
    st.builds(Happens, WHO, WILL | EDIT, st.sampled_from(["", *LINES])),
    st.builds(Happens, WHO, WILL, st.sampled_from(["", "something", "unsubscribed", "re-subscribed"])),
    st.builds(Happens, WHO, st.just("opts in"), st.sampled_from(["", *LINES])),
)
STRUCK = st.one_of(
    st.none(),
    st.tuples(st.just("call"), st.integers(1, 8)),
    st.tuples(st.just("turn"), st.integers(0, 300)),
)
RUN = st.builds(
    Run,
    st.sampled_from(["backfill", "follow", "follow", "sync"]),
    st.lists(HAPPENS, max_size=3).map(tuple),
    STRUCK,
    WHO,
)
STATES = st.lists(st.sampled_from([ImportState.RUNNING, ImportState.LOST]), max_size=3).map(tuple)
CIRCUMSTANCES = st.one_of(
    st.just(Trouble()),
    st.builds(Trouble, SOME, SOME, SOME, SOME, STATES, st.booleans()),
    st.builds(Passes, st.sampled_from([0, 1, 23, 24]), st.booleans()),
)
ROUND = st.tuples(CIRCUMSTANCES, st.lists(HAPPENS, max_size=3), RUN)


@settings(max_examples=150, derandomize=True)
@given(st.lists(ROUND, max_size=8), st.integers(1, 3), st.sampled_from([2, 10]))
def test_whatever_happens_an_unsubscribed_contact_is_resubscribed_only_by_a_young_entry_all_agree_to(
    rounds: list[tuple[Step, list[Happens], Run]], page_rows: int, import_min_contacts: int
) -> None:
    async def story() -> None:
        life = Life(page_rows=page_rows, import_min_contacts=import_min_contacts)
        for circumstances, happenings, process in rounds:
            await life.play(circumstances, *happenings, process)
        await life.come_to_rest()

    run(story())


# Each way


BACKFILL, FOLLOW, SYNC = Run("backfill"), Run("follow"), Run("sync")


async def left(*others: CustomerAccount) -> Life:
    """Return a life in which Ann was brought and then unsubscribed at ActiveCampaign, on her own."""
    life = Life(account(ANN), *others)
    await life.play(BACKFILL, Happens(1, "leaves"))
    assert life.is_on_list() is False
    return life


async def test_at_activecampaign_an_import_subscribes_all_contacts_but_unsubscribed_ones() -> None:
    there = FakeContacts()
    there.add(GHOST)
    there.at(GHOST).is_on_list = False
    rows = [
        DesiredContact(email, "Ann", "1", "", "1", ListStatus.SUBSCRIBE) for email in (GHOST, STRANGER, FRESH)
    ]
    there.add(STRANGER)
    started = await there.start_import(rows, exclude_automations=True)
    report = await there.import_report(started.id)
    assert report == ImportReport(ImportState.COMPLETED, frozenset({GHOST}))
    assert [there.at(email).is_on_list for email in (GHOST, STRANGER, FRESH)] == [False, True, True]
    assert there.at(GHOST).shown is None


async def test_only_the_import_that_creates_a_contact_subscribes_it_and_no_later_one() -> None:
    life = Life(account(ANN), account(BOB), import_min_contacts=1)
    await life.play(
        BACKFILL, Happens(1, "gets a phone"), BACKFILL, Happens(1, "gets a phone", "edited"), FOLLOW
    )
    sent = [
        row.list_status for rows in life.account.imports.values() for row in rows if row.email == ANN.email
    ]
    assert sent == [ListStatus.SUBSCRIBE, ListStatus.LEAVE, ListStatus.LEAVE]
    assert life.is_on_list()


async def test_an_address_that_is_there_already_is_subscribed_unless_it_unsubscribed_there() -> None:
    life = Life(account(customer(1, email=STRANGER)), account(customer(2, email=GHOST)))
    await life.play(BACKFILL)
    assert (life.is_on_list(1), life.is_on_list(2)) == (True, False)


@pytest.mark.parametrize("process", [BACKFILL, FOLLOW, SYNC], ids=lambda process: process.kind)
async def test_a_customer_who_opts_out_is_unsubscribed_and_opting_in_alone_does_not_resubscribe(
    process: Run,
) -> None:
    life = Life(account(ANN), account(BOB))
    await life.play(BACKFILL, Happens(1, "opts out", "unsubscribed"), process)
    assert life.is_on_list() is False
    await life.play(Happens(1, "opts in", "something"), process, Happens(1, "gets a phone"), process)
    assert life.is_on_list() is False
    assert life.is_on_list(2)


async def test_a_blacklisted_customer_stays_off_whatever_the_log_says_and_when_it_is_lifted() -> None:
    life = Life(account(ANN))
    await life.play(BACKFILL, Happens(1, "is blacklisted", "re-subscribed"), FOLLOW)
    assert life.is_on_list() is False
    await life.play(Happens(1, "is blacklisted no more"), FOLLOW)
    assert life.is_on_list() is False
    assert life.account.list_calls == [(ANNS, False)]


async def test_a_sync_of_one_customer_leaves_a_contact_unsubscribed_that_unsubscribed_itself() -> None:
    life = await left()
    await life.play(Happens(1, "gets a phone", "re-subscribed"), SYNC)
    assert life.account.synced == [ANNS]
    assert life.is_on_list() is False


@pytest.mark.parametrize("import_min_contacts", [1, 10], ids=["by an import", "alone"])
async def test_a_backfill_resubscribes_no_contact_however_young_the_entry(import_min_contacts: int) -> None:
    life = Life(account(ANN), import_min_contacts=import_min_contacts)
    await life.play(BACKFILL, Happens(1, "leaves"))
    await life.play(Happens(1, "gets a phone", "re-subscribed"), BACKFILL)
    assert life.events.places() == [1]
    shown = life.account.at(ANNS).shown
    assert shown
    assert shown.phone == "1"
    assert life.is_on_list() is False


async def test_a_new_week_changes_tags_and_resubscribes_no_contact() -> None:
    life = await left()
    before = dict(life.account.at(ANNS).tags)
    await life.play(Passes(0, new_week=True), FOLLOW)
    assert list(life.account.at(ANNS).tags) == [WeekTag.OPEN] != list(before)
    assert life.is_on_list() is False
    assert life.account.list_calls == []


@pytest.mark.parametrize(
    ("says", "comes_back"),
    [
        ("re-subscribed", True),
        ("re-subscribed a moment less than a day ago", True),
        ("re-subscribed a day ago", False),
        ("something", False),
    ],
)
async def test_following_resubscribes_by_an_entry_younger_than_a_day(says: str, *, comes_back: bool) -> None:
    life = await left()
    await life.play(Happens(1, says=says), FOLLOW)
    assert life.is_on_list() is comes_back


async def test_an_entry_resubscribes_once_and_a_later_unsubscription_stays() -> None:
    life = await left()
    await life.play(Happens(1, says="re-subscribed"), FOLLOW, Happens(1, "leaves"), FOLLOW, BACKFILL, SYNC)
    assert life.account.list_calls == [(ANNS, True)]
    assert life.is_on_list() is False


async def test_of_an_unsubscription_after_a_re_subscription_the_row_of_now_decides() -> None:
    life = await left()
    await life.play(Happens(1, "opts in", "re-subscribed"), Happens(1, "opts out", "unsubscribed"), FOLLOW)
    assert life.account.list_calls == [(ANNS, False)]
    await life.play(Happens(1, "opts out", "unsubscribed"), Happens(1, "opts in", "re-subscribed"), FOLLOW)
    assert life.is_on_list()


async def test_a_resubscribed_customer_who_opts_out_is_unsubscribed_again() -> None:
    life = Life(account(ANN, email_opt_in=False))
    await life.play(BACKFILL, Happens(1, "opts in", "re-subscribed"), FOLLOW)
    assert life.is_on_list()
    await life.play(Happens(1, "opts out", "unsubscribed"), FOLLOW)
    assert life.is_on_list() is False
    assert life.account.list_calls == [(ANNS, True), (ANNS, False)]


@pytest.mark.parametrize("objection", ["opts out", "is blacklisted"])
async def test_a_contact_is_not_resubscribed_while_another_account_of_the_address_objects(
    objection: str,
) -> None:
    life = Life(account(ANN), account(TWIN))
    await life.play(BACKFILL, Happens(4, objection), FOLLOW, Happens(1, "opts in", "re-subscribed"), FOLLOW)
    assert life.account.list_calls == [(ANNS, False)]
    assert life.is_on_list() is False


async def test_an_opted_out_customer_who_joins_a_contact_unsubscribes_it_beyond_their_leaving() -> None:
    life = Life(account(ANN), account(BOB, email_opt_in=False))
    await life.play(BACKFILL, Happens(2, ANNS, "edited"), FOLLOW)
    assert life.is_on_list() is False
    await life.play(Happens(2, FRESH, "edited"), FOLLOW)
    assert (life.is_on_list(1), life.is_on_list(2)) == (False, False)


async def test_a_contact_that_gets_another_address_stays_off_with_it() -> None:
    life = await left()
    await life.play(Happens(1, FRESH, "edited"), FOLLOW)
    assert life.account.renamed == [(ANNS, FRESH)]
    assert life.account.at(FRESH).is_on_list is False


async def test_an_address_that_unsubscribed_at_activecampaign_is_adopted_as_it_is() -> None:
    life = Life(account(ANN))
    await life.play(BACKFILL, Happens(1, GHOST, "edited"), FOLLOW, BACKFILL, SYNC)
    assert life.links.status_of(ANN) == (ContactStatus.LINKED, "")
    assert life.account.at(GHOST).customer_id == "1"
    assert life.is_on_list() is False


@pytest.mark.parametrize(("hours", "process"), [(24, FOLLOW), (0, BACKFILL)], ids=["old", "of a backfill"])
async def test_an_entry_that_is_replayed_when_an_address_appears_resubscribes_no_contact(
    hours: int, process: Run
) -> None:
    life = Life(account(NOBODY))
    await life.play(Happens(5, says="re-subscribed"), FOLLOW, Passes(hours))
    assert life.ledger.dead == {position(1): "no_email"}
    await life.play(Happens(5, GHOST, "something"), process)
    assert life.ledger.superseded == [position(1)]
    assert life.events.places(GHOST) == [1, 2]
    assert life.is_on_list(5) is False


async def test_a_contact_that_fails_in_an_import_is_sent_alone_and_never_subscribed() -> None:
    life = Life(account(ANN), import_min_contacts=1)
    await life.play(Trouble(failing=frozenset({ANNS})), BACKFILL, Trouble())
    await life.play(Happens(1, "gets a phone"), BACKFILL, FOLLOW)
    assert life.account.synced == [ANNS]
    assert life.is_on_list() is None


async def test_an_opted_out_contact_that_fails_in_an_import_is_unsubscribed_alone() -> None:
    life = Life(account(ANN, email_opt_in=False))
    await life.play(Trouble(failing=frozenset({ANNS})), BACKFILL)
    assert life.account.calls == [f"sync {ANNS}", f"unsubscribe {ANNS}"]


async def test_the_contact_of_an_erased_customer_is_unsubscribed() -> None:
    life = Life(account(ANN), account(BOB))
    await life.play(BACKFILL, Happens(1, "is erased"), BACKFILL)
    await life.play(Run("follow", (Happens(2, "is erased"),)))
    assert (life.is_on_list(1), life.is_on_list(2)) == (False, False)


@pytest.mark.parametrize("kind", ["backfill", "follow", "sync"])
@pytest.mark.parametrize(("what", "times"), [("call", 10), ("turn", 60)])
def test_after_a_crash_at_any_moment_the_next_process_resubscribes_no_contact_that_left(
    kind: Literal["backfill", "follow", "sync"], what: Literal["call", "turn"], times: int
) -> None:
    async def story(after: int) -> None:
        life = Life(account(ANN), account(BOB), account(CARL, email_opt_in=False))
        struck = Run(kind, struck=(what, after))
        await life.play(
            struck, BACKFILL, Happens(1, "leaves"), Happens(2, "opts out", "unsubscribed"), struck
        )
        await life.play(Happens(1, "gets a phone", "edited"), struck, BACKFILL)
        assert [life.is_on_list(who) for who in (1, 2, 3)] == [False] * 3

    for after in range(1, times):
        run(story(after))


async def test_an_opt_out_after_a_crash_during_a_resubscription_unsubscribes() -> None:
    life = await struck_down_as_it_brought_her_back()
    await life.play(Happens(1, "opts out", "unsubscribed"), FOLLOW)
    assert life.is_on_list() is False


async def test_an_erasure_after_a_crash_during_a_resubscription_unsubscribes() -> None:
    life = await struck_down_as_it_brought_her_back()
    await life.play(Happens(1, "is erased"), FOLLOW)
    assert life.is_on_list() is False


async def struck_down_as_it_brought_her_back() -> Life:
    """Return a life in which Ann is back on the list, and nobody noted it."""
    life = Life(account(ANN, email_opt_in=False))
    await life.play(BACKFILL, Happens(1, "opts in", "re-subscribed"), Run("follow", struck=("call", 2)))
    assert life.is_on_list()
    return life


async def test_a_customer_who_opts_out_during_the_upsert_is_not_resubscribed() -> None:
    life = await left()
    life.order_delivery.on_upsert = lambda: life.change(Happens(1, "opts out"))
    await life.play(Run("follow", (Happens(1, says="re-subscribed"), Happens(1, says="edited"))))
    assert life.shop.rows[ANN.id].email_opt_in is False
    assert (ANNS, True) not in life.account.list_calls


async def test_an_opt_out_that_an_import_left_out_without_a_word_is_sent_all_the_same() -> None:
    life = Life(account(ANN), import_min_contacts=1)
    await life.play(BACKFILL, Happens(1, "opts out"), Trouble(excluded=frozenset({ANNS})), BACKFILL)
    await life.play(Trouble(), BACKFILL, FOLLOW)
    assert life.is_on_list() is False


async def test_a_sync_before_any_backfill_counts_other_accounts_of_the_same_address() -> None:
    life = Life(account(ANN), account(TWIN, email_opt_in=False))
    await life.play(SYNC)
    assert life.is_on_list() is False


async def test_a_customer_who_opts_in_during_the_upsert_and_out_again_later_is_unsubscribed() -> None:
    life = Life(account(ANN, email_opt_in=False))
    life.order_delivery.on_upsert = lambda: life.change(Happens(1, "opts in"))
    await life.play(BACKFILL, Run("follow", (Happens(1, says="re-subscribed"), Happens(1, says="edited"))))
    assert life.account.list_calls == [(ANNS, True)]
    await life.play(Happens(1, "opts out", "unsubscribed"), FOLLOW, BACKFILL)
    assert life.is_on_list() is False
