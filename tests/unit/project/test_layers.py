"""The import contracts of pyproject.toml hold, and each of them can fail."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]


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
        ("model/outcomes.py", "import kiva_stream.observability", "Imports point downwards"),
        ("source/log.py", "import kiva_stream.state", "Imports point downwards"),
        ("state/store.py", "import kiva_stream.sync.desired_contact", "Imports point downwards"),
        ("runtime/shop.py", "import kiva_stream.commands.status", "Imports point downwards"),
        ("helpers/__init__.py", "", "Imports point downwards"),
        ("helpers.py", "", "Imports point downwards"),
        ("pipeline/batcher.py", "import kiva_stream.state.ledger", "Pipeline and sync import no adapter"),
        ("sync/order_sync.py", "import kiva_stream.source.orders", "Pipeline and sync import no adapter"),
        (
            "pipeline/batcher.py",
            "import kiva_stream.pipeline.classification",
            "stages of the pipeline",
        ),
        ("pipeline/sender.py", "import kiva_stream.pipeline.checkpoint", "stages of the pipeline"),
        ("sync/order_sync.py", "import kiva_stream.sync.contact_sync", "do not import each other"),
        ("sync/week_tags.py", "import kiva_stream.sync.contact_writes", "no part of contact sync"),
        ("sync/order_writes.py", "import kiva_stream.sync.subscriptions", "no part of contact sync"),
        ("sync/contact_writes.py", "import kiva_stream.sync.order_changes", "no part of order sync"),
        ("commands/plan.py", "import kiva_stream.events.classifier", "Only the pipeline classifies"),
        ("source/log.py", "import kiva_stream.events.payload", "Only the pipeline classifies"),
        ("sandbox/postgres.py", "import kiva_stream.events.classifier", "The sandbox shares no code"),
        ("sandbox/postgres.py", "import kiva_stream.ports.stages", "The sandbox shares no code"),
        ("sandbox/postgres.py", "import kiva_stream.model.outcomes", "The sandbox shares no code"),
        ("pipeline/producer.py", "import asyncpg", "Only adapters, runtime and sandbox"),
        ("events/classifier.py", "import time", "has no I/O and no clock"),
        ("sync/desired_contact.py", "import kiva_stream.observability.logs", "has no I/O and no clock"),
        ("model/tracked_events.py", "import time", "has no I/O and no clock"),
    ],
)
def test_a_wrong_import_breaks_its_contract(copy: Path, module: str, line: str, contract: str) -> None:
    path = copy / "kiva_stream" / module
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(f"\n{line}\n")
    assert [name for name in broken(copy) if contract in name]
