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
