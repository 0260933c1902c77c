"""Settings with their defaults."""

from __future__ import annotations

from msgspec.structs import replace

from kiva_stream.settings.sections import (
    ActiveCampaignSettings,
    PipelineSettings,
    Settings,
    SourceSettings,
    StateSettings,
)
from tests.support.entries import SITE


def settings(pipeline: PipelineSettings, **activecampaign: object) -> Settings:
    """Return settings with those of the pipeline, and all defaults of the account but those given."""
    return Settings(
        source=SourceSettings(dsn="postgresql://shop", site_id=SITE.id),
        state=StateSettings(dsn="postgresql://state"),
        activecampaign=activecampaign_settings(**activecampaign),
        pipeline=pipeline,
    )


def activecampaign_settings(**changes: object) -> ActiveCampaignSettings:
    """Return the settings of an account with all their defaults but those given."""
    required = ActiveCampaignSettings(
        api_url="https://a.example", api_token="t", event_actid="1", event_key="k"
    )
    return replace(required, **changes)
