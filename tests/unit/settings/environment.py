"""An environment with the required keys, and what loading settings refuses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from kiva_stream.errors import SettingsError
from kiva_stream.settings.loading import load

TOKEN = "tok-4711-planted"
REQUIRED = {
    "KIVA_STREAM__SOURCE__DSN": f"postgresql://ro:{TOKEN}@db/shop",
    "KIVA_STREAM__SOURCE__SITE_ID": "1",
    "KIVA_STREAM__STATE__DSN": f"postgresql://rw:{TOKEN}@db/shop",
    "KIVA_STREAM__ACTIVECAMPAIGN__API_URL": "https://account.api-us1.com",
    "KIVA_STREAM__ACTIVECAMPAIGN__API_TOKEN": TOKEN,
    "KIVA_STREAM__ACTIVECAMPAIGN__EVENT_ACTID": "123456",
    "KIVA_STREAM__ACTIVECAMPAIGN__EVENT_KEY": TOKEN,
}


def refusal(environ: Mapping[str, str], path: Path | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(path, environ)
    return str(caught.value)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
