"""The circuit breaker of a host: while the host is down or refuses the account, only probes are sent there.

| state     | a request ends with                                    | next state       |
|-----------|--------------------------------------------------------|------------------|
| closed    | an answer, also one that rejects the object asked for  | closed           |
| closed    | throttling, which says how long to wait                | closed, incident |
| closed    | no answer, a 5xx or HTML, not yet `failures` in a row  | closed           |
| closed    | the same or a refusal, before the first answer         | closed, incident |
| closed    | the same, `failures` in a row                          | open, incident   |
| closed    | a refusal of the account, the first or second in a row | closed           |
| closed    | the third, with `retry_refused_s`                      | open, incident   |
| closed    | the third, without it: the caller ends                 | closed, incident |
| open      | (the wait is over: the next request is the probe)      | half-open        |
| half-open | the probe fails, or is refused as those before it      | open again       |
| half-open | the probe is answered in any other way                 | closed           |
| half-open | the probe is cancelled: the next request is one        | open             |

While it is open or half-open, all requests but the probe wait: after failures for a back-off with full jitter
that grows from one opening to the next, after refusals for `retry_refused_s`.

A *suspect* request may get no answer because of a record in it. It changes no state and is no probe. While
the circuit breaker is open, it waits for a back-off of its own besides: that grows from one suspect request
without an answer to the next.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from kiva_stream.activecampaign.pause import Pause
from kiva_stream.activecampaign.retry_policy import REFUSALS
from kiva_stream.errors import AccountRefused, DeliveryError, KindRefused, TryLater, UnknownOutcome, WrongUrl
from kiva_stream.model.incidents import IncidentKind
from kiva_stream.observability.incidents import Incidents
from kiva_stream.primitives.backoff import backoff_s

BeforeProbe = Callable[[], Awaitable[None]]


class CircuitBreaker:
    """The circuit breaker of one host. While it is open it extends `pause`, which all requests wait for.

    `name` tells its incidents from those of other hosts. They are of the kind `incident` if that is given,
    otherwise `activecampaign` or `key`. So many `failures` in a row open it, for at most `max_s` seconds at a
    time. Three refusals in a row open it for `retry_refused_s` seconds; if that is None, a refusal opens
    nothing, and is left to the caller. `chance` returns a number from 0 to 1. `before_probe` is awaited
    before each probe while it is open for refusals.
    """

    def __init__(
        self,
        name: str,
        pause: Pause,
        incidents: Incidents,
        *,
        failures: int,
        max_s: float,
        retry_refused_s: float | None = None,
        incident: IncidentKind | None = None,
        chance: Callable[[], float] = random.random,
        before_probe: BeforeProbe | None = None,
    ) -> None:
        self.pause = pause
        self.retry_refused_s = retry_refused_s
        self._name = name
        self._incidents = incidents
        self._max_failures = failures
        self._max_s = max_s
        self._chance = chance
        self._before_probe = before_probe
        self._failures = self._refusals = 0  # in a row
        self._openings = 0  # in a row
        self._suspects = 0  # without an answer, in a row
        self._has_answered = False  # the host, as expected
        self._has_probe = False  # a probe is out: half-open
        self._only_kind = incident
        self._incident: IncidentKind | None = None  # as if there were no `incident`
        for kind in self._kinds():
            incidents.resolve(kind, name)  # an earlier breaker of this name no longer can

    @property
    def is_open(self) -> bool:
        """Whether all requests but a probe wait."""
        return self._openings > 0

    async def wait(self, *, is_suspect: bool) -> None:
        """Return when a request may be sent. Raises what `before_probe` raises."""
        if is_suspect and self.is_open and self._suspects:
            await self.pause.sleep(backoff_s(self._suspects, self._max_s, self._chance))
        await self.pause.wait()
        while self._is_refused and self._before_probe is not None:
            await self._before_probe()
            if self.pause.is_over:
                return
            await self.pause.wait()  # another request was the probe; the next one needs a check of its own

    @contextmanager
    def suspect(self) -> Iterator[None]:
        """Return the block in which one suspect request is sent and its answer parsed."""
        self._suspects += 1
        try:
            yield
        except DeliveryError as error:
            if not _is_failure(error):
                self._suspects = 0
            raise
        self._suspects = 0

    def request(self) -> BreakerRequest:
        """Return the block in which one request is sent and its answer parsed.

        The exception that leaves the block says whether the host answered. The caller waits for the pause
        before it and awaits nothing in between, or two requests could be probes.
        """
        is_probe = self.is_open and not self._has_probe
        if is_probe:
            self._has_probe = True
            self.pause.block()
        return BreakerRequest(self, is_probe=is_probe)

    def trip(self, error: AccountRefused) -> None:
        """Open, since one call was refused several times in a row, even if other calls are answered.

        If it is open already, only a refusal that comes after the wait opens it again. That is the refusal of
        a suspect request: of a probe, `record` opens it.
        """
        if not self.is_open or self.pause.is_over:
            self._open("key", str(error))

    def record(self, error: BaseException | None, *, is_probe: bool) -> None:
        """Record how a request ended; None: with an answer."""
        was_given_up = error is not None and not isinstance(error, DeliveryError)
        was_sent_before_opening = self.is_open and not is_probe
        if not (was_given_up or was_sent_before_opening):
            self._update(error, is_probe=is_probe)
        if is_probe:
            self._has_probe = False
            self.pause.unblock()

    def _update(self, error: BaseException | None, *, is_probe: bool) -> None:
        """Change the state by the table above."""
        self._failures = self._failures + 1 if _is_failure(error) else 0
        self._refusals = self._refusals + 1 if _is_refusal(error) else 0
        if self._failures:
            if is_probe or self._failures >= self._max_failures:
                self._open("activecampaign", str(error))
            elif not self._has_answered:
                self._begin_incident("activecampaign", str(error))
        elif self._stays_refused():
            self._open("key", str(error))
        elif _is_throttling(error):
            self._openings = 0
            self._begin_incident("activecampaign", str(error))
        elif self._refusals >= REFUSALS or (self._refusals and not self._has_answered):
            self._openings = 0
            self._begin_incident("key", str(error))
        else:
            self._close()

    def _stays_refused(self) -> bool:
        """Return whether to open for refusals: one alone may be a blip, unless the last probe was refused."""
        is_again = self._refusals >= REFUSALS or (self._refusals > 0 and self._is_refused)
        return is_again and self.retry_refused_s is not None

    @property
    def _is_refused(self) -> bool:
        """Whether it is open for refusals."""
        return self.is_open and self._incident == "key"

    def _open(self, kind: IncidentKind, why: str) -> None:
        self._openings += 1
        wait_s = self.retry_refused_s if kind == "key" else None
        self.pause.extend(backoff_s(self._openings, self._max_s, self._chance) if wait_s is None else wait_s)
        self._begin_incident(kind, why)

    def _close(self) -> None:
        self._openings = 0
        self._has_answered = True
        if self._incident is not None:
            self._incidents.resolve(self._only_kind or self._incident, self._name)
            self._incident = None

    def _begin_incident(self, kind: IncidentKind, why: str) -> None:
        if self._incident not in (None, kind):
            self._incidents.resolve(self._only_kind or self._incident, self._name)
        self._incidents.open(self._only_kind or kind, why, self._name)
        self._incident = kind

    def _kinds(self) -> Sequence[IncidentKind]:
        return (self._only_kind,) if self._only_kind else ("activecampaign", "key")


class BreakerRequest:
    """The block in which one request is sent and its answer parsed."""

    __slots__ = ("_breaker", "_is_probe")

    def __init__(self, breaker: CircuitBreaker, *, is_probe: bool) -> None:
        self._breaker = breaker
        self._is_probe = is_probe

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._breaker.record(error, is_probe=self._is_probe)


def _is_failure(error: BaseException | None) -> bool:
    """Return whether the error means that the host is down, rather than that it throttles or refuses."""
    is_unanswered = isinstance(error, TryLater) and error.after_s is None
    return is_unanswered or isinstance(error, UnknownOutcome | WrongUrl)


def _is_refusal(error: BaseException | None) -> bool:
    """Return whether the error means that the account is refused, not a kind of request alone."""
    return isinstance(error, AccountRefused) and not isinstance(error, KindRefused)


def _is_throttling(error: BaseException | None) -> bool:
    return isinstance(error, TryLater) and error.after_s is not None
