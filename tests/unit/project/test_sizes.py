"""Files, classes and functions stay small, and the packages few."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
PACKAGE = CHECKOUT / "kiva_stream"
MOST_ENTRIES, MOST_LAYERS = 19, 16
MOST_MODULE_LINES, MOST_CLASS_LINES, MOST_FUNCTION_LINES = 350, 250, 45
TEXTS = {PACKAGE / "sandbox/generator/event_texts.py"}  # texts of a shop, which are data
MODULES = sorted({*PACKAGE.rglob("*.py"), *(CHECKOUT / "benchmarks").rglob("*.py")} - TEXTS)
MOST_BY_POSITION = 3
ONE_PER_ENTRY = {"Delivered", "Delivery", "Event"}  # keywords would cost each entry a tenth of a microsecond
BUILDERS = sorted(
    {*PACKAGE.rglob("*.py")} - {*(PACKAGE / "sandbox").rglob("*.py")}
)  # the sandbox has tables of data

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def definitions(module: Path) -> Iterator[tuple[Definition, int]]:
    """Yield the classes and functions of a module, each with its number of lines."""
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, Definition):
            yield node, (node.end_lineno or node.lineno) - node.lineno + 1


def test_few_entries_lie_directly_in_the_package() -> None:
    entries = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES, sorted(entries)


def test_the_import_contract_has_few_layers() -> None:
    contracts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = [layer for contract in contracts for layer in contract.get("layers", ())]
    assert 0 < len(layers) <= MOST_LAYERS


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_modules_classes_and_functions_are_small(module: Path) -> None:
    assert len(module.read_text("utf-8").splitlines()) <= MOST_MODULE_LINES
    for node, lines in definitions(module):
        most = MOST_CLASS_LINES if isinstance(node, ast.ClassDef) else MOST_FUNCTION_LINES
        assert lines <= most, f"{node.name} has {lines} lines"


def test_every_package_says_what_belongs_in_it() -> None:
    for folder in {module.parent for module in PACKAGE.rglob("*.py")}:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))), folder


@pytest.mark.parametrize("module", BUILDERS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_objects_of_more_than_three_values_are_built_by_keyword(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id.strip("_")[0].isupper()
        ):
            values = [value for value in node.args if not isinstance(value, ast.Starred)]
            assert len(values) <= MOST_BY_POSITION or node.func.id in ONE_PER_ENTRY, ast.unparse(node)
