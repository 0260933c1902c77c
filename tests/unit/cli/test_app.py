"""The command line as a whole: help, usage, errors, settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kiva_stream import errors
from kiva_stream.commands import backfill as history
from kiva_stream.commands import follow as following
from kiva_stream.commands import plan as plans
from kiva_stream.commands import rewind as rewinds
from kiva_stream.commands import setup, status
from kiva_stream.commands import sync_customer as sync_command
from kiva_stream.commands.dead_letters import details, discard, listing, replay
from kiva_stream.settings import documentation
from kiva_stream.settings.keys import KEYS
from tests.unit.cli.command_line import ENVIRON, TOKEN, Result, Run, raising

COMMANDS = (
    *("demo", "init", "check", "setup", "probe", "plan", "sync", "backfill", "follow", "forget"),
    *("status", "verify", "rewind", "generate", "sandbox", "drill", "dead-letters"),
)


def test_help_names_every_command_and_every_setting_with_its_default(run: Run) -> None:
    result = run("--help")
    assert result.code == 0
    assert all(command in result.out for command in COMMANDS)
    assert all(line in result.out for line in documentation.help_lines())
    assert len(documentation.help_lines()) == len(KEYS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_its_help(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.code == 0
    assert f"kiva-stream {command} [OPTIONS]" in result.out


def test_only_commands_that_work_are_offered(run: Run) -> None:
    listed = run("--help").out.partition("Commands:")[2].partition("Settings,")[0]
    assert [line.split()[0] for line in listed.splitlines() if line.strip()] == list(COMMANDS)


def test_help_loads_neither_a_driver_nor_an_http_client() -> None:
    code = (
        "import sys\n"
        "from kiva_stream.cli.app import main\n"
        "sys.argv = ['kiva-stream', '--help']\n"
        "try:\n    main()\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    )
    helped = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert {"asyncpg", "aiohttp", "uvloop"}.isdisjoint(helped.stderr.split())


def test_the_version_is_shown(run: Run) -> None:
    assert run("--version").out.startswith("kiva_stream 0.")


@pytest.mark.parametrize(
    "arguments",
    [
        ("fly",),
        ("check", "--loud"),
        ("backfill", "extra"),
        ("generate", "--entries", "0", "--dsn", "x"),
        ("sandbox", "--port", "70000"),
        ("sandbox", "--fault", "/event"),
        ("backfill", "--since", "tomorrow"),
        ("backfill", "--since", "7-8"),
        ("backfill", "--since", "99999999999999999999999:1"),
        ("backfill", "--until", "2018-02-30"),
        ("backfill", "--events-since", "7:8"),
        ("plan", "--since", "tomorrow"),
        ("plan", "--until", "2018-13-01"),
        ("plan", "--events-since", "day1"),
        ("plan", "--events-since", "9999-12-31"),
        ("plan", "--since", "0001-01-01"),
        ("plan", "--since", "20180304"),
        ("sync", "--customer", "9" * 5_000),
        ("plan", "--yes"),
        ("follow", "--since", "2018-02-30"),
        ("follow", "--until", "day1"),
        ("sync", "--customer"),
        ("sync", "--customer", ""),
        ("sync", "--customer", "anna@example.com"),
        ("sync", "--customer", "+5"),
        ("sync", "--customer", "-"),
        ("sync", "--customer", "1.5"),
        ("sync", "--customer", "\N{SUPERSCRIPT TWO}"),
        ("sync", "--customer", str(2**63)),
        ("status", "--customer", "1"),
        ("rewind", "--to", "2018-03-04"),
        ("rewind", "--to", "7"),
        ("dead-letters", "list", "--reason", "noise"),
        ("dead-letters", "replay", "--customer", "anna"),
        ("dead-letters", "list", "--all"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_names_the_option(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert result.out == ""
    named = [argument for argument in arguments if argument.startswith("--")]
    assert (named or arguments)[-1 if len(arguments) < 4 else 0] in result.err


def test_a_customer_that_is_no_number_says_what_is_expected(run: Run) -> None:
    assert "'anna' is not the id of a customer (a number)" in run("sync", "--customer", "anna").err


def test_a_date_that_is_none_says_what_is_expected(run: Run) -> None:
    assert (
        "'tomorrow' is neither day1, nor a date (YYYY-MM-DD), nor a position (TXID:ID)"
        in run("backfill", "--since", "tomorrow").err
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SettingsError("Set it."), 2),
        (errors.SourceError("Start it."), 3),
        (errors.AccountRefused("Copy the key."), 4),
        (errors.CheckpointError("Run setup."), 5),
        (errors.HeldError("Stop the other."), 6),
        (errors.DrainTimeoutError("Run it again."), 1),
        (errors.Rejected("Look at it."), 1),
        (ExceptionGroup("", [ValueError("x"), ExceptionGroup("", [errors.SourceError("Start it.")])]), 3),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_is_one_sentence_and_its_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    monkeypatch.setattr(setup, "set_up", raising(error))
    result = run("setup")
    said = {ExceptionGroup: "Start it.\n", KeyboardInterrupt: ""}.get(type(error), f"{error}\n")
    assert result == Result(code, "", said)


@pytest.mark.parametrize(
    ("place", "name", "command"),
    [
        (plans, "plan", ("plan", "--since", "day1")),
        (plans, "plan", ("backfill", "--dry-run")),
        (history, "backfill", ("backfill", "--yes")),
        (sync_command, "sync_customer", ("sync", "--customer", "7")),
        (following, "follow", ("follow", "--wait")),
        (status, "status", ("status", "--json")),
        (rewinds, "rewind", ("rewind", "--to", "day1")),
        (listing, "list_dead_letters", ("dead-letters", "list")),
        (details, "show_dead_letter", ("dead-letters", "show", "7:8")),
        (replay, "replay", ("dead-letters", "replay", "--all")),
        (discard, "discard", ("dead-letters", "discard", "order:9")),
    ],
)
def test_every_command_exits_with_the_code_of_its_error_and_answers_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, place: object, name: str, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(place, name, raising(errors.HeldError("Stop the other.")))
    assert run(*command) == Result(6, "", "Stop the other.\n")


def test_an_unexpected_error_is_a_short_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "set_up", raising(ZeroDivisionError("over")))
    assert run("setup") == Result(
        1, "", "Unexpected ZeroDivisionError: over (log.level = 'debug' shows where).\n"
    )


def test_a_traceback_shows_at_level_debug_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "set_up", raising(ZeroDivisionError("over")))
    monkeypatch.setenv("KIVA_STREAM__LOG__LEVEL", "debug")
    assert "Traceback" in run("setup").err


def test_secrets_and_addresses_stay_out_of_errors(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIVA_STREAM__LOG__LEVEL", "debug")
    monkeypatch.setattr(setup, "set_up", raising(ValueError(f"{TOKEN} of anna@example.com")))
    err = run("setup").err
    assert "*** of a***@example.com" in err
    assert "4711" not in err
    assert "anna@" not in err


@pytest.mark.parametrize(
    "command",
    [("status",), ("plan", "--since", "day1"), ("sync", "--customer", "1"), ("backfill",), ("follow",)],
    ids=lambda command: command[0],
)
def test_without_settings_a_command_says_which_are_missing(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    for name in ENVIRON:
        monkeypatch.delenv(name)
    result = run(*command)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("Missing settings: source.dsn, source.site_id, state.dsn, activecampaign.")
    assert "Traceback" not in result.err


def test_the_settings_file_can_be_named(run: Run, tmp_path: Path) -> None:
    assert run("--config", "elsewhere.toml", "status").err.startswith(
        "There is no settings file elsewhere.toml"
    )
    (tmp_path / "mine.toml").write_text("[source]\nspeed = 1\n")
    assert run("--config", "mine.toml", "status").err.startswith("Unknown key source.speed in mine.toml")
