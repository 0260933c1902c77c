"""Whether and when a call is repeated: a decision without a clock. `Client.retry` waits."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from kiva_stream.errors import (
    AccountRefused,
    DeliveryError,
    KindRefused,
    PermissionRefused,
    TryLater,
    Unanswered,
)
from kiva_stream.primitives.backoff import backoff_s

REFUSALS = 3  # public clients report that a valid key is refused now and then; so many in a row are no blip


class RetryPolicy:
    """The waits of one call between its attempts.

    `max_s` bounds a single wait, `patience_s` their sum, `tries` the attempts that get no answer; `chance`
    returns a number from 0 to 1.
    """

    def __init__(
        self,
        max_s: float,
        patience_s: float = math.inf,
        chance: Callable[[], float] = random.random,
        *,
        tries: float = math.inf,
    ) -> None:
        self._max_s = max_s
        self._patience_s = patience_s
        self._tries = tries
        self._chance = chance
        self._attempts = 0
        self._refusals = 0  # in a row

    def wait_s(self, error: DeliveryError) -> float:
        """Return the seconds to wait before the next attempt after this error.

        Raises Unanswered if this was the last try. Raises the error itself if the call must not be repeated
        for another reason: a TryLater if its wait exceeds the patience left, an AccountRefused if it is the
        third in a row, and any other error.
        """
        is_refused = isinstance(error, AccountRefused)
        self._attempts += 1
        self._refusals = self._refusals + 1 if is_refused else 0
        if not isinstance(error, TryLater) and not (is_refused and self._refusals < self._most(error)):
            raise error
        if isinstance(error, TryLater) and error.is_unanswered:
            self._tries -= 1
            if self._tries <= 0:
                raise Unanswered(str(error)) from error
        wait_s = backoff_s(self._attempts, self._max_s, self._chance)
        wait_s = max(wait_s, (error.after_s or 0.0) if isinstance(error, TryLater) else 0.0)
        self._patience_s -= wait_s
        if self._patience_s < 0:
            raise error
        return wait_s

    def _most(self, error: DeliveryError) -> float:
        """Return how many refusals in a row are no blip: one with a plain text, or as many as `tries`."""
        if isinstance(error, PermissionRefused):
            return min(REFUSALS, self._tries)
        return 1 if isinstance(error, KindRefused) else REFUSALS
