"""The drill's command: how its table reads, and its exit code."""

from __future__ import annotations

import sys

import msgspec
import pytest
from rich.console import Console

from kiva_stream.cli.app import main
from kiva_stream.cli.rendering.drill import render_drill
from kiva_stream.sandbox import drill as drills
from kiva_stream.sandbox.drill import DrillReport, Intensity, scenarios
from tests.unit.sandbox.drill_rows import WHOLE, but


def test_the_table_is_markdown_and_other_problems_stand_below_it() -> None:
    rows = [WHOLE, but(fault="frozen", wrong={"contacts_wrong": 2}, repeats_allowed=1, kept=0)]
    console = Console(width=200)
    with console.capture() as said:
        console.print(render_drill(DrillReport(False, rows)))
    lines = [" ".join(line.split()) for line in said.get().splitlines() if line.strip()]
    assert lines[0].startswith("| fault | entries | times | starts | lost | repeated | out of order |")
    assert lines[2:] == [
        "| kills | 5,000 | 3 | 5 | 0 | 0 | 0 | | 0 | 2.2 |",
        "| frozen | 5,000 | 3 | 5 | 0 | 0 (≤ 1) | 0 | 0 | 0 | 2.2 |",
        "frozen, seed 1: 2 contacts wrong",
        "Not all is as it should be.",
    ]


def test_rows_of_several_seeds_name_their_seed() -> None:
    console = Console(width=200)
    with console.capture() as said:
        console.print(render_drill(DrillReport(True, [WHOLE, but(seed=2)])))
    assert "| kills (seed 2) |" in said.get()


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 7)])
def test_the_drill_exits_7_when_a_row_is_not_ok(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ok: bool, code: int
) -> None:
    asked: list[object] = []

    async def drill(*arguments: object, seeds: object, only: object, on_row: object) -> DrillReport:
        asked.extend([*arguments, seeds, only])
        return DrillReport(ok, [WHOLE])

    monkeypatch.setattr(drills, "drill", drill)
    monkeypatch.setattr(sys, "argv", ["kiva-stream", "drill", "--seed", "3", "--only", "kills", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert msgspec.json.decode(capsys.readouterr().out)["rows"][0]["fault"] == "kills"
    assert asked == [5_000, Intensity(kills=3, outage_s=5), [3], ["kills"]]


def test_an_unknown_scenario_is_exit_2_and_the_scenarios_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["kiva-stream", "drill", "--only", "floods"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert all(scenario.name in said for scenario in scenarios(Intensity(kills=1, outage_s=1)))
