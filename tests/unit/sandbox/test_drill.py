"""When a drill's row is ok, how its table reads, and the command's exit code."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest
from rich.console import Console

from kiva_stream.cli.app import main
from kiva_stream.sandbox import drill as drills
from kiva_stream.sandbox.drill import DrillReport, Intensity, Row, scenarios

WHOLE = Row(
    fault="kills",
    seed=1,
    entries=5_000,
    times=3,
    starts=5,
    lost=0,
    repeated=0,
    repeats_allowed=0,
    out_of_order=0,
    dead_letters=0,
    recovered_after_s=2.25,
    sent_again=0,
    wrong={},
)


def but(**changes: object) -> Row:
    return msgspec.structs.replace(WHOLE, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"lost": 1},
        {"repeated": 1},
        {"repeats_allowed": 20, "repeated": 21},
        {"out_of_order": 1},
        {"dead_letters": 1},
        {"wrong": {"contacts_wrong": 1}},
        {"trouble": "it was not done"},
        {"times": 0},
    ],
)
def test_a_row_is_ok_only_when_nothing_is_lost_repeated_dead_or_wrong_and_the_fault_struck(
    changes: dict[str, Any],
) -> None:
    assert WHOLE.ok
    assert not but(**changes).ok


def test_repeats_are_ok_up_to_the_allowed_number() -> None:
    assert but(repeated=20, repeats_allowed=20).ok


def test_the_table_is_markdown_and_other_problems_stand_below_it() -> None:
    rows = [WHOLE, but(fault="frozen", wrong={"contacts_wrong": 2}, repeats_allowed=1)]
    console = Console(width=200)
    with console.capture() as said:
        console.print(DrillReport(False, rows))
    lines = [" ".join(line.split()) for line in said.get().splitlines() if line.strip()]
    assert lines[0].startswith("| fault | entries | times | starts | lost | repeated | out of order |")
    assert lines[2:] == [
        "| kills | 5,000 | 3 | 5 | 0 | 0 | 0 | 0 | 2.2 |",
        "| frozen | 5,000 | 3 | 5 | 0 | 0 (≤ 1) | 0 | 0 | 2.2 |",
        "frozen, seed 1: 2 contacts wrong",
        "Not all is as it should be.",
    ]


def test_rows_of_several_seeds_name_their_seed() -> None:
    console = Console(width=200)
    with console.capture() as said:
        console.print(DrillReport(True, [WHOLE, but(seed=2)]))
    assert "| kills (seed 2) |" in said.get()


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 7)])
def test_the_drill_exits_7_when_a_row_is_not_ok(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ok: bool, code: int
) -> None:
    asked: list[object] = []

    async def drill(*arguments: object) -> DrillReport:
        asked.extend(arguments[:4])
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
