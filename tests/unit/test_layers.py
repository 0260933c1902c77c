"""The import contracts of pyproject.toml hold, and each of them can fail."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


def broken(checkout: Path) -> set[str]:
    """Return the words for the contracts that do not hold in a checkout."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()"]
    run = subprocess.run(
        [*command, "--no-cache", "--no-logo"],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Contracts:" in run.stdout, run.stdout + run.stderr
    return set(re.findall(r"^(.*) BROKEN", run.stdout, re.MULTILINE))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKOUT / "kiva_stream", tmp_path / "kiva_stream", ignore=ignored)
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_holds() -> None:
    assert broken(CHECKOUT) == set()


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("model.py", "import kiva_stream.telemetry", "Imports point downwards"),
        ("batcher.py", "import kiva_stream.classifier", "Imports point downwards"),
        ("kiva/log.py", "import kiva_stream.state", "Imports point downwards"),
        ("helpers.py", "", "Imports point downwards"),
        ("state/store.py", "import kiva_stream.contacts", "Adapters know nothing"),
        ("sandbox/postgres.py", "import kiva_stream.classifier", "The sandbox shares no code"),
        ("sandbox/postgres.py", "import kiva_stream.ports", "The sandbox shares no code"),
        ("producer.py", "import asyncpg", "Only adapters, app and sandbox"),
        ("classifier.py", "import time", "has no I/O and no clock"),
        ("contacts.py", "import kiva_stream.telemetry", "has no I/O and no clock"),
    ],
)
def test_a_wrong_import_breaks_its_contract(copy: Path, module: str, line: str, contract: str) -> None:
    with (copy / "kiva_stream" / module).open("a") as file:
        file.write(f"\n{line}\n")
    assert [name for name in broken(copy) if contract in name]
