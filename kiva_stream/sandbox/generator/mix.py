"""The mix of a shop's log: every kind of entry, its share and its writer, and how many each week has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

from kiva_stream.model.event_catalog import CATALOG, EventLine
from kiva_stream.sandbox.generator import other_texts as t
from kiva_stream.sandbox.generator.event_texts import WRITERS, Writer

WEEKS = 52

Key = int | str  # the number of an event line, or a word for another kind
EXPIRED_LINK, SUB_MADE, SUB_UNDONE, UNSUBSCRIBED = 3, 8, 9, 25


class Kind(NamedTuple):
    """One kind of entry."""

    key: Key
    sort: str  # event | sync_only | noise
    share: float  # percent of all entries
    writer: Writer
    actors: tuple[str, ...]  # the first is the usual one
    category: str
    event_line: EventLine | None = None
    severity: str = "info"


def _events() -> Iterable[Kind]:
    for event_line, writer in zip(CATALOG.events, WRITERS, strict=True):
        category = _CATEGORIES.get(event_line.actions[0].split(".")[0], "customer")
        yield Kind(
            event_line.number, "event", event_line.pct, writer, _actors(event_line), category, event_line
        )


def _actors(event_line: EventLine) -> tuple[str, ...]:
    """Return the actors of an event line but visitors, which are decided when an entry is planned."""
    return tuple(actor for actor in event_line.actor if actor != "visitor")


_CATEGORIES = {code: code for code in ("email", "order", "schedule", "payment", "admin")}

_SYSTEM, _ADMIN, _CUSTOMER, _VISITOR = ("system",), ("admin",), ("customer",), ("visitor",)
_OTHERS = (
    Kind("order.generated", "sync_only", 8.30, t.order_generated, _SYSTEM, "order"),
    Kind("order.closed", "sync_only", 7.30, t.order_closed, _SYSTEM, "order"),
    Kind("order.edit", "sync_only", 1.40, t.order_edited, _ADMIN, "admin"),
    Kind("customer.edit", "sync_only", 1.10, t.customer_edited, _ADMIN, "admin"),
    Kind("payment.failed", "sync_only", 0.60, t.payment_failed, _SYSTEM, "payment", severity="warning"),
    Kind("order.refund", "sync_only", 0.05, t.order_refunded, _ADMIN, "order"),
    Kind("balance", "sync_only", 0.35, t.balance_changed, ("system", "admin"), "customer"),
    Kind("tag", "sync_only", 0.30, t.tag_changed, _ADMIN, "customer"),
    Kind("pause", "sync_only", 0.09, t.paused, ("customer", "admin"), "customer"),
    Kind("resume", "sync_only", 0.06, t.resumed, ("customer", "admin"), "customer"),
    Kind("email.change", "sync_only", 0.10, t.email_changed, ("customer", "admin"), "customer"),
    Kind("reactivate", "sync_only", 0.09, t.reactivated, _CUSTOMER, "customer"),
    Kind("delete", "sync_only", 0.057, t.deleted, _ADMIN, "admin"),
    Kind("erase", "sync_only", 0.003, t.erased, _ADMIN, "admin"),
    Kind("menu", "noise", 11.20, t.menu_sent, _SYSTEM, "email"),
    Kind("mail", "noise", 5.20, t.mail_sent, _SYSTEM, "email"),
    Kind("payment", "noise", 1.50, t.payment_tried, _SYSTEM, "payment"),
    Kind("cron", "noise", 3.00, t.cron, _SYSTEM, "cron"),
    Kind("recalculated", "noise", 1.80, t.recalculated, _SYSTEM, "order"),
    Kind("debug", "noise", 1.60, t.debug, _SYSTEM, "database", severity="debug"),
    Kind("staff", "noise", 1.50, t.staff_login, _ADMIN, "admin"),
    Kind("error", "noise", 1.20, t.error, _SYSTEM, "database", severity="error"),
    Kind("login.failed", "noise", 0.90, t.login_failed, _VISITOR, "visitor", severity="notice"),
    Kind("visitor", "noise", 0.80, t.visitor, _VISITOR, "visitor"),
    Kind("note", "noise", 0.70, t.note, _ADMIN, "customer"),
    Kind("integration", "noise", 0.60, t.integration, _SYSTEM, "integration"),
)
KINDS: dict[Key, Kind] = {kind.key: kind for kind in (*_events(), *_OTHERS)}

# Completed orders a week grow linearly from 800 to 6,200, and everything with them.
RAMP = tuple(800 + (6200 - 800) * week / (WEEKS - 1) for week in range(WEEKS))
# A shop opens with customers that it won before: a twentieth signs up in the first week.
_LATER_SIGNUPS = tuple(0.475 / WEEKS + 0.475 * share / sum(RAMP) for share in RAMP)
SIGNUPS = (_LATER_SIGNUPS[0] + 0.05, *_LATER_SIGNUPS[1:])
# Some of the last week's orders are still open when the history ends.
_LEFT_OPEN = 0.0036
GENERATED = (*RAMP[:-1], RAMP[-1] + _LEFT_OPEN * sum(RAMP))

_PROFILES: dict[Key, Sequence[float]] = {2: SIGNUPS, 12: SIGNUPS, "order.generated": GENERATED}
# Where rounding matters (a thousand entries), an order must be made before it is closed, then paid.
_EARLINESS: dict[Key, float] = {2: 0.9, "order.generated": 0.9, "order.closed": 0.6, 41: 0.3, 1: 0.2}


def totals(entries: int) -> dict[Key, int]:
    """Return how many entries of each kind make up `entries`, by largest remainder."""
    exact = {kind.key: entries * kind.share / 100 for kind in KINDS.values()}
    counts = {key: int(value) for key, value in exact.items()}
    by_remainder = sorted(exact, key=lambda key: exact[key] - counts[key], reverse=True)
    for key in by_remainder[: entries - sum(counts.values())]:
        counts[key] += 1
    return counts


def by_week(total: int, profile: Sequence[float], earliness: float = 0.5) -> list[int]:
    """Return how many of `total` each week has; the higher `earliness` (0 to 1), the earlier they come."""
    whole = sum(profile)
    reached = [min(int(total * share / whole + earliness), total) for share in accumulate(profile)]
    reached[-1] = total
    return [after - before for before, after in zip([0, *reached], reached, strict=False)]


class Quotas:
    """The number of entries of each kind in each week. Their sum over the year is the number of entries."""

    def __init__(self, entries: int) -> None:
        self.events = sum(count for key, count in totals(entries).items() if KINDS[key].sort == "event")
        self._weeks = {
            key: by_week(total, _PROFILES.get(key, RAMP), _EARLINESS.get(key, 0.5))
            for key, total in totals(entries).items()
        }

    def take(self, key: Key, week: int) -> int:
        """Return the number of entries of kind `key` in `week`, counted from 0."""
        return self._weeks[key][week]
