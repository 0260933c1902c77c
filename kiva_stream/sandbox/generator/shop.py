"""One site through the year: its customers and their statuses, its orders."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from kiva_stream.sandbox.generator import words
from kiva_stream.sandbox.generator.activity import Activity
from kiva_stream.sandbox.generator.clock import Calendar, midnight_ms
from kiva_stream.sandbox.generator.draw import Draw
from kiva_stream.sandbox.generator.mix import Quotas
from kiva_stream.sandbox.generator.orders import Order, distort_total, draw_total_cents
from kiva_stream.sandbox.generator.population import HOT_CUSTOMERS, CustomerAccount, Population

IMPORTED_SHARE = 0.0002  # customers without a sign-up entry, per entry
PENDING_SHARE = 200 / 15_000
DUPLICATE_SHARE = 0.0005  # rows written twice
TRIES = 8
STALE_CANCELLATION_EVERY = 5  # of the reactivated customers: the date of the cancellation stays stored


@dataclass(frozen=True, slots=True)
class Site:
    """A row of `sites`."""

    id: int
    name: str
    timezone: str
    currency: str

    @property
    def first_customer_id(self) -> int:
        """The lowest customer id of the site; all sites share one table."""
        return (self.id - 1) * 10_000_000 + 1001

    @property
    def first_order_id(self) -> int:
        """The lowest order id of the site."""
        return (self.id - 1) * 100_000_000 + 100_001


SITES = (
    Site(1, "Green Valley Boxes", "America/Chicago", "USD"),
    Site(2, "Cape Harvest", "Africa/Johannesburg", "zar"),
    Site(3, "Thames Veg", "Europe/London", "GBP"),
)


class Shop:
    """The customers and orders of a site, as they are after the weeks planned so far."""

    def __init__(self, site: Site, *, entries: int, seed: int, start: date, other: Site) -> None:
        self.site = site
        self.entries = entries
        self.start = start
        self.draw = Draw(f"{seed}/{entries}/{site.id}")
        self.manual_edits = Draw(f"{seed}/{entries}/{site.id}/orders")  # of orders; no entry says so
        self.duplicates = int(entries * DUPLICATE_SHARE + 0.5)
        self.quotas = Quotas(entries - self.duplicates)
        self.zone = ZoneInfo(site.timezone)
        self.launched_ms = midnight_ms(self.launched_on, self.zone)
        self.population = Population(self.draw, site.first_customer_id)
        self.activity = Activity(self.draw)
        self.pending_promos: list[CustomerAccount] = []
        self.pending_gifts: list[CustomerAccount] = []
        self.cancelled: list[CustomerAccount] = []
        self.paused: list[CustomerAccount] = []
        self.opted_out: list[CustomerAccount] = []
        self.blacklisted: list[CustomerAccount] = []
        self.address_changers: list[CustomerAccount] = []
        self.to_be_erased: list[CustomerAccount] = []
        self.unclosed: list[Order] = []  # of earlier weeks, still open
        self.unpaid: list[Order] = []  # closed, to be paid on their delivery day
        self.current_orders: list[Order] = []  # of the week that is being planned or written
        self._earlier_orders: list[Order] = []  # not finished when their week ended
        self._last_week: list[Order] = []
        # Customers of the site `other`, whom some entries name by mistake.
        self.foreign_ids = range(other.first_customer_id, other.first_customer_id + HOT_CUSTOMERS)
        self._orders = 0
        for _ in range(max(HOT_CUSTOMERS, round(entries * IMPORTED_SHARE))):
            self._import()

    @property
    def launched_on(self) -> date:
        """The day before which nothing can have happened in this shop."""
        return self.start - timedelta(days=10)

    def calendar(self, week: int) -> Calendar:
        """Return the days of an entry week, counted from 0."""
        return Calendar(self.start + timedelta(weeks=week), self.zone)

    def sign_up(self, account_type: str, calendar: Calendar, joined_ms: int) -> CustomerAccount:
        """Add a customer, active unless its account waits for an activation or an order."""
        customer = self.population.add(account_type, joined_ms, calendar.monday)
        self._list_anomaly(customer)
        if account_type == "promo":
            self._set_pending(customer, self.pending_promos)
        elif account_type == "gift_purchaser":
            self._set_pending(customer, self.pending_gifts)
        elif account_type == "individual" and self.draw.chance(PENDING_SHARE):
            customer.status = "pending"
        else:
            self.activity.add(customer)
        return customer

    def activate(self, waiting: list[CustomerAccount], calendar: Calendar) -> CustomerAccount:
        """Activate one of the waiting customers and return it; without any, return an active one."""
        if not waiting:
            return self.activity.draw_evenly()
        customer = waiting.pop(self.draw.below(len(waiting)))
        customer.status = "active"
        if waiting is self.pending_promos:
            self.population.subscribe(customer, calendar.monday)
            self.activity.add(customer)
        return customer

    def deactivate(self, status: str, now_ms: int, week: int) -> CustomerAccount:
        """Set a customer that is not hot to an inactive status, and return it.

        When only hot ones are found, return an active customer unchanged.
        """
        drawn = (self.activity.draw_evenly() for _ in range(TRIES))
        customer = next((each for each in drawn if not each.hot), None)
        if customer is None:
            return self.activity.draw_evenly()
        self.activity.remove(customer)
        customer.status = status
        customer.updated_ms = now_ms
        if status == "cancelled":
            customer.cancelled_ms = now_ms
            customer.cancelled_week = week
            customer.cancel_reason = self.draw.pick(words.CANCEL_REASONS)
            self.cancelled.append(customer)
        elif status == "paused":
            self.paused.append(customer)
        elif status in {"expired", "dead"}:
            customer.cancelled_ms = now_ms
        return customer

    def reactivate(self, pool: list[CustomerAccount], now_ms: int, week: int) -> CustomerAccount:
        """Activate a customer of `pool` that left in an earlier week, and return it.

        When none is found, return an active customer unchanged.
        """
        for _ in range(TRIES if pool else 0):
            # From the later half: most reactivations come within 90 days.
            index = len(pool) - 1 - self.draw.below((len(pool) + 1) // 2)
            customer = pool[index]
            if customer.cancelled_week < week:
                pool.pop(index)
                customer.status, customer.updated_ms = "active", now_ms
                if customer.id % STALE_CANCELLATION_EVERY:
                    customer.cancelled_ms = None
                self.activity.add(customer)
                return customer
        return self.activity.draw_evenly()

    def order(self, customer: CustomerAccount, calendar: Calendar, now_ms: int) -> Order:
        """Make a customer's order of this week."""
        draw = self.draw
        box = customer.box or words.BOXES[0]
        order = Order(
            id=self.site.first_order_id + self._orders,
            customer_id=customer.id,
            week=calendar.mondays[0],
            delivery=calendar.date(0, customer.weekday),
            box=box,
            menu_items=draw.pick(box.menu_items),
            total_cents=draw_total_cents(draw),
            created_ms=now_ms,
            updated_ms=now_ms,
            email=customer.address.key,
        )
        distort_total(order, draw)
        self._orders += 1
        return order

    def customer(self, customer_id: int) -> CustomerAccount:
        """Return the customer of an id of this site."""
        return self.population.customers[customer_id - self.site.first_customer_id]

    def take_finished_orders(self) -> list[Order]:
        """Return the earlier orders to which nothing more will happen, and begin the next week.

        Called once a week, after its entries were written. An order stays until it is paid or ended.
        """
        finished = [order for order in self._earlier_orders if order.payment_status != "pending"]
        pending = [order for order in self._earlier_orders if order.payment_status == "pending"]
        self._earlier_orders = pending + self.current_orders
        self._last_week, self.current_orders = self.current_orders or self._last_week, []
        return finished

    def orders_of_last_week(self) -> list[Order]:
        """Return the orders of the week that was opened last."""
        return self._last_week

    def unfinished_orders(self) -> list[Order]:
        """Return the orders that are not finished when the history ends."""
        return self._earlier_orders + self.current_orders

    def _set_pending(self, customer: CustomerAccount, waiting: list[CustomerAccount]) -> None:
        customer.status = "pending"
        customer.box = customer.frequency = customer.anchor = None
        waiting.append(customer)

    def _import(self) -> None:
        account_type = self.draw.pick(("business", "wholesale", "individual"))
        customer = self.population.add(account_type, self.launched_ms, self.start)
        self._list_anomaly(customer)
        self.activity.add(customer)

    def _list_anomaly(self, customer: CustomerAccount) -> None:
        if customer.changes_address:
            self.address_changers.append(customer)
        elif customer.anomaly == "erased":
            self.to_be_erased.append(customer)
        elif customer.anomaly == "blacklisted":
            self.blacklisted.append(customer)


def open_shops(entries: int, seed: int, *, sites: int, start: date) -> list[tuple[Shop, bool]]:
    """Return the sites of a history, each with whether its entries count.

    A history of one site gets a second, small one that shares the log and does not count.
    """
    parts = _SPLITS[sites]
    counts = [int(entries * part) for part in parts]
    counts[0] += entries - sum(counts)
    if sites == 1:
        counts.append(max(20, int(entries * SECOND_SITE_SHARE)))
    found = SITES[: len(counts)]
    others = (*found[1:], found[0])
    return [
        (Shop(site, entries=count, seed=seed, start=start, other=other), n < sites)
        for n, (site, other, count) in enumerate(zip(found, others, counts, strict=True))
    ]


SECOND_SITE_SHARE = 0.03
_SPLITS = {1: (1.0,), 2: (0.7, 0.3), 3: (0.6, 0.25, 0.15)}
