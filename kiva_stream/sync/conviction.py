"""Conviction: whether ActiveCampaign refuses a record, or the account a kind of request; without I/O.

The account is *convicted* if the refusals are its fault. A refusal is *provisional* while that is not known.
Creating and updating a contact are two kinds of requests. Moments are numbers of seconds.

| a record is refused                                     | then                                             |
|---------------------------------------------------------|--------------------------------------------------|
| and the reply names a value of the record               | the record is at fault                           |
| and the reply has a known text about the account: its   | the account is convicted                         |
| limit, plan, e-commerce, connection, tracking or key    |                                                  |
| and it is the last of `ROW` different records that were | the account is convicted. Texts are compared     |
| refused in a row with the same text; none was accepted  | without digits and addresses. A record counts    |
| between                                                 | once until it is accepted                        |
| and none of these is true                               | the refusal is provisional                       |

| after a provisional refusal                             | then                                             |
|---------------------------------------------------------|--------------------------------------------------|
| another record is accepted, whose request was sent      | the record is at fault                           |
| after the refusal came; and yet another one had been    |                                                  |
| accepted before the refusal, less than `BETWEEN_S`      |                                                  |
| before this acceptance                                  |                                                  |
| another record is accepted, and not all of that is true | the record is tried again at once                |
| the record need not be sent any more                    | it is forgotten                                  |

While the account is convicted, the kind is paused, and only a probe is sent now and then. It is by turns the
record whose provisional refusal is the oldest, and one that was never refused. When a probe is accepted, the
pause ends; no record is at fault because of that acceptance.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

from kiva_stream.sync.refusal_texts import blanked

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ROW = 5  # refusals that convict
BETWEEN_S = 900.0
MOST_COUNTED = 10_000  # records that are known to have counted towards a conviction

# None of these texts is documented. "contact limit" is what ActiveCampaign's own plugins report to users.
_KNOWN = re.compile(
    r"\b(contact|subscriber|account|plan) limit\b|\blimit (of|on) (the |your )?(contacts|subscribers)\b"
    r"|\b(your|current) plan\b|\bupgrade your account\b|\b(trial|account) (has |is )?(expired|suspended)"
    r"|\b(e-?commerce|deep data|tracking)\b.* (not (enabled|available|allowed)|disabled)"
    r"|\bconnection\b.* (not found|not exist|deleted|disabled|inactive|invalid)"
    r"|\b(invalid|wrong|missing) api (key|token)\b|\b(unauthori[sz]ed|forbidden)\b",
    re.IGNORECASE,
)


class Verdict(Enum):
    """What follows from a refusal."""

    AT_FAULT = "at fault"  # the record is
    PROVISIONAL = "provisional"
    PAUSED = "paused"  # the account is convicted


class _Refusal(NamedTuple):
    """The last refusal of a provisional record: when it came, and when another record was accepted before."""

    came_at: float
    accepted_before: float | None

    def is_between(self, sent_at: float, answered_at: float) -> bool:
        """Return whether it came between that acceptance and one of a request with these moments."""
        before = self.accepted_before
        return before is not None and self.came_at <= sent_at and answered_at - before < BETWEEN_S


class Found(NamedTuple, Generic[K]):
    """What an acceptance shows of other records."""

    at_fault: list[K]
    to_try: list[K]


def is_about_account(reply: str) -> bool:
    """Return whether a refusal has a known text about the account."""
    return _KNOWN.search(reply) is not None


class Conviction(Generic[K]):
    """The refusals of one kind. While it is paused, a probe is due every `probe_every_s` seconds."""

    def __init__(self, probe_every_s: float) -> None:
        self._probe_every_s = probe_every_s
        self._provisional: dict[K, _Refusal] = {}  # the oldest first
        self._waiting: dict[K, None] = {}  # not sent since the pause began, and not refused
        self._counted: dict[K, None] = {}  # towards a conviction, until they are accepted; the oldest first
        self._row: set[K] = set()  # refused with `_row_text`, and nothing accepted since
        self._row_text = ""
        self._accepted: tuple[K, float] | None = None  # the last one
        self._other_accepted_at: float | None = None  # when another record than that was accepted last
        self._convicted_at: float | None = None
        self._probe: K | None = None
        self._probe_at = 0.0
        self._is_turn_of_waiting = False

    @property
    def is_paused(self) -> bool:
        """Whether the account is convicted."""
        return self._convicted_at is not None

    def may_send(self, record: K) -> bool:
        """Return whether a record may be sent; while the kind is paused, only the probe may."""
        if not self.is_paused or record == self._probe:
            return True
        if record not in self._provisional:
            self._waiting[record] = None
        return False

    def refused(self, record: K, reply: str, *, at: float, names_value: bool) -> Verdict:
        """Return what follows from a refusal."""
        self._waiting.pop(record, None)
        if record == self._probe:
            self._probe = None
        if names_value:
            self._provisional.pop(record, None)
            return Verdict.AT_FAULT
        self._provisional[record] = _Refusal(at, self._accepted_before(record))
        if not self.is_paused and (is_about_account(reply) or self._completes_row(record, blanked(reply))):
            self._convicted_at, self._probe_at = at, at + self._probe_every_s
        return Verdict.PAUSED if self.is_paused else Verdict.PROVISIONAL

    def forget(self, records: Iterable[K]) -> None:
        """Forget records that are not to be sent any more, or that another kind of request carries now."""
        if not (self._provisional or self._waiting or self._counted):
            return
        for record in records:
            for kept in (self._provisional, self._waiting, self._counted):
                kept.pop(record, None)
            if record == self._probe:
                self._probe, self._probe_at = None, 0.0  # another one is sent at once

    def withdraw_probe(self) -> None:
        """Note that the probe was refused with all others of its kind; another one is sent next."""
        self._probe = None

    def convict(self, *, at: float) -> None:
        """Pause the kind, since ActiveCampaign refuses it whatever a request carries."""
        if not self.is_paused:
            self._convicted_at, self._probe_at = at, at + self._probe_every_s

    def accepted(self, records: Collection[K], *, sent_at: float, at: float) -> Found[K]:
        """Return what follows from the acceptance of records that were sent together."""
        for record in records:
            for kept in (self._provisional, self._waiting):
                kept.pop(record, None)
            self._note_accepted(record, at)
            self._counted.pop(record, None)
        self._row.clear()
        if self._convicted_at is None:
            found = [each for each, last in self._provisional.items() if last.is_between(sent_at, at)]
            for each in found:
                del self._provisional[each]
            return Found(found, list(self._provisional))
        if sent_at < self._convicted_at:  # it says nothing about the account as it is now
            return Found([], [])
        return self._end()

    def is_probe_due(self, now: float) -> bool:
        """Return whether a record is to be sent as a probe."""
        return self.is_paused and now >= self._probe_at and bool(self._provisional or self._waiting)

    def take_probe(self, now: float) -> K | None:
        """Return the record that is to be sent as a probe, if one is due."""
        if not self.is_probe_due(now):
            return None
        if self._probe is not None:  # it was not sent
            _move_to_end(self._provisional, self._probe)
            _move_to_end(self._waiting, self._probe)
        oldest, waiting = next(iter(self._provisional), None), next(iter(self._waiting), None)
        turns = (waiting, oldest) if self._is_turn_of_waiting else (oldest, waiting)
        self._is_turn_of_waiting = not self._is_turn_of_waiting
        self._probe = turns[1] if turns[0] is None else turns[0]
        self._probe_at = now + self._probe_every_s
        return self._probe

    def _end(self) -> Found[K]:
        """End the pause. What was refused before says nothing any more: it is tried again to find out."""
        self._convicted_at = self._probe = None
        to_try = [*self._provisional, *self._waiting]
        self._provisional = {
            each: last._replace(accepted_before=None) for each, last in self._provisional.items()
        }
        self._waiting.clear()
        return Found([], to_try)

    def _completes_row(self, record: K, text: str) -> bool:
        if record in self._counted:
            return False
        if text != self._row_text:
            self._row.clear()
            self._row_text = text
        self._counted[record] = None
        if len(self._counted) > MOST_COUNTED:
            del self._counted[next(iter(self._counted))]
        self._row.add(record)
        return len(self._row) >= ROW

    def _note_accepted(self, record: K, at: float) -> None:
        if self._accepted is not None and self._accepted[0] != record:
            self._other_accepted_at = self._accepted[1]
        self._accepted = record, at

    def _accepted_before(self, record: K) -> float | None:
        """Return when another record was accepted last."""
        if self._accepted is None:
            return None
        return self._other_accepted_at if self._accepted[0] == record else self._accepted[1]


def _move_to_end(kept: dict[K, V], record: K) -> None:
    if record in kept:
        kept[record] = kept.pop(record)
