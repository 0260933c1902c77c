"""Repeatable chance: one source of randomness a shop, so that a seed fixes everything."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw(random.Random):
    """A seeded source of randomness with the few questions a shop asks of it."""

    def chance(self, share: float) -> bool:
        """Say yes in `share` of all cases (0 to 1)."""
        return self.random() < share

    def below(self, limit: int) -> int:
        """Return a whole number from 0 to `limit` - 1."""
        return int(self.random() * limit)

    def pick(self, options: Sequence[T]) -> T:
        """Return one of `options`, each as likely."""
        return options[int(self.random() * len(options))]

    def other(self, options: Sequence[T], weights: Sequence[int], than: T) -> T:
        """Return one of `options` but `than`, each as likely as its weight says."""
        left = [0 if option == than else weight for option, weight in zip(options, weights, strict=True)]
        return self.choices(options, left)[0]

    def spread(self, median: float, sigma: float) -> float:
        """Return a log-normal value around `median`."""
        return median * math.exp(sigma * self.gauss(0.0, 1.0))
