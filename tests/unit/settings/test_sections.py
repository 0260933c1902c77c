"""Loaded settings: frozen, and silent about their secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from kiva_stream.settings.loading import load
from tests.unit.settings.environment import REQUIRED, TOKEN, refusal, write


def test_secrets_show_neither_in_a_repr_nor_in_an_error(nowhere: Path) -> None:
    loaded = load(None, REQUIRED)
    assert TOKEN not in f"{loaded!r} {loaded} {loaded.activecampaign!r} {loaded.source}"
    path = write(nowhere / "a.toml", f'[source]\ndsn = "{TOKEN}"\n')
    assert TOKEN not in refusal(REQUIRED, path)
    number = write(nowhere / "b.toml", "[activecampaign]\napi_token = 47110815\n")
    assert "47110815" not in refusal(REQUIRED, number)


def test_the_secrets_of_loaded_settings_are_the_tokens_and_the_passwords_of_the_dsns() -> None:
    dsn = "postgresql://rw:one%20pass@db/shop?password=other"
    loaded = load(None, REQUIRED | {"KIVA_STREAM__STATE__DSN": dsn})
    assert set(loaded.secrets()) == {TOKEN, "one%20pass", "one pass", "other"}


def test_settings_cannot_be_changed() -> None:
    loaded = load(None, REQUIRED)
    with pytest.raises(AttributeError):
        loaded.source.site_id = 2  # type: ignore[misc]
