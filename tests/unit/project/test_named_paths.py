"""Wherever a project file names files of the package by path or pattern, such files exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.profile import STAGES
from benchmarks.slowing import FILES

CHECKOUT = Path(__file__).parents[3]
GATED = re.search(r"^GATED := ((?:.*\\\n)*.*)$", (CHECKOUT / "Makefile").read_text("utf-8"), re.MULTILINE)
OWN_STAGES = [part for part in STAGES if part.startswith("/kiva_stream/")]


def gated() -> list[str]:
    assert GATED is not None
    return GATED[1].replace("\\", " ").split()


@pytest.mark.parametrize("pattern", gated())
def test_every_pattern_of_the_coverage_gate_matches_a_module(pattern: str) -> None:
    assert [path for path in (CHECKOUT / "kiva_stream").glob(pattern) if path.suffix == ".py"]


@pytest.mark.parametrize("file", FILES)
def test_every_file_that_a_benchmark_can_slow_exists(file: str) -> None:
    assert (CHECKOUT / file.removeprefix("/")).is_file()


@pytest.mark.parametrize("part", OWN_STAGES)
def test_every_stage_of_the_profile_is_in_the_path_of_a_module(part: str) -> None:
    modules = (CHECKOUT / "kiva_stream").rglob("*.py")
    assert any(part in f"/{module.relative_to(CHECKOUT)}" for module in modules)


def test_the_profile_has_a_stage_for_each_part_of_the_pipeline() -> None:
    assert {"producer", "classifier", "batcher", "sender", "checkpoint"} <= {
        STAGES[part] for part in OWN_STAGES
    }
