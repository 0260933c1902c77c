"""The example file and the settings page say what loading does."""

from __future__ import annotations

from pathlib import Path

from kiva_stream.settings import documentation
from kiva_stream.settings.keys import KEYS
from kiva_stream.settings.loading import load
from tests.unit.settings.environment import REQUIRED, refusal, write


def filled_example() -> str:
    """The file `init` writes, filled in as its reader would, every default uncommented."""
    section, lines = "", []
    for line in documentation.example().splitlines():
        section = line.strip("[]") if line.startswith("[") else section
        name, _, value = line.removeprefix("# ").partition(" = ")
        key = next((key for key in KEYS if str(key) == f"{section}.{name}"), None)
        if key is not None and key.required:
            value = REQUIRED[key.variable] if key.name == "site_id" else f'"{REQUIRED[key.variable]}"'
        lines.append(f"{name} = {value}" if key is not None else line)
    return "\n".join(lines)


def test_the_example_file_filled_in_gives_the_defaults(nowhere: Path) -> None:
    path = write(nowhere / "filled.toml", filled_example())
    assert load(path, {}) == load(None, REQUIRED)


def test_the_example_file_as_written_misses_exactly_the_required_keys(nowhere: Path) -> None:
    text = refusal({}, write(nowhere / "bare.toml", documentation.example()))
    assert text.startswith(f"Missing settings: {', '.join(str(key) for key in KEYS if key.required)}:")


def test_the_settings_page_shows_the_table_of_settings() -> None:
    page = Path(__file__).parents[3].joinpath("docs/settings.md").read_text("utf-8")
    # python -c "from kiva_stream.settings import documentation; print(documentation.markdown())"
    assert documentation.markdown() in page
