"""Accounts that are set up, at local ActiveCampaigns, and the environment of commands that work on them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType

import msgspec

from benchmarks.bench import Bench, environ_of, new_schema
from benchmarks.histories import History
from kiva_stream.commands import setup
from kiva_stream.sandbox.process import LocalActiveCampaign, local_activecampaign
from kiva_stream.settings import loading
from kiva_stream.settings.sections import Settings

REAL_LIMIT = 5  # requests a second
SETUP_LIMIT = 200  # what set-up may use: it is not measured
NO_MORE: Mapping[str, str] = MappingProxyType({})


@asynccontextmanager
async def ready(
    bench: Bench,
    dsn: str,
    *,
    state_dsn: str | None = None,
    schema: str | None = None,
    more: Mapping[str, str] = NO_MORE,
    latency_ms: float = 0,
    events_per_second: int = 0,
) -> AsyncIterator[tuple[dict[str, str], LocalActiveCampaign]]:
    """Set a new state and an account up; give the environment of commands for them, and the account.

    The state is the shop's database unless another is named; `more` are further settings.
    """
    async with local_activecampaign("--latency-ms", str(latency_ms)) as activecampaign:
        environ = environ_of(
            dsn, activecampaign, schema=schema or new_schema(), events_per_second=events_per_second
        )
        environ = {**more, **environ, "KIVA_STREAM__STATE__DSN": state_dsn or dsn}
        await _set_up(loading.load(bench.config, environ), activecampaign)
        yield environ, activecampaign


@asynccontextmanager
async def unlimited(
    bench: Bench, history: History, schema: str, *options: str
) -> AsyncIterator[tuple[dict[str, str], LocalActiveCampaign]]:
    """Give an account that is set up, and the environment of who carries a history to it.

    The limit of 5 requests a second is lifted at both ends, and events are unpaced.
    """
    async with local_activecampaign(*options) as activecampaign:
        environ = {
            **environ_of(history.dsn, activecampaign, schema=schema, events_per_second=0),
            "KIVA_STREAM_CONFIG": str(bench.config),
            "KIVA_STREAM__ACTIVECAMPAIGN__REQUESTS_PER_SECOND": str(SETUP_LIMIT),
        }
        await _set_up(loading.load(bench.config, environ), activecampaign)
        await activecampaign.change(requests_per_second=0)
        yield environ, activecampaign


async def _set_up(loaded: Settings, activecampaign: LocalActiveCampaign) -> None:
    """Run `setup` with the limit lifted at both ends."""
    hurried = msgspec.structs.replace(loaded.activecampaign, requests_per_second=SETUP_LIMIT)
    await activecampaign.change(requests_per_second=0)
    await setup.set_up(msgspec.structs.replace(loaded, activecampaign=hurried))
    await activecampaign.change(requests_per_second=REAL_LIMIT)
