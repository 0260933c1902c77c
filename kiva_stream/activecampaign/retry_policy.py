"""When to try a call again: decided here without a clock, waited for by who asks."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from kiva_stream.errors import AccountRefused, DeliveryError, TryLater
from kiva_stream.primitives.backoff import backoff_s

REFUSALS = 3  # a valid key is refused now and then; this many times in a row is meant


class RetryPolicy:
    """The waits of one call between its attempts.

    `max_s` bounds a single wait, `patience_s` their sum; `chance` gives a number from 0 to 1.
    """

    def __init__(
        self, max_s: float, patience_s: float = math.inf, chance: Callable[[], float] = random.random
    ) -> None:
        self._max_s = max_s
        self._patience_s = patience_s
        self._chance = chance
        self._attempts = 0
        self._refusals = 0

    def wait_s(self, error: DeliveryError) -> float:
        """Return how long to wait after this error; raise it when the call is not to be tried again.

        A TryLater is tried again as long as there is patience, and no sooner than ActiveCampaign asked for;
        an AccountRefused until it came three times in a row; nothing else is.
        """
        refused = isinstance(error, AccountRefused)
        self._attempts += 1
        self._refusals = self._refusals + 1 if refused else 0
        if not isinstance(error, TryLater) and not (refused and self._refusals < REFUSALS):
            raise error
        wait_s = backoff_s(self._attempts, self._max_s, self._chance)
        wait_s = max(wait_s, (error.after_s or 0.0) if isinstance(error, TryLater) else 0.0)
        self._patience_s -= wait_s
        if self._patience_s < 0:
            raise error
        return wait_s
