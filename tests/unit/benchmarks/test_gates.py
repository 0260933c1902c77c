"""The gates of the benchmarks: what passes, what does not, and what is only reported."""

from __future__ import annotations

import ast
import time
from pathlib import Path

import pytest

from benchmarks import calibration, ratios, slowing
from benchmarks.calibration import Calibration
from benchmarks.figures import Figure


@pytest.fixture
def committed(tmp_path: Path) -> Path:
    """Give a file of ratios in which Python 3.11 has one."""
    path = tmp_path / "ratios.json"
    path.write_text('{"3.11": {"sender": 0.2}}')
    return path


@pytest.mark.parametrize(("values", "holds"), [([1.2, 1.14, 1.3], True), ([1.2, 1.16, 1.3], False)])
def test_a_ratio_holds_when_the_least_of_its_runs_is_within_the_gate(
    values: list[float], *, holds: bool
) -> None:
    assert Figure("ratio", values, most=1.15, gated="lowest").holds is holds


@pytest.mark.parametrize(("values", "holds"), [([4, 5, 5], True), ([4, 6, 5], False)])
def test_another_upper_gate_is_for_every_run(values: list[float], *, holds: bool) -> None:
    assert Figure("requests", values, most=5).holds is holds


def test_a_figure_without_a_gate_holds() -> None:
    assert Figure("reported", [1e9]).holds


def test_the_gate_of_a_ratio_is_a_share_above_the_committed_one(committed: Path) -> None:
    figure = ratios.figure("sender", "the sender", [0.21], known=ratios.committed(committed, "3.11"))

    assert figure.most == pytest.approx(0.2 * 1.15)
    assert ratios.without_gate([figure]) == ""


def test_a_version_of_python_without_a_ratio_is_reported_with_the_command_that_commits_one(
    committed: Path,
) -> None:
    figure = ratios.figure("sender", "the sender", [9.9], known=ratios.committed(committed, "3.99"))

    assert figure.holds
    assert "for sender" in ratios.without_gate([figure])
    assert "python -m benchmarks calibrate --commit" in ratios.without_gate([figure])


def test_committing_replaces_the_ratios_of_one_version_and_leaves_the_others(committed: Path) -> None:
    ratios.commit({"sender": 0.333333, "whole": 4.0}, committed, "3.11")
    ratios.commit({"sender": 0.3}, committed, "3.9")

    assert ratios.committed(committed, "3.11") == {"sender": 0.3333, "whole": 4.0}
    assert ratios.committed(committed, "3.9") == {"sender": 0.3}


def test_the_calibration_imports_nothing_of_kiva_stream_or_of_the_benchmarks() -> None:
    tree = ast.parse(Path(calibration.__file__).read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}

    assert not {each for each in modules if each and each.split(".")[0] in {"kiva_stream", "benchmarks"}}


async def test_a_piece_of_the_calibration_takes_processor_time() -> None:
    work = Calibration()

    async with work.meanwhile() as pieces:
        piece = await work.piece()

    assert piece.decoding_s > 0
    assert piece.handing_over_s > 0
    assert pieces.counted_s
    assert all(0 < counted_s < all_s for counted_s, all_s in zip(*pieces, strict=True))


def test_stages_are_slowed_by_the_shares_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(slowing.VARIABLE, "sender=0.25,batcher=0.5")

    assert slowing.shares() == {"sender": 0.25, "batcher": 0.5}


def test_spinning_takes_as_much_processor_time_as_was_asked_for() -> None:
    began_s = time.process_time()

    slowing.spin(0.01)

    assert time.process_time() - began_s >= 0.01
