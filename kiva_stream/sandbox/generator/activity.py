"""The active customers of a site, ranked by activity."""

from __future__ import annotations

from bisect import bisect
from itertools import accumulate

from kiva_stream.sandbox.generator.draw import Draw
from kiva_stream.sandbox.generator.population import CustomerAccount

REDRAWN_A_WEEK = 0.012  # the share of the ranks; 5 % a month
HOT_SHARE = 0.0045  # of what customers do: 0.1 % of all entries for each of the three
CHUNK = 4096


class Activity:
    """Draws active customers with Zipf-Mandelbrot weights 1 / (rank + 50) ^ 0.9, and the hot ones beside."""

    def __init__(self, draw: Draw) -> None:
        self.ranked: list[CustomerAccount] = []
        self.hot: list[CustomerAccount] = []
        self._draw = draw
        self._cumulated: list[float] = []  # weights up to a rank

    def add(self, customer: CustomerAccount) -> None:
        """Add a customer at a random rank."""
        if customer.hot:
            self.hot.append(customer)
        customer.rank = len(self.ranked)
        self.ranked.append(customer)
        self._swap(customer.rank, self._draw.below(len(self.ranked)))
        self._extend_weights()

    def remove(self, customer: CustomerAccount) -> None:
        """Remove a customer. No-op if it is not active."""
        if customer.rank < 0:
            return
        self._swap(customer.rank, len(self.ranked) - 1)
        self.ranked.pop()
        customer.rank = -1

    def redraw(self) -> None:
        """Swap the ranks of some customers. Called once a week."""
        for _ in range(int(len(self.ranked) * REDRAWN_A_WEEK)):
            self._swap(self._draw.below(len(self.ranked)), self._draw.below(len(self.ranked)))

    def draw_by_rank(self) -> CustomerAccount:
        """Return an active customer; those of high rank come more often, and so do the hot ones."""
        draw = self._draw
        if draw.random() < HOT_SHARE:
            return draw.pick(self.hot)
        count = len(self.ranked)
        rank = bisect(self._cumulated, draw.random() * self._cumulated[count - 1], 0, count - 1)
        return self.ranked[rank]

    def draw_evenly(self) -> CustomerAccount:
        """Return an active customer, each with the same probability."""
        return self._draw.pick(self.ranked)

    def _swap(self, one: int, other: int) -> None:
        ranked = self.ranked
        ranked[one], ranked[other] = ranked[other], ranked[one]
        ranked[one].rank = one
        ranked[other].rank = other

    def _extend_weights(self) -> None:
        cumulated, count = self._cumulated, len(self._cumulated)
        if len(self.ranked) <= count:
            return
        more = ((rank + 50) ** -0.9 for rank in range(count, count + CHUNK))
        if not cumulated:
            cumulated.extend(accumulate(more))
        else:
            cumulated.extend(list(accumulate(more, initial=cumulated[-1]))[1:])
