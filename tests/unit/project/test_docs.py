"""The documents say what the code does, wherever that can be compared."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from kiva_stream.cli.exit_codes import EXIT_CODES
from kiva_stream.cli.sandbox_commands import FAULT_HELP
from kiva_stream.model.outcomes import Reason
from kiva_stream.sandbox.activecampaign import FaultKind, control
from kiva_stream.source.contract import CONTRACT

CHECKOUT = Path(__file__).parents[3]
DOCUMENTS = (
    "README.md",
    *(f"docs/{name}.md" for name in ("architecture", "glossary", "guarantees", "operations", "settings")),
)


def document(name: str) -> str:
    return (CHECKOUT / name).read_text("utf-8")


def test_every_guarantee_names_tests_that_exist() -> None:
    tests = {
        name
        for path in (CHECKOUT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    for section in document("docs/guarantees.md").split("\n## ")[1:]:
        named = set(re.findall(r"`(test_\w+)`", section))
        assert named, section.splitlines()[0]
        assert named <= tests


def test_the_picture_of_the_readme_names_the_stages_and_the_adapters_by_their_files() -> None:
    picture = document("README.md").split("## The picture")[1].split("```")[1]
    stages = {f"pipeline/{name}" for name in re.findall(r"(\w+\.py)", picture)}
    assert stages == {
        f"pipeline/{name}.py" for name in ("producer", "classification", "batcher", "sender", "checkpoint")
    }
    packages = set(re.findall(r"(\w+)/", picture))
    assert packages == {"source", "activecampaign", "state", "sync", "pipeline"}
    assert all((CHECKOUT / "kiva_stream" / name).exists() for name in stages | packages)


def test_the_picture_of_the_import_rules_is_the_import_contract() -> None:
    contracts = tomllib.loads(document("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["id"] == "downwards")
    rules = document("docs/architecture.md").split("## Import rules")[1].split("```")[1]
    drawn = [set(re.findall(r"\w+", line)) for line in rules.strip().splitlines()]
    assert drawn == [set(re.findall(r"\w+", layer)) for layer in layers]


def test_operations_explains_every_exit_code() -> None:
    table = document("docs/operations.md").split("## Exit codes")[1]
    explained = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert explained == {0, 1, *EXIT_CODES.values(), 7, 130, 143}


def test_operations_names_every_column_of_the_source_contract() -> None:
    for table, columns in CONTRACT.items():
        (row,) = re.findall(rf"^\| `{table}` \| (.*) \|$", document("docs/operations.md"), re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", row)) == set(columns)


def test_help_and_operations_name_every_fault_and_every_control_path() -> None:
    assert set(re.findall(r"[\w-]+", FAULT_HELP.partition("Kinds:")[2])) == set(FaultKind)
    section = document("docs/operations.md").split("## The local ActiveCampaign")[1].split("\n## ")[0]
    offered = {
        "state",
        "faults",
        "settings",
        "lose",
        *(path.removeprefix("GET ") for path in control.STREAMS),
    }
    assert set(re.findall(r"/_sandbox/(\w+)", section)) == offered - {"strays"}


def test_the_glossary_has_every_reason() -> None:
    assert {str(reason) for reason in Reason} <= set(re.findall(r"`(\w+)`", document("docs/glossary.md")))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_between_documents_lead_somewhere(name: str) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", document(name)):
        path = (CHECKOUT / name).parent / target if target else CHECKOUT / name
        assert path.is_file(), target
        titles = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not anchor or anchor in anchors, anchor
