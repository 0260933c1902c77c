"""Seeded randomness: each shop has one source of it, so that a seed fixes its whole history."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw(random.Random):
    """A seeded source of randomness with the distributions that a shop needs."""

    def chance(self, share: float) -> bool:
        """Return True in `share` of all cases (0 to 1)."""
        return self.random() < share

    def below(self, limit: int) -> int:
        """Return a whole number from 0 to `limit` - 1."""
        return int(self.random() * limit)

    def pick(self, options: Sequence[T]) -> T:
        """Return one of `options`, each with the same probability."""
        return options[int(self.random() * len(options))]

    def other(self, options: Sequence[T], weights: Sequence[int], than: T) -> T:
        """Return one of `options` except `than`, with probabilities in proportion to the weights."""
        remaining = [0 if option == than else weight for option, weight in zip(options, weights, strict=True)]
        return self.choices(options, remaining)[0]

    def spread(self, median: float, sigma: float) -> float:
        """Return a log-normal value around `median`."""
        return median * math.exp(sigma * self.gauss(0.0, 1.0))
