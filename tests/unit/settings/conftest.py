from __future__ import annotations

from pathlib import Path

import pytest

from kiva_stream.settings import loading


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No settings file but those a test writes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "CONFIG_FILES", (Path("kiva_stream.toml"), tmp_path / "etc.toml"))
    return tmp_path
