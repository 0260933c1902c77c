"""The documents say what the code does, wherever that can be compared."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from kiva_stream.cli.exit_codes import EXIT_CODES
from kiva_stream.cli.sandbox_commands import FAULT_HELP
from kiva_stream.model.incidents import IncidentKind
from kiva_stream.model.outcomes import Reason
from kiva_stream.sandbox.activecampaign import FaultKind, control
from kiva_stream.source.contract import CONTRACT

CHECKOUT = Path(__file__).parents[3]
DOCUMENTS = (
    "README.md",
    *(
        f"docs/{name}.md"
        for name in ("architecture", "glossary", "guarantees", "map", "operations", "settings")
    ),
)


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
FOLDERS = ("kiva_stream", "tests", "docs", "benchmarks", ".")  # where the architecture's paths begin


def document(name: str) -> str:
    return (CHECKOUT / name).read_text("utf-8")


def section(name: str, title: str) -> str:
    return document(name).split(f"\n## {title}")[1].split("\n## ")[0]


def incident_sections() -> dict[str, str]:
    """Return the text about each kind of incident."""
    parts = re.split(r"^### `(\w+)`$", section("docs/operations.md", "Incidents"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def import_layers() -> list[list[str]]:
    contracts = tomllib.loads(document("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["id"] == "downwards")
    return [re.findall(r"\w+", layer) for layer in layers]


def definitions(path: Path) -> Iterator[str]:
    """Yield what a module defines: functions and classes, methods with their class; or SQL blocks."""
    text = path.read_text("utf-8")
    if path.suffix == ".sql":
        yield from re.findall(r"^-- name: (\w+)$", text, re.MULTILINE)
        return
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            yield node.name
            yield from (f"{node.name}.{each.name}" for each in node.body if isinstance(each, FUNCTIONS))
        elif isinstance(node, FUNCTIONS):
            yield node.name


def named_by_the_map(path: Path) -> set[str]:
    """Return what the map may name in a file: of a module constants and fields too, else words."""
    text = path.read_text("utf-8")
    if path.suffix == ".sql":
        return {
            *definitions(path),
            *re.findall(r"^CREATE (?:TABLE|VIEW) \{schema\}\.(\w+)", text, re.MULTILINE),
        }
    if path.suffix != ".py":
        return set(re.findall(r"[\w-]+", text))
    tree = ast.parse(text)
    scopes: list[ast.Module | ast.ClassDef] = [
        tree,
        *(node for node in tree.body if isinstance(node, ast.ClassDef)),
    ]
    assigned = {
        target.id
        for scope in scopes
        for node in scope.body
        for target in (*getattr(node, "targets", ()), getattr(node, "target", None))
        if isinstance(target, ast.Name)
    }
    return assigned | {name for each in definitions(path) for name in (each, each.rpartition(".")[2])}


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
    rules = section("docs/architecture.md", "Import rules").split("```")[1]
    assert [re.findall(r"\w+", line) for line in rules.strip().splitlines()] == import_layers()


def test_the_map_names_the_packages_one_for_one_in_the_order_of_the_import_contract() -> None:
    mapped = re.findall(r"^\| `(\w+)` \|", section("docs/architecture.md", "The map"), re.MULTILINE)
    packages = {path.parent.name for path in (CHECKOUT / "kiva_stream").glob("*/__init__.py")}
    modules = {path.stem for path in (CHECKOUT / "kiva_stream").glob("*.py")} - {"__init__"}
    assert mapped == [name for layer in import_layers() for name in layer]
    assert set(mapped) == packages | modules


def test_each_step_of_the_way_of_one_entry_names_a_definition_that_exists() -> None:
    steps = re.split(r"^\d+\. ", section("docs/architecture.md", "The way of one entry"), flags=re.MULTILINE)
    for step in steps[1:]:
        named = re.findall(r"`([\w.]+)`\s+\(`([\w/.]+)`\)", step)
        assert named, step
        for name, path in named:
            assert name in set(definitions(CHECKOUT / "kiva_stream" / path)), (name, path)


def test_every_path_in_the_architecture_exists() -> None:
    text = document("docs/architecture.md")
    paths = set(re.findall(r"`([\w./-]+(?:/|\.(?:py|sql|json|toml|md|graphql)))`", text))
    assert "pipeline/producer.py" in paths
    assert "sandbox/generator/" in paths
    missing = {path for path in paths if not any((CHECKOUT / folder / path).exists() for folder in FOLDERS)}
    assert not missing


def test_operations_explains_every_exit_code() -> None:
    table = document("docs/operations.md").split("## Exit codes")[1]
    explained = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert explained == {0, 1, *EXIT_CODES.values(), 7, 130, 143}


def test_operations_names_every_column_of_the_source_contract() -> None:
    for table, columns in CONTRACT.items():
        (row,) = re.findall(rf"^\| `{table}` \| (`.*) \|$", document("docs/operations.md"), re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", row)) == set(columns)


def test_help_and_operations_name_every_fault_and_every_control_path() -> None:
    assert set(re.findall(r"[\w-]+", FAULT_HELP.partition("Kinds:")[2])) == set(FaultKind)
    section = document("docs/operations.md").split("## The local ActiveCampaign")[1].split("\n## ")[0]
    offered = {
        "state",
        *(path.removeprefix("POST ") for path in (*control.CHANGES, *control.FAULT_CHANGES)),
        *(path.removeprefix("GET ") for path in control.STREAMS),
    }
    assert set(re.findall(r"/_sandbox/(\w+)", section)) == offered - {"strays"}


def test_the_glossary_has_every_reason() -> None:
    assert {str(reason) for reason in Reason} <= set(re.findall(r"`(\w+)`", document("docs/glossary.md")))


def test_what_the_glossary_says_is_stored_or_shown_occurs_in_the_code() -> None:
    files = [
        path for path in (CHECKOUT / "kiva_stream").rglob("*.*") if path.suffix in {".py", ".sql", ".json"}
    ]
    occurring = {word for path in files for word in re.findall(r"\w+", path.read_text("utf-8"))}
    rows = re.findall(r"^\|.*\|(.*)\|$", document("docs/glossary.md"), re.MULTILINE)
    shown = {
        word
        for row in rows
        for name in re.findall(r"`([^`]+)`", row)
        for word in re.findall(r"[a-z_]+", name)
    }
    assert {"trouble", "epoch", "gaps"} <= shown <= occurring


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_between_documents_lead_somewhere(name: str) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", document(name)):
        path = (CHECKOUT / name).parent / target if target else CHECKOUT / name
        assert path.is_file(), target
        titles = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not anchor or anchor in anchors, anchor


def test_the_map_names_files_that_exist_and_definitions_that_they_hold() -> None:
    rows = re.findall(r"^\| .* \| `([^`]+)` \| (?:`([^`]+)`)? ?\|$", document("docs/map.md"), re.MULTILINE)
    assert len(rows) == document("docs/map.md").count("\n| ") - document("docs/map.md").count("\n| I want")
    for file, definition in rows:
        assert (CHECKOUT / file).is_file(), file
        assert not definition or definition in named_by_the_map(CHECKOUT / file), (file, definition)


@pytest.mark.parametrize("kind", get_args(IncidentKind))
def test_an_operator_finds_how_each_incident_shows_what_it_means_and_what_to_do(kind: str) -> None:
    text = " ".join(incident_sections()[kind].split())
    told = re.fullmatch(r"- \*How it shows:\* (.+) - \*What it means:\* (.+) - \*What to do:\* (.+)", text)
    assert told is not None, text
    assert all(part.endswith(".") for part in told.groups())


def test_every_section_about_an_incident_is_of_a_kind_that_there_is() -> None:
    assert incident_sections().keys() == set(get_args(IncidentKind))
