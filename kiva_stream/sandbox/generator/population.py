"""The customer accounts of a site: their names and addresses, and what is wrong with some of them.

The normalised address (`key`) is known by construction: the generator starts from a clean address and makes
it untidy, so the ground truth needs none of the code that it checks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

from kiva_stream.sandbox.generator import words
from kiva_stream.sandbox.generator.draw import Draw
from kiva_stream.sandbox.generator.orders import NO_ORDER, Order


class Address(NamedTuple):
    """An e-mail address as the shop stores it, and as its contact has it (None: no usable address)."""

    stored: str | None
    key: str | None


@dataclass(slots=True, eq=False)
class CustomerAccount:
    """A customer of one site as it is now; at the end of the year, a row of `customers`."""

    id: int
    first_name: str
    last_name: str
    address: Address
    account_type: str  # as in the contract
    created_ms: int
    updated_ms: int
    business_name: str | None = None
    anomaly: str = ""  # what is wrong with it: the name of one of `ANOMALIES`, or empty
    hot: bool = False  # an office or coop that causes a fixed share of all entries
    changes_address: bool = False  # may change its address
    street: str = ""
    city: str = ""
    zip: str = ""
    phone: str | None = None
    status: str = "active"
    box: words.Box | None = None
    frequency: int | None = None  # a delivery every so many weeks
    anchor: date | None = None  # Monday of one on-week
    weekday: int = 2  # of delivery, Monday is 1
    cancelled_ms: int | None = None
    cancel_reason: str | None = None
    cancelled_week: int = 0
    birthday: str | None = None
    opt_in: bool = True
    blacklisted: bool = False
    order: Order = NO_ORDER  # the one of the week that customers may still change
    newest_order_ms: int = 0
    rank: int = -1  # among the active customers, by activity; -1: not active
    earlier_addresses: list[Address] = field(default_factory=list)
    overrides: dict[str, str] = field(default_factory=dict)  # week -> add | skip
    recurring: dict[int, tuple[int, int]] = field(default_factory=dict)  # product -> qty, how often
    tags: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The stored name, as log texts have it; empty for a business without a person."""
        return f"{self.first_name} {self.last_name}".strip()

    @property
    def plain(self) -> bool:
        """Whether nothing is wrong with it and its address will not change."""
        return not (self.anomaly or self.changes_address)

    @property
    def exclusion(self) -> str:
        """Why its entries never become events: `erased`, `test` or `no_email`; empty when they do."""
        return EXCLUSIONS.get(self.anomaly, "")


ERASED = {"erased", "deleted"}  # the anomalies of customers without a contact or a live row
EXCLUSIONS = {
    "erased": "erased",
    "deleted": "erased",
    "test": "test",
    "missing": "no_email",
    "invalid": "no_email",
}


class Anomaly(NamedTuple):
    """Something wrong with one customer in `every`, beginning with number `first`."""

    name: str
    every: int
    first: int

    def affects(self, number: int) -> bool:
        """Whether customer `number` (from 0) is one of them."""
        return number % self.every == self.first


# Shares: missing 0.4 %, invalid 0.3 %, shared 1.2 %, erased 0.3 %, test 0.2 %. Customers with an anomaly are
# evenly spaced, so that small histories have them too.
ANOMALIES = (
    Anomaly("shared", 83, 7),
    Anomaly("missing", 250, 15),
    Anomaly("invalid", 333, 22),
    Anomaly("untidy", 160, 29),
    Anomaly("erased", 333, 36),
    Anomaly("test", 500, 43),
    Anomaly("deleted", 1000, 50),
    Anomaly("blacklisted", 300, 57),
    Anomaly("odd_name", 100, 64),
)
HOT_CUSTOMERS = 3
ADDRESS_CHANGES_EVERY, ADDRESS_CHANGES_FIRST = 10, 4
OPT_OUT_AT_SIGNUP = 0.05
PHONE_SHARE = 0.8

_MISSING = (None, "", "   ")
_INVALID: tuple[Callable[[str], str], ...] = (
    lambda _: "n/a",
    lambda _: "none",
    lambda user: f"{user}@example,com",
    lambda user: f"{user}.example.com",
    lambda user: f"{user}@@example.com",
    lambda user: f"{user} x@example.com",
    lambda user: f"{user}{'a' * 250}@example.com",
)
_IDN = "b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher"
_UNTIDY: tuple[Callable[[str], Address], ...] = (
    lambda user: Address(f"  {user}@example.com ", f"{user}@example.com"),
    lambda user: Address(f"{user.title()}@Example.COM", f"{user}@example.com"),
    lambda user: Address(f"{user}@example.com.", f"{user}@example.com"),
    lambda user: Address(f"{user}@example.com; {user}@example.net", f"{user}@example.com"),
    lambda user: Address(f"{user}@{_IDN}.example", f"{user}@xn--bcher-kva.example"),
)


class Population:
    """The customers of one site, in the order in which they joined."""

    def __init__(self, draw: Draw, first_id: int) -> None:
        self.customers: list[CustomerAccount] = []
        self._draw = draw
        self._first_id = first_id

    def add(self, account_type: str, joined_ms: int, monday: date) -> CustomerAccount:
        """Add a customer whose first delivery week begins on `monday`."""
        number = len(self.customers)
        customer = self._new_customer(number, account_type, joined_ms)
        self.customers.append(customer)
        self._subscribe(customer, monday)
        return customer

    def subscribe(self, customer: CustomerAccount, monday: date) -> None:
        """Give an activated customer a box and a schedule."""
        customer.status = "active"
        self._subscribe(customer, monday)

    def change_address(self, customer: CustomerAccount, number: int) -> None:
        """Change an address to a new one, back to an earlier one, or to that of another customer."""
        before = customer.address
        customer.address = self._next_address(customer, number)
        customer.earlier_addresses.append(before)

    def _new_customer(self, number: int, account_type: str, joined_ms: int) -> CustomerAccount:
        draw = self._draw
        hot = number < HOT_CUSTOMERS
        anomaly = "" if hot else next((anomaly.name for anomaly in ANOMALIES if anomaly.affects(number)), "")
        first_name, last_name = self._name(number, anomaly)
        user = f"odd.name{number}" if anomaly == "odd_name" else _user(first_name, last_name, number)
        customer = CustomerAccount(
            id=self._first_id + number,
            first_name=first_name,
            last_name=last_name,
            address=self._address(number, user, anomaly),
            account_type=account_type,
            created_ms=joined_ms,
            updated_ms=joined_ms,
            anomaly=anomaly,
            hot=hot,
            changes_address=not (anomaly or hot) and number % ADDRESS_CHANGES_EVERY == ADDRESS_CHANGES_FIRST,
            street=f"{1 + draw.below(900)} {draw.pick(words.STREETS)}",
            city=draw.pick(words.CITIES),
            zip=f"{60000 + draw.below(900):05d}",
            phone=f"+1 555 555 {draw.below(10000):04d}" if draw.chance(PHONE_SHARE) else None,
            opt_in=not draw.chance(OPT_OUT_AT_SIGNUP),
            blacklisted=anomaly == "blacklisted",
        )
        if account_type in {"business", "wholesale"}:
            customer.business_name = draw.pick(words.BUSINESSES)
        return customer

    def _name(self, number: int, anomaly: str) -> tuple[str, str]:
        if anomaly == "odd_name":
            return words.ODD_NAMES[number // 100 % len(words.ODD_NAMES)]
        # Where the name of an erased person ends, only the log's text says: it must have at most four words.
        first_names = words.FIRST_NAMES[:26] if anomaly in ERASED else words.FIRST_NAMES
        return self._draw.pick(first_names), self._draw.pick(words.LAST_NAMES)

    def _address(self, number: int, user: str, anomaly: str) -> Address:
        match anomaly:
            case "missing":
                return Address(_MISSING[number // 250 % len(_MISSING)], None)
            case "invalid":
                return Address(_INVALID[number // 333 % len(_INVALID)](user), None)
            case "untidy":
                return _UNTIDY[number // 160 % len(_UNTIDY)](user)
            case "shared":
                return self._shared(number)
        address = f"{user}@{words.MAIL_DOMAINS[number % len(words.MAIL_DOMAINS)]}"
        return Address(address, address)

    def _shared(self, number: int) -> Address:
        """Return the address of the last plain customer before, written in capitals every other time."""
        other = next(customer for customer in reversed(self.customers) if customer.plain)
        stored = other.address.stored
        return Address(stored.upper() if stored and number % 2 else stored, other.address.key)

    def _next_address(self, customer: CustomerAccount, number: int) -> Address:
        if customer.earlier_addresses and self._draw.chance(BACK_TO_EARLIER):
            return customer.earlier_addresses[-1]
        other = self._draw.pick(self.customers)
        if other.plain and self._draw.chance(ONTO_ANOTHER):
            return other.address
        domain = self._draw.pick(words.MAIL_DOMAINS)
        address = f"{_user(customer.first_name, customer.last_name, customer.id)}.{number}@{domain}"
        return Address(address, address)

    def _subscribe(self, customer: CustomerAccount, monday: date) -> None:
        draw = self._draw
        customer.box = draw.choices(words.BOXES, words.BOX_SHARES)[0]
        customer.frequency = 1 if customer.hot else draw.choices((1, 2, 3, 4), FREQUENCY_SHARES)[0]
        customer.anchor = monday
        customer.weekday = 2 + draw.below(4)


BACK_TO_EARLIER = 0.5  # of the second and later changes of a customer; a tenth of all changes
ONTO_ANOTHER = 0.03
FREQUENCY_SHARES = (46, 44, 3, 7)


def _user(first_name: str, last_name: str, number: int) -> str:
    """Return the local part of a clean, unique address."""
    return f"{first_name}.{last_name}{number}".lower().replace(" ", "").replace("'", "").replace("..", ".")


def is_delivery_week(customer: CustomerAccount, monday: date) -> bool:
    """Whether the customer's frequency and overrides make this a delivery week."""
    override = customer.overrides.get(monday.isoformat())
    if override or customer.anchor is None or customer.frequency is None:
        return override == "add"
    return (monday - customer.anchor).days // 7 % customer.frequency == 0


# Of entries by visitors and robots.
NO_CUSTOMER = CustomerAccount(
    id=0,
    first_name="",
    last_name="",
    address=Address(None, None),
    account_type="individual",
    created_ms=0,
    updated_ms=0,
)
