"""Dirt: the malformed rows that years of bugs and imports leave in a log.

A malformed row keeps what the truth needs of its former self, so the truth follows from what was changed.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable

from kiva_stream.sandbox.generator.clock import HOUR
from kiva_stream.sandbox.generator.draw import Draw
from kiva_stream.sandbox.generator.mix import EXPIRED_LINK, UNSUBSCRIBED, Key
from kiva_stream.sandbox.generator.population import NO_CUSTOMER, CustomerAccount
from kiva_stream.sandbox.generator.rows import Row
from kiva_stream.sandbox.generator.shop import Shop

MALFORMED_SHARE = 0.0017 / 0.70  # of the rows about customers; with the next share 0.2 % of all rows
RARE_WAY_SHARE = 0.03  # of rows of the few kinds that can be malformed in a way of their own
WILD_SHARE = 0.0002
_WILD_MS = (0, 2_177_452_800_000, 0)  # 2039; 0: three hours after the insertion
HUGE_BYTES = 100_000
MONSTER_BYTES = 2_000_000
MONSTER_EVERY = 50  # of the rows with huge data

# Values as customers type and paste them, and what must arrive of each.
_ODD_VALUES = (
    ("<b>FALL</b>", "<b>FALL</b>"),
    ("a;b", "a,b"),
    ("two\nlines", "two lines"),
    ("bell\x07 rings", "bell rings"),
    ("JosÃ© said", "JosÃ© said"),
    ("\N{CARROT} week", "\N{CARROT} week"),
    ("null\\u0000 here", "null here"),
    ("  blanks  ", "blanks"),
    ("x" * 300, ""),
    ("\N{LATIN SMALL LETTER E WITH ACUTE}" * 130, ""),
)
_ODD_KEYS: dict[Key, str] = {15: "reason", 16: "reason", 19: "code", 20: "topic"}  # in data and in eventdata
_WRONG_TYPES: tuple[object, ...] = ([12], {"id": 12}, True, None, "")
_NO_PAIRS = (None, '"a string"', "[]", "null")


class Dirt:
    """Makes some rows of one shop malformed, in all ways about equally often.

    The name of a way, without its underscore, is the name under which its rows are counted.
    """

    def __init__(self, shop: Shop) -> None:
        self.counts: Counter[str] = Counter()
        self._shop = shop
        self._draw: Draw = shop.draw
        self._huge = 0
        self._ways: deque[Callable[[Row], bool]] = deque(
            (
                self._mail_only,
                self._stranger,
                self._wrong_site,
                self._unknown_action,
                self._contradiction,
                self._no_data,
                self._wrong_type,
                self._huge_data,
                self._long_message,
            )
        )

    def apply(self, row: Row) -> None:
        """Make this row malformed, or leave it as it is, at random."""
        if row.kind.sort != "noise" and self._draw.random() < MALFORMED_SHARE:
            self._malform(row)
        elif row.kind.key in _ODD_KEYS and self._draw.random() < RARE_WAY_SHARE:
            self._count(row, "odd_value", done=_odd_value(row, self._draw))
        elif row.kind.key == EXPIRED_LINK and row.customer.plain and self._draw.random() < RARE_WAY_SHARE:
            self._count(row, "mail_only", done=_reduce_to_mail(row))
        elif row.customer.anomaly == "shared" and self._draw.random() < RARE_WAY_SHARE:
            self._count(row, "shared_mail", done=_reduce_to_mail(row))
        elif self._draw.random() < WILD_SHARE and row.kind.key != EXPIRED_LINK:  # its text counts minutes
            wild = self._draw.pick(_WILD_MS)
            row.occurred_ms = wild or row.inserted_ms + 3 * HOUR
            self.counts["wild_clock"] += 1

    def _malform(self, row: Row) -> None:
        if row.customer is NO_CUSTOMER or row.reason:
            return
        for n, way in enumerate(self._ways):
            if way(row):
                del self._ways[n]
                self._ways.append(way)
                self._count(row, way.__name__[1:])
                return

    def _count(self, row: Row, what: str, *, done: bool = True) -> None:
        if done:
            row.dirt = what
            self.counts[what] += 1

    # Ways in which a row no longer says, or says wrongly, whose it is.

    def _mail_only(self, row: Row) -> bool:
        return row.customer.plain and _reduce_to_mail(row)

    def _stranger(self, row: Row) -> bool:
        """Leave only an address that no customer has; not where the text has another one."""
        mail = f"gone{row.inserted_ms}@visitors.example"
        if row.kind.key == UNSUBSCRIBED or not _reduce_to_mail(row, mail):
            return False
        row.customer = NO_CUSTOMER
        row.reason = "no_account" if row.kind.key in {3, 20, 40} else "no_customer"
        return True

    def _wrong_site(self, row: Row) -> bool:
        if row.action is None or row.sort == "noise":
            return False
        row.customer_id = self._draw.pick(self._shop.foreign_ids)
        row.reason = "wrong_site"
        return True

    # Ways in which its content is malformed.

    def _unknown_action(self, row: Row) -> bool:
        if row.action is None:
            return False
        row.action, row.message, row.sort = "customer.avatar", "Avatar changed", "sync_only"
        row.data, row.pairs = '{"size":3}', ""
        if self._draw.chance(0.3):
            row.action, row.message, row.customer_id = "widget.rotate", "Widget rotated", None
            row.sort = "noise"
        return True

    def _contradiction(self, row: Row) -> bool:
        if row.action is None:
            return False
        row.message = "Logged out" if row.action != "logout" else "Made a substitution: 1 Kale -> 2 Apples"
        return True

    def _long_message(self, row: Row) -> bool:
        if row.action is None:
            return False
        row.message += "\n" + "at kiva/order.php(118): load(184201)\n" * 540
        return True

    def _no_data(self, row: Row) -> bool:
        if row.action is None or row.sort != "event":
            return False
        row.data, row.pairs = self._draw.pick(_NO_PAIRS), ""
        return True

    def _wrong_type(self, row: Row) -> bool:
        """Replace the first pair's value by one of another type: that pair is lost, the others stay."""
        event_line = row.kind.event_line
        if row.data is None or event_line is None or not row.pairs:
            return False
        pair = event_line.eventdata[0]
        data = json.loads(row.data)
        head, _, tail = pair.path.partition(".")
        wrong = "many" if pair.format == "money" else self._draw.pick(_WRONG_TYPES)
        if tail:
            data[head][tail] = wrong
        else:
            data[head] = wrong
        row.data = json.dumps(data, ensure_ascii=False)
        row.pairs = row.pairs.partition("; ")[2]
        return True

    def _huge_data(self, row: Row) -> bool:
        """Make `data` larger than a reader accepts: it is ignored, and its pairs with it."""
        if row.action is None or row.sort != "event":
            return False
        self._huge += 1
        size = HUGE_BYTES if self._huge % MONSTER_EVERY else MONSTER_BYTES
        row.data, row.pairs = json.dumps({"dump": "x" * size}), ""
        return True


def _reduce_to_mail(row: Row, stranger: str | None = None) -> bool:
    """Remove the customer's id, so that only an address says whose row it is."""
    mail = stranger or row.customer.address.key
    if row.sort != "event" or mail is None or row.customer is NO_CUSTOMER:
        return False
    row.customer_id = None
    if row.data is not None:
        row.data = json.dumps({**json.loads(row.data), "email": mail}, ensure_ascii=False)
    else:
        row.message = f"{_without_prefix(row.message, row.customer)} ({mail})"
    return True


def _odd_value(row: Row, draw: Draw) -> bool:
    event_line = row.kind.event_line
    if row.data is None or event_line is None:
        return False
    key = _ODD_KEYS[row.kind.key]
    value, arrives = draw.pick(_ODD_VALUES)
    row.data = json.dumps({**json.loads(row.data), key: value}, ensure_ascii=False)
    kept = [pair for pair in row.pairs.split("; ")[:-1] if not pair.startswith(f"{key}=")]
    if arrives:
        kept.insert([pair.key for pair in event_line.eventdata].index(key), f"{key}={arrives}")
    row.pairs = "".join(f"{pair}; " for pair in kept)
    return True


def _without_prefix(message: str, customer: CustomerAccount) -> str:
    for prefix in (f"Customer #{customer.id} ({customer.name}) ", f"{customer.name} "):
        message = message.removeprefix(prefix)
    return message
