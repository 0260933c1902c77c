"""What is installed from the wheel is what is in the checkout."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]


def test_the_wheel_carries_every_module_and_every_data_file(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=CHECKOUT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("kiva_stream/")}
    files = (path for path in (CHECKOUT / "kiva_stream").rglob("*") if path.is_file())
    assert packed == {str(path.relative_to(CHECKOUT)) for path in files if path.suffix != ".pyc"}


def test_the_lock_file_pins_every_dependency_and_names_no_index() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {_name(line) for line in chain(project["dependencies"], *extras.values())}
    lock = (CHECKOUT / "requirements.lock").read_text()
    pinned = {_name(line) for line in lock.splitlines() if "==" in line}
    assert wanted - {"kiva-stream"} <= pinned
    assert "://" not in lock


def _name(requirement: str) -> str:
    return re.split(r"[\[=>]", requirement)[0]
