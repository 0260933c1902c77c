"""`demo`: a generated shop and a local ActiveCampaign, then the real set-up and backfill."""

from __future__ import annotations

from collections import Counter

import msgspec

from kiva_stream.commands.backfill import backfill
from kiva_stream.commands.backfill_report import BackfillRequest, Summary
from kiva_stream.commands.setup import set_up
from kiva_stream.model.positions import DAY1
from kiva_stream.observability.logs import log
from kiva_stream.observability.progress import OnProgress
from kiva_stream.sandbox.generator import generate
from kiva_stream.sandbox.postgres import embedded_postgres
from kiva_stream.sandbox.process import LocalActiveCampaign, local_activecampaign
from kiva_stream.settings.sections import ActiveCampaignSettings, Settings, SourceSettings, StateSettings

LATENCY_MS = 20
SITE_ID = 1


async def demo(entries: int, seed: int, on_progress: OnProgress) -> Summary:
    """Run everything locally, and return what arrived. Raises what a backfill raises."""
    log.info("starting a PostgreSQL and an ActiveCampaign of its own")
    with embedded_postgres() as server:
        dsn = await server.create_database("shop")
        async with local_activecampaign("--latency-ms", str(LATENCY_MS)) as activecampaign:
            log.info("writing the shop's history", entries=entries)
            await generate(dsn, entries, seed)
            settings = _settings(dsn, activecampaign)
            log.info("setting up ActiveCampaign, at its 5 requests a second")
            await set_up(settings)
            summary = await backfill(settings, BackfillRequest(since=DAY1), on_progress)
            state = await activecampaign.state()
            tags = Counter([tag async for row in activecampaign.rows("contacts") for tag in row["tags"]])
            return msgspec.structs.replace(
                summary, requests=state["requests"], breaches=state["breaches"], tags=dict(tags)
            )


def _settings(dsn: str, activecampaign: LocalActiveCampaign) -> Settings:
    keys = activecampaign.accounts[0]
    return Settings(
        source=SourceSettings(dsn=dsn, site_id=SITE_ID),
        state=StateSettings(dsn=dsn),
        activecampaign=ActiveCampaignSettings(
            api_url=activecampaign.api_url,
            api_token=keys.api_token,
            event_actid=keys.event_actid,
            event_key=keys.event_key,
            event_url=activecampaign.event_url,
            events_per_second=0,
        ),
    )
