"""Who does something: the active accounts of a site, ranked by activity."""

from __future__ import annotations

from bisect import bisect
from itertools import accumulate

from kiva_stream.sandbox.generator.draw import Draw
from kiva_stream.sandbox.generator.population import CustomerAccount

REDRAWN_A_WEEK = 0.012  # of the ranks; 5 % a month
HOT_SHARE = 0.0045  # of what customers do: 0.1 % of all entries for each of the three
CHUNK = 4096


class Activity:
    """Active accounts, drawn with Zipf-Mandelbrot weights 1 / (rank + 50) ^ 0.9 (domain.md 6.2)."""

    def __init__(self, draw: Draw) -> None:
        self.ranked: list[CustomerAccount] = []
        self.hot: list[CustomerAccount] = []
        self._draw = draw
        self._reached: list[float] = []  # sums of the weights up to a rank

    def add(self, customer: CustomerAccount) -> None:
        """Let an account take part, at a random rank."""
        if customer.hot:
            self.hot.append(customer)
        customer.rank = len(self.ranked)
        self.ranked.append(customer)
        self._swap(customer.rank, self._draw.below(len(self.ranked)))
        self._weigh()

    def remove(self, customer: CustomerAccount) -> None:
        """Let an account take part no more; nothing happens when it does not."""
        if customer.rank < 0:
            return
        self._swap(customer.rank, len(self.ranked) - 1)
        self.ranked.pop()
        customer.rank = -1

    def redraw(self) -> None:
        """Let some accounts change ranks, once a week."""
        for _ in range(int(len(self.ranked) * REDRAWN_A_WEEK)):
            self._swap(self._draw.below(len(self.ranked)), self._draw.below(len(self.ranked)))

    def draw_by_rank(self) -> CustomerAccount:
        """Return an active account, the hot ones and those of high rank more often."""
        draw = self._draw
        if draw.random() < HOT_SHARE:
            return draw.pick(self.hot)
        count = len(self.ranked)
        rank = bisect(self._reached, draw.random() * self._reached[count - 1], 0, count - 1)
        return self.ranked[rank]

    def draw_evenly(self) -> CustomerAccount:
        """Return an active account, each as likely."""
        return self._draw.pick(self.ranked)

    def _swap(self, one: int, other: int) -> None:
        ranked = self.ranked
        ranked[one], ranked[other] = ranked[other], ranked[one]
        ranked[one].rank = one
        ranked[other].rank = other

    def _weigh(self) -> None:
        reached, count = self._reached, len(self._reached)
        if len(self.ranked) <= count:
            return
        more = ((rank + 50) ** -0.9 for rank in range(count, count + CHUNK))
        if not reached:
            reached.extend(accumulate(more))
        else:
            reached.extend(list(accumulate(more, initial=reached[-1]))[1:])
