"""Lives of processes among customers who opt out and in: the real stages on fakes of the ports.

The account judges each subscription when it is sent, by rules that know nothing of how the code decides.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, cast

import anyio
import anyio.lowlevel

from kiva_stream.commands.sync_customer import CustomerSync
from kiva_stream.model.bulk_imports import AcceptedImport, ImportReport, ImportState
from kiva_stream.model.contacts import Contact, ContactStatus, DesiredContact, ListStatus
from kiva_stream.model.customers import Customer, CustomerAccount
from kiva_stream.model.entries import Change, Changes, Entry
from kiva_stream.model.ids import AcId, CustomerId, Email, OrderId
from kiva_stream.model.orders import SentOrder
from kiva_stream.model.positions import HighWaterMark, Position
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.observability.incidents import Incidents
from kiva_stream.ports.destination import Around
from kiva_stream.ports.stages import OrderDelivery
from kiva_stream.runtime.working_site import WorkingSite
from kiva_stream.state.orders import OrderStates
from kiva_stream.sync.contact_locks import ContactLocks
from kiva_stream.sync.contact_moves import ContactMoves
from kiva_stream.sync.contact_ports import ContactPorts
from kiva_stream.sync.contact_refusals import ContactRefusals
from kiva_stream.sync.contact_sync import ContactSync
from kiva_stream.sync.contact_writes import ContactWrites
from kiva_stream.sync.lone_requests import ContactRequests, TagRequests
from kiva_stream.sync.tag_kind import tag_kind
from kiva_stream.sync.week_tags import WeekTagSync
from tests.fakes.destination_contacts import AcContact, FakeContacts, FakeWeekTags
from tests.fakes.source import FakeCustomers, FakeLog
from tests.support.entries import EVENT, SITE, SYNC_ONLY, account, customer, entry, position, up_to
from tests.support.pipeline_world import World
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
GHOST = Email("ghost@example.org")  # unsubscribed at ActiveCampaign before kiva_stream knew of it
STRANGER = Email("stranger@example.org")  # has been there all along, and never on the list
FRESH = Email("fresh@example.org")  # no contact has it
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
    """How ActiveCampaign is from now on: which addresses it refuses, and how its imports end."""

    failing: frozenset[Email] = frozenset()
    excluded: frozenset[Email] = frozenset()
    refused: frozenset[Email] = frozenset()
    alone: frozenset[Email] = frozenset()
    reports: tuple[ImportState, ...] = ()
    works_lost: bool = False


Step = Happens | Run | Passes | Trouble


def wants_mail(rows: Iterable[CustomerAccount]) -> bool:
    """Return whether none of these opted out or is blacklisted."""
    return not any(row.email_blacklisted or not row.email_opt_in for row in rows)


class JudgedAccount(FakeContacts):
    """An account that has each subscription judged when it is sent, and can strike after a call was done."""

    def __init__(self, imports: Callable[[Email], None], returns: Callable[[Email], None]) -> None:
        super().__init__()
        self._judge_import = imports
        self._judge_return = returns
        self.were_off: set[AcContact] = set()  # that were off the list, for whatever reason
        self.came_alone: set[AcContact] = set()  # not by an import
        self.passed_over: set[AcContact] = set()  # left out of an import, although they are there
        self.calls_left = -1  # until it strikes
        self.strike: Callable[[], None] = lambda: None

    async def start_import(
        self,
        contacts: Sequence[DesiredContact],
        *,
        exclude_automations: bool,
        tries: float = math.inf,
        is_suspect: bool = False,
        around: Around = nullcontext,
    ) -> AcceptedImport:
        for each in contacts:
            if each.list_status is ListStatus.SUBSCRIBE:
                self._judge_import(each.email)
        self.passed_over |= {one for one in self.there.values() if one.email in self.excluded}
        accepted = await super().start_import(
            contacts,
            exclude_automations=exclude_automations,
            tries=tries,
            is_suspect=is_suspect,
            around=around,
        )
        await self._done()
        return accepted

    async def import_report(self, import_id: str) -> ImportReport:
        report = await super().import_report(import_id)
        await self._done()
        return report

    async def upsert(
        self,
        wanted: DesiredContact,
        *,
        clear: Collection[str] = (),
        tries: float = math.inf,
        is_suspect: bool = False,
    ) -> AcId:
        number = await super().upsert(wanted, clear=clear, tries=tries, is_suspect=is_suspect)
        self.came_alone.add(self.there[number])
        await self._done()
        return number

    async def set_list(
        self, contact: AcId, *, subscribed: bool, tries: float = math.inf, is_suspect: bool = False
    ) -> None:
        if subscribed:
            self._judge_return(self.there[contact].email)
        await super().set_list(contact, subscribed=subscribed, tries=tries, is_suspect=is_suspect)
        await self._done()

    async def rename(
        self, contact: AcId, email: Email, *, tries: float = math.inf, is_suspect: bool = False
    ) -> None:
        await super().rename(contact, email, tries=tries, is_suspect=is_suspect)
        await self._done()

    async def clear_customer_id(
        self, contact: AcId, *, tries: float = math.inf, is_suspect: bool = False
    ) -> None:
        await super().clear_customer_id(contact, tries=tries, is_suspect=is_suspect)
        await self._done()

    async def add_tag(
        self, contact: AcId, tag: WeekTag, *, tries: float = math.inf, is_suspect: bool = False
    ) -> int:
        link = await super().add_tag(contact, tag, tries=tries, is_suspect=is_suspect)
        await self._done()
        return link

    async def remove(self, link: int, *, tries: float = math.inf, is_suspect: bool = False) -> None:
        await super().remove(link, tries=tries, is_suspect=is_suspect)
        await self._done()

    @property
    def excused(self) -> set[AcContact]:
        """The contacts that need not be on the list."""
        return self.were_off | self.came_alone | self.passed_over

    async def work(self) -> None:
        """Finish what was accepted, though no process asks for it any more."""
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
    """Implements what `sync --customer` asks of the shop's customers."""

    def __init__(self, shop: FakeCustomers) -> None:
        self.accounts = shop.accounts
        self._shop = shop

    async def by_email(self, emails: Collection[Email]) -> dict[Email, list[Customer]]:
        await anyio.lowlevel.checkpoint()
        people = [row.customer for row in self._shop.rows.values()]
        return {email: [each for each in people if each.email == email] for email in emails}


class ShopLog(FakeLog):
    """A log that yields the `changed` customers too, as following does."""

    changed: tuple[CustomerId, ...] = ()

    async def pages(self, after: Position, mark: HighWaterMark) -> AsyncIterator[list[Entry] | Changes]:
        async for page in super().pages(after, mark):
            if self.changed:
                changes = [Change(self.people[each].customer, NOW) for each in self.changed]
                self.changed = ()
                yield Changes(changes)
            yield page


class NothingSent:
    """Implements what `sync --customer` asks of the orders that were sent."""

    async def sent(self, _ids: Collection[OrderId]) -> dict[OrderId, SentOrder]:
        await anyio.lowlevel.checkpoint()
        return {}


class Life(World):
    """The lives of processes on one state, among customers who opt out and in."""

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
        """Check that an import may subscribe: the one that creates the contact, if all of it want that.

        Of a contact that came alone that is one that is linked already.
        """
        is_linked = self.links.by_email[email].status is ContactStatus.LINKED
        came_alone = self.account.id_of(email) and self.account.at(email) in self.account.came_alone
        assert not is_linked or came_alone, "subscribed by a later import"
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

    def _sync(self, order_delivery: OrderDelivery) -> ContactSync:
        settings, locks = self.settings.activecampaign, ContactLocks()
        held_s = settings.retry_held_s
        tags = TagRequests(FakeWeekTags(self.account), self.account, held_s)
        shop, there, due, weeks = self.shop, self.account, self.due, self.weeks
        self.read = ReadByContactSync(shop)
        self.tags = WeekTagSync(
            SITE.id,
            due=due,
            weeks=weeks,
            customers=shop,
            tags=tags,
            locks=locks,
            kind=tag_kind(Incidents(), 300),
            held=self.held,
        )
        ports = ContactPorts(
            customers=self.read,
            links=self.links,
            orders=self.orders,
            order_delivery=order_delivery,
            weeks=weeks,
            due=due,
            contacts=there,
            alone=ContactRequests(there, held_s),
            tags=tags,
            locks=locks,
            held=self.held,
        )
        refusals = ContactRefusals(self.links, Incidents(), settings.retry_refused_s)
        return ContactSync(
            SITE,
            ports,
            writes=ContactWrites(ports, settings, refusals=refusals, sleep=no_time, now=lambda: self.now),
            refusals=refusals,
            order_kind=self.order_kind,
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
            await self._sync_customer(CustomerId(run.who))

    async def _backfill(self, mark: int) -> None:
        """Do what `BackfillRun` does."""
        await self.sync.snapshot(position(mark), lambda _count: None)
        async with self.sync.working():
            await self.pipeline.run(up_to(mark))
        await self.tags.open_week()
        await self.tags.sync_due()

    async def _follow(self, mark: int) -> None:
        """Do what `ServiceRun` does in a round."""
        async with anyio.create_task_group() as background:
            background.start_soon(self.tags.run, TAGS_EVERY_S)
            await self.sync.snapshot(position(mark), lambda _count: None)
            async with self.sync.working():
                await self.pipeline.run(up_to(self.size))
            background.cancel_scope.cancel()

    async def _sync_customer(self, who: CustomerId) -> None:
        """Do what `sync --customer` does."""
        email = self.shop.rows[who].customer.email
        assert email is not None
        sent = cast("OrderStates", NothingSent())
        await CustomerSync(SiteAmongFakes(self), sent).go(who, email)


class SiteAmongFakes(WorkingSite):
    """A working site with what `sync --customer` uses of it."""

    def __init__(self, life: Life) -> None:
        fakes: Any = life
        shop: Any = SimpleNamespace(site=SITE, customers=SearchedShop(life.shop), orders=life.orders)
        held: Any = SimpleNamespace(client=SimpleNamespace(requests={}), settings=life.settings)
        self.shop, self.held = shop, held
        self.links, self.contacts = fakes.links, fakes.sync
        self.held_records = fakes.held
        self.tags, self.account = fakes.tags, fakes.account

    def pauses(self) -> list[str]:
        return []


async def _strike(turns: int, strike: Callable[[], None]) -> None:
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()
    strike()
