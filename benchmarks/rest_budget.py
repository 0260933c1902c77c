"""R6: the budget of 5 requests a second, at a receiver behind 0 to 60 ms of jitter.

Never over the limit as the receiver counts it, never a 429, and while there is work most of the limit used.
The repetitions, an account each, run side by side: they mostly wait. The plot shows the first of them.

Seen to fail: with SECOND_S of `limits` at 0.5, 10 requests in a second and 45 answers 429; at 1.2, a share of
0.81.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, NamedTuple

import anyio

from benchmarks.bench import Bench
from benchmarks.figures import Figure, Line, Plot
from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.responses.rest import parse_rest
from kiva_stream.sandbox.process import local_activecampaign

LIMIT = 5  # ActiveCampaign's, a second
JITTER_MS = 60
REQUESTS = 65
BACKLOG = 20  # calls that wait at any time
LEAST_SHARE = 0.88


class Used(NamedTuple):
    """How an account's limit was used."""

    most_in_a_second: int
    throttled: int
    share: float
    arrived_at: list[float]  # at the receiver, in seconds


async def figures(bench: Bench, _entries: int | None = None) -> list[Figure]:
    """Run it; it has no entries."""
    found: list[Used] = []

    async def repeat() -> None:
        found.append(await _use(bench))

    async with anyio.create_task_group() as group:
        for _ in range(bench.repetitions):
            group.start_soon(repeat)
    most, throttled, shares, arrivals = zip(*found, strict=True)
    bench.plots.append(_plot(arrivals[0]))
    return [
        Figure("R6: most requests in a sliding second", most, most=LIMIT),
        Figure("R6: answers 429", throttled, most=0),
        Figure("R6: share of the limit used", shares, least=LEAST_SHARE),
    ]


async def _use(bench: Bench) -> Used:
    async with local_activecampaign("--jitter-ms", str(JITTER_MS)) as activecampaign:
        limits = bench.settings("postgresql:///unused", activecampaign).activecampaign
        async with Client(limits) as client:
            share = await _share(client)
        state = await activecampaign.state()
        arrived_at = [row["at"] async for row in activecampaign.rows("arrivals")]
        return Used(state["most_requests_in_a_second"], state["replies"].get("429", 0), share, arrived_at)


def _plot(arrived_at: list[float]) -> Plot:
    """Return how many arrived in the second that ends with each arrival."""
    in_second = [
        (at - arrived_at[0], float(sum(at - 1 < each <= at for each in arrived_at))) for at in arrived_at
    ]
    title = f"REST requests in the last second at the receiver, {JITTER_MS} ms of jitter"
    return Plot("requests_per_second", title, "seconds", "requests", [Line("arrived", in_second)], LIMIT)


async def _share(client: Client) -> float:
    """Ask without a pause; return the share of the limit used from the end of the first burst to the last."""
    answered_at: list[float] = []
    asked = iter(range(REQUESTS))

    async def ask_each() -> None:
        for _ in asked:
            await client.call("GET", "/lists?limit=1", parse=partial(parse_rest, shape=dict[str, Any]))
            answered_at.append(time.monotonic())

    async with anyio.create_task_group() as group:
        for _ in range(BACKLOG):
            group.start_soon(ask_each)
    return (REQUESTS - LIMIT) / LIMIT / (answered_at[-1] - answered_at[LIMIT - 1])
