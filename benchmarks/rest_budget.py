"""R6: the budget of 5 requests a second, at a receiver behind 0 to 60 ms of jitter.

Never over the limit as the receiver counts it, never a 429, and while there is work most of the limit used.
The repetitions, an account each, run side by side: they mostly wait.

Seen to fail: with SECOND_S of `limits` at 0.5, 45 answers 429; at 1.2, a share of 0.81.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, NamedTuple

import anyio

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.replies import rest
from kiva_stream.sandbox.process import local_activecampaign

LIMIT = 5  # ActiveCampaign's, a second
JITTER_MS = 60
REPETITIONS = 3
REQUESTS = 65
BACKLOG = 20  # calls that wait at any time
LEAST_SHARE = 0.88


class Used(NamedTuple):
    """How an account's limit was used."""

    most_in_a_second: int
    throttled: int
    share: float


async def figures(bench: Bench, _entries: int | None = None) -> list[Figure]:
    """Run it; it has no entries."""
    found: list[Used] = []

    async def repeat() -> None:
        found.append(await _use(bench))

    async with anyio.create_task_group() as group:
        for _ in range(REPETITIONS):
            group.start_soon(repeat)
    most, throttled, shares = zip(*found, strict=True)
    return [
        Figure("R6: most requests in a sliding second", most, most=LIMIT),
        Figure("R6: answers 429", throttled, most=0),
        Figure("R6: share of the limit used", shares, least=LEAST_SHARE),
    ]


async def _use(bench: Bench) -> Used:
    async with local_activecampaign("--jitter-ms", str(JITTER_MS)) as activecampaign:
        limits = bench.settings("postgresql:///unused", activecampaign, "unused").activecampaign
        async with Client(limits) as client:
            share = await _share(client)
        state = await activecampaign.state()
        return Used(state["most_requests_in_a_second"], state["replies"].get("429", 0), share)


async def _share(client: Client) -> float:
    """Ask without a pause; return the share of the limit used from the end of the first burst to the last."""
    answered_at: list[float] = []
    asked = iter(range(REQUESTS))

    async def ask_each() -> None:
        for _ in asked:
            await client.call("GET", "/lists?limit=1", None, partial(rest, shape=dict[str, Any]))
            answered_at.append(time.monotonic())

    async with anyio.create_task_group() as group:
        for _ in range(BACKLOG):
            group.start_soon(ask_each)
    return (REQUESTS - LIMIT) / LIMIT / (answered_at[-1] - answered_at[LIMIT - 1])
