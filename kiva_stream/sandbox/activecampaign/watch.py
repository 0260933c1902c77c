"""What a client must not do although ActiveCampaign accepts it, counted where it arrives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple, Protocol

WEEK_TAGS = frozenset({"open order", "closed order", "no order"})  # a contact has one of them at a time


class Unfinished(Protocol):
    """A bulk import that may still be under way."""

    def is_under_way(self, now: float) -> bool:
        """Return whether it may still write contacts."""
        ...


class Writes(NamedTuple):
    """The contacts, by address, that one request may write."""

    emails: frozenset[str]


class Watch:
    """The counts of one account. Times are seconds on the sandbox's clock."""

    def __init__(self) -> None:
        self.tag_overlaps = 0  # times a contact came to have two of the three week tags
        self.resubscribed = 0  # times a contact went from unsubscribed to subscribed
        self.contacts_in_two_requests = 0
        self.changing_requests = 0  # requests that could change something, events excepted
        self._under_way: Counter[str] = Counter()  # REST writes, by address
        self._imports: dict[str, Unfinished] = {}  # the newest one of an address

    def begin(self, emails: Iterable[str], now: float) -> Writes:
        """Note that a REST write begins. Count its contacts that another write is still changing."""
        writes = Writes(frozenset(emails))
        self.contacts_in_two_requests += sum(self._is_written(email, now) for email in writes.emails)
        self._under_way.update(writes.emails)
        return writes

    def end(self, writes: Writes) -> None:
        """Note that a write has been answered."""
        for email in writes.emails:
            self._under_way[email] -= 1
            if not self._under_way[email]:
                del self._under_way[email]

    def accept_import(self, emails: Iterable[str], accepted: Unfinished) -> None:
        """Note that an import of these contacts is accepted."""
        self._imports.update(dict.fromkeys(emails, accepted))

    def count_request(self, *, may_change: bool) -> None:
        """Count a request if it could change something."""
        self.changing_requests += may_change

    def count_subscription(self, *, was_unsubscribed: bool) -> None:
        """Count a subscription if the contact had unsubscribed before."""
        self.resubscribed += was_unsubscribed

    def check_week_tags(self, names: Iterable[str]) -> None:
        """Count an overlap if a contact that has just got a week tag has another one."""
        self.tag_overlaps += len(WEEK_TAGS.intersection(names)) > 1

    def _is_written(self, email: str, now: float) -> bool:
        unfinished = self._imports.get(email)
        return email in self._under_way or (unfinished is not None and unfinished.is_under_way(now))
