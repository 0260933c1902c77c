"""A breaker: while a host of the account does not answer, or refuses the account, only probes go there.

It is closed as long as requests are answered, whatever the answer says of the object asked for. It opens
after `failures` in a row that say that ActiveCampaign is down (no answer, a 5xx, HTML, a reset, a time-out),
or after three refusals of the account in a row. While it is open all that goes to this host waits; after a
back-off with full jitter, or after `retry_refused_s`, one request is let through. That one closes it, or
opens it again, for longer. Throttling opens nothing: ActiveCampaign answers, and says how long to wait.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from types import TracebackType
from typing import Self

from kiva_stream.activecampaign.rate_limits import Pause
from kiva_stream.activecampaign.retry_policy import REFUSALS
from kiva_stream.errors import AccountRefused, DeliveryError, TryLater, UnknownOutcome
from kiva_stream.model.incidents import IncidentKind
from kiva_stream.ports.stages import Incidents
from kiva_stream.primitives.backoff import backoff_s


class CircuitBreaker:
    """The breaker of one host; `name` says which.

    `failures` in a row open it for at most `max_s` seconds at a time, refusals for `retry_refused_s` seconds;
    None: a refusal is left to who asked.
    """

    def __init__(
        self,
        name: str,
        pause: Pause,
        troubles: Incidents,
        *,
        failures: int,
        max_s: float,
        retry_refused_s: float | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.pause = pause
        self.retry_refused_s = retry_refused_s
        self._name = name
        self._troubles = troubles
        self._most = failures
        self._max_s = max_s
        self._chance = chance
        self._failures = self._refusals = 0  # in a row
        self._openings = 0  # in a row
        self._is_probed = False
        self._trouble: IncidentKind | None = None
        self._forget_the_one_before()

    @property
    def is_open(self) -> bool:
        """Whether everything waits but a probe."""
        return self._openings > 0

    def attempt(self) -> Attempt:
        """Return the block in which one request is sent and its answer read, once the pause is over.

        What it raises says whether the host answered. Nothing may be awaited between the pause and the block.
        """
        is_probe = self.is_open and not self._is_probed
        if is_probe:
            self._is_probed = True
            self.pause.shut()
        return Attempt(self, is_probe=is_probe)

    def refuse(self, error: AccountRefused) -> None:
        """Have everything wait, since one call was refused again and again though others may not be."""
        if not self.is_open:
            self._open("key", str(error))

    def ended(self, error: BaseException | None, *, is_probe: bool) -> None:
        """Take in how a request ended."""
        is_answer = error is None or isinstance(error, DeliveryError)  # else it was given up
        if is_answer and (is_probe or not self.is_open):  # what was sent before it opened says nothing new
            self._judge(error, is_probe=is_probe)
        if is_probe:
            self._is_probed = False
            self.pause.open()

    def _judge(self, error: BaseException | None, *, is_probe: bool) -> None:
        self._failures = self._failures + 1 if _says_down(error) else 0
        self._refusals = self._refusals + 1 if isinstance(error, AccountRefused) else 0
        if self._failures:
            if is_probe or self._failures >= self._most:
                self._open("activecampaign", str(error))
        elif self._is_refused_for_good():
            self._open("key", str(error))
        elif _says_throttled(error):
            self._openings = 0
            self._tell("activecampaign", str(error))
        elif self._refusals >= REFUSALS:  # whoever asked ends with it
            self._openings = 0
            self._tell("key", str(error))
        else:
            self._close()

    def _is_refused_for_good(self) -> bool:
        """Return whether the account is refused, which is told from a blip by its being refused again."""
        is_again = self._refusals >= REFUSALS or (self._refusals > 0 and self._trouble == "key")
        return is_again and self.retry_refused_s is not None

    def _open(self, kind: IncidentKind, why: str) -> None:
        self._openings += 1
        wait_s = self.retry_refused_s if kind == "key" else None
        self.pause.ask(backoff_s(self._openings, self._max_s, self._chance) if wait_s is None else wait_s)
        self._tell(kind, why)

    def _close(self) -> None:
        self._openings = 0
        if self._trouble is not None:
            self._troubles.end(self._trouble, self._name)
            self._trouble = None

    def _forget_the_one_before(self) -> None:
        """Take back what an earlier breaker of this host told: it judges no more."""
        for kind in ("activecampaign", "key"):
            self._troubles.end(kind, self._name)

    def _tell(self, kind: IncidentKind, why: str) -> None:
        if self._trouble not in (None, kind):
            self._troubles.end(self._trouble, self._name)
        self._troubles.begin(kind, why, self._name)
        self._trouble = kind


class Attempt:
    """The block in which one request is sent and its answer read."""

    __slots__ = ("_breaker", "_is_probe")

    def __init__(self, breaker: CircuitBreaker, *, is_probe: bool) -> None:
        self._breaker = breaker
        self._is_probe = is_probe

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._breaker.ended(error, is_probe=self._is_probe)


def _says_down(error: BaseException | None) -> bool:
    """Return whether an error means that the host is down, not that it throttles or refuses something."""
    is_unanswered = isinstance(error, TryLater) and error.after_s is None
    return is_unanswered or isinstance(error, UnknownOutcome)


def _says_throttled(error: BaseException | None) -> bool:
    return isinstance(error, TryLater) and error.after_s is not None
