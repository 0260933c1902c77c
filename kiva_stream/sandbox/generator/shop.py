"""One site through the year: its accounts and their statuses, its orders."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from kiva_stream.sandbox.generator import words
from kiva_stream.sandbox.generator.activity import Activity
from kiva_stream.sandbox.generator.clock import Calendar, midnight_ms
from kiva_stream.sandbox.generator.draw import Draw
from kiva_stream.sandbox.generator.mix import Quotas
from kiva_stream.sandbox.generator.orders import Order, spoil, total_cents
from kiva_stream.sandbox.generator.population import HOT_ACCOUNTS, Account, Population

IMPORTED_SHARE = 0.0002  # accounts without a sign-up entry, per entry
PENDING_SHARE = 200 / 15_000
DOUBLED_SHARE = 0.0005  # rows written twice
TRIES = 8
FORGOTTEN_EVERY = 5  # of those who come back: when they had cancelled stays stored


@dataclass(frozen=True, slots=True)
class SiteRow:
    """A row of `sites`."""

    id: int
    name: str
    timezone: str
    currency: str

    @property
    def first_customer_id(self) -> int:
        """Where the site's customer ids begin; sites share one table."""
        return (self.id - 1) * 10_000_000 + 1001

    @property
    def first_order_id(self) -> int:
        """Where the site's order ids begin."""
        return (self.id - 1) * 100_000_000 + 100_001


SITES = (
    SiteRow(1, "Green Valley Boxes", "America/Chicago", "USD"),
    SiteRow(2, "Cape Harvest", "Africa/Johannesburg", "zar"),
    SiteRow(3, "Thames Veg", "Europe/London", "GBP"),
)


class Shop:
    """A site's people and orders; what happens to them is planned week by week."""

    def __init__(self, site: SiteRow, entries: int, seed: int, start: date) -> None:
        self.site = site
        self.entries = entries
        self.start = start
        self.draw = Draw(f"{seed}/{entries}/{site.id}")
        self.touch = Draw(
            f"{seed}/{entries}/{site.id}/orders"
        )  # what is done to orders behind the log's back
        self.doubles = int(entries * DOUBLED_SHARE + 0.5)
        self.quotas = Quotas(entries - self.doubles)
        self.zone = ZoneInfo(site.timezone)
        self.launched_ms = midnight_ms(self.launched_on, self.zone)
        self.population = Population(self.draw, site.first_customer_id)
        self.activity = Activity(self.draw)
        self.waiting_promos: list[Account] = []
        self.waiting_gifts: list[Account] = []
        self.left: list[Account] = []  # cancelled
        self.paused: list[Account] = []
        self.opted_out: list[Account] = []
        self.blacklisted: list[Account] = []
        self.movers: list[Account] = []
        self.doomed: list[Account] = []  # to be erased
        self.unclosed: list[Order] = []
        self.unpaid: list[Order] = []  # closed, to be paid at their delivery
        self.young: list[Order] = []  # of this week
        self._old: list[Order] = []
        self._last_week: list[Order] = []
        self.foreign_ids: list[int] = []  # customers of another site
        self.orders = 0
        for _ in range(max(HOT_ACCOUNTS, round(entries * IMPORTED_SHARE))):
            self._import()

    @property
    def launched_on(self) -> date:
        """The day before which nothing can have happened."""
        return self.start - timedelta(days=10)

    def calendar(self, week: int) -> Calendar:
        """Return the days of an entry week, counted from 0."""
        return Calendar(self.start + timedelta(weeks=week), self.zone)

    def join(self, account_type: str, calendar: Calendar, joined_ms: int) -> Account:
        """Add an account of the given type, active unless it waits for something."""
        account = self.population.join(account_type, joined_ms, calendar.monday)
        self._note_fate(account)
        if account_type == "promo":
            self._wait(account, self.waiting_promos)
        elif account_type == "gift_purchaser":
            self._wait(account, self.waiting_gifts)
        elif account_type == "individual" and self.draw.chance(PENDING_SHARE):
            account.status = "pending"
        else:
            self.activity.add(account)
        return account

    def activate(self, waiting: list[Account], calendar: Calendar) -> Account:
        """Let one of those who wait begin; without any, somebody who is active."""
        if not waiting:
            return self.activity.anyone()
        account = waiting.pop(self.draw.below(len(waiting)))
        account.status = "active"
        if waiting is self.waiting_promos:
            self.population.subscribe(account, calendar.monday)
            self.activity.add(account)
        return account

    def leave(self, status: str, now_ms: int, week: int) -> Account:
        """Take an account out of the active ones; when only hot ones are left, nothing changes."""
        account = next((a for a in (self.activity.anyone() for _ in range(TRIES)) if not a.hot), None)
        if account is None:
            return self.activity.anyone()
        self.activity.remove(account)
        account.status = status
        account.updated_ms = now_ms
        if status == "cancelled":
            account.cancelled_ms = now_ms
            account.cancelled_week = week
            account.cancel_reason = self.draw.pick(words.CANCEL_REASONS)
            self.left.append(account)
        elif status == "paused":
            self.paused.append(account)
        elif status in {"expired", "dead"}:
            account.cancelled_ms = now_ms
        return account

    def come_back(self, pool: list[Account], now_ms: int, week: int) -> Account:
        """Make somebody of `pool` active again, of those who left in an earlier week."""
        for _ in range(TRIES if pool else 0):
            # The later half: most who come back do so within 90 days.
            place = len(pool) - 1 - self.draw.below((len(pool) + 1) // 2)
            account = pool[place]
            if account.cancelled_week < week:
                pool.pop(place)
                account.status, account.updated_ms = "active", now_ms
                if account.id % FORGOTTEN_EVERY:
                    account.cancelled_ms = None
                self.activity.add(account)
                return account
        return self.activity.anyone()

    def order(self, account: Account, calendar: Calendar, now_ms: int) -> Order:
        """Make the order of this week for an account."""
        draw = self.draw
        box = account.box or words.BOXES[0]
        order = Order(
            id=self.site.first_order_id + self.orders,
            customer_id=account.id,
            week=calendar.mondays[0],
            delivery=calendar.date(0, account.weekday),
            box=box,
            menu_lines=draw.pick(box.menu_lines),
            total_cents=total_cents(draw),
            created_ms=now_ms,
            updated_ms=now_ms,
            email=account.address.key,
        )
        spoil(order, draw)
        self.orders += 1
        return order

    def account(self, customer_id: int) -> Account:
        """Return the account of a customer id of this site."""
        return self.population.accounts[customer_id - self.site.first_customer_id]

    def settle(self) -> list[Order]:
        """Return the orders of the week before last week's end that nothing more will happen to.

        Called once a week, after its entries were written. What is still open or unpaid is kept.
        """
        settled = [order for order in self._old if order.payment_status != "pending"]
        self._old = [order for order in self._old if order.payment_status == "pending"] + self.young
        self._last_week, self.young = self.young or self._last_week, []
        return settled

    def of_last_week(self) -> list[Order]:
        """Return the orders of the week that was opened last."""
        return self._last_week

    def leftover(self) -> list[Order]:
        """Return the orders that are not settled when the history ends."""
        return self._old + self.young

    def _wait(self, account: Account, waiting: list[Account]) -> None:
        account.status = "pending"
        account.box = account.frequency = account.anchor = None
        waiting.append(account)

    def _import(self) -> None:
        account_type = self.draw.pick(("business", "wholesale", "individual"))
        account = self.population.join(account_type, self.launched_ms, self.start)
        self._note_fate(account)
        self.activity.add(account)

    def _note_fate(self, account: Account) -> None:
        if account.moves:
            self.movers.append(account)
        elif account.fate == "erased":
            self.doomed.append(account)
        elif account.fate == "blacklisted":
            self.blacklisted.append(account)


def shops(entries: int, seed: int, sites: int, start: date) -> list[tuple[Shop, bool]]:
    """Return the sites of a history, each with whether its entries count.

    Of one site, a second and small one shares the log, a few percent of it, and counts for nothing.
    """
    parts = _SPLITS[sites]
    counts = [int(entries * part) for part in parts]
    counts[0] += entries - sum(counts)
    found = [(Shop(site, count, seed, start), True) for site, count in zip(SITES, counts, strict=False)]
    if sites == 1:
        found.append((Shop(SITES[1], max(20, int(entries * BYSTANDER)), seed, start), False))
    _introduce([shop for shop, _ in found])
    return found


BYSTANDER = 0.03
_SPLITS = {1: (1.0,), 2: (0.7, 0.3), 3: (0.6, 0.25, 0.15)}


def _introduce(found: list[Shop]) -> None:
    for shop, other in zip(found, [*found[1:], found[0]], strict=True):
        shop.foreign_ids = [account.id for account in other.population.accounts[:HOT_ACCOUNTS]]
