"""The units of deploy/ are sound, confined, and agree with the settings and exit codes they stand for."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from kiva_stream.cli.app import app
from kiva_stream.cli.exit_codes import BY_SIGNAL, EXIT_CODES
from kiva_stream.errors import AccountRefused, HeldError, SettingsError
from kiva_stream.settings import documentation, loading
from kiva_stream.settings.keys import KEYS
from kiva_stream.settings.sections import PipelineSettings

CHECKOUT = Path(__file__).parents[3]
DEPLOY = CHECKOUT / "deploy"
FOLLOW, BACKFILL = "kiva-stream.service", "kiva-stream-backfill@.service"
UNITS = (FOLLOW, BACKFILL)
SECRETS = {key: f"planted-{key}" for key in KEYS if key.secret}
SECRETS |= {key: f"postgresql://role:planted@host/{key}" for key in KEYS if key.name == "dsn"}
OPEN = {"source.site_id": 7, "activecampaign.api_url": "https://a.example", "activecampaign.event_actid": "1"}

Unit = dict[str, dict[str, list[str]]]  # section -> key -> its values


def unit(text: str) -> Unit:
    sections: Unit = {}
    for line in text.splitlines():
        if title := re.fullmatch(r"\[(\w+)\]", line):
            section = sections.setdefault(title[1], {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return sections


def service(name: str) -> dict[str, list[str]]:
    return unit((DEPLOY / name).read_text("utf-8"))["Service"]


def codes(name: str, key: str) -> set[int]:
    return {int(code) for code in service(name)[key][0].split()}


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return a directory with the units, whose program exists; it stands in for a host's."""
    program = tmp_path / "kiva-stream"
    program.write_text("#!/bin/sh\nenv\n")
    program.chmod(0o755)
    for path in DEPLOY.iterdir():
        text = path.read_text("utf-8").replace("/opt/kiva_stream/bin/kiva-stream", str(program))
        (tmp_path / f"as-{path.name}" if path.name == program.name else tmp_path / path.name).write_text(text)
    return tmp_path


@pytest.fixture
def secrets_lie_in(tmp_path: Path) -> Path:
    """Return a directory laid out as /etc/kiva_stream, with the secrets apart from the other settings."""
    (tmp_path / "credentials").mkdir()
    for key, value in SECRETS.items():
        (tmp_path / "credentials" / str(key)).write_text(f"{value}\n")
    lines = [f"{name} = {documentation.toml_value(value)}" for name, value in OPEN.items()]
    (tmp_path / "kiva_stream.toml").write_text("\n".join(lines))
    return tmp_path


def loaded_secrets(environ: dict[str, str]) -> dict[str, str]:
    loaded = loading.load(None, environ)
    return {str(key): getattr(getattr(loaded, key.section), key.name) for key in SECRETS}


def analyze(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze; skip the test where it is missing or older than what the units are written for."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed here")
    version = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    if int(version.split()[1].partition(".")[0].partition("~")[0]) < 250:
        pytest.skip("the units are written for systemd 250 or newer")
    command = [program, *arguments]
    return subprocess.run(
        command, cwd=cwd, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


VERIFY = ("verify", "--man=no", "--recursive-errors=no")


def test_systemd_finds_nothing_wrong_with_the_units(installed: Path) -> None:
    run = analyze(*VERIFY, *(f"./{name}" for name in UNITS), cwd=installed)
    assert (run.returncode, "kiva" in run.stdout) == (0, False), run.stdout


def test_systemd_would_find_a_key_it_does_not_know(installed: Path) -> None:
    text = (installed / FOLLOW).read_text()
    (installed / FOLLOW).write_text(text.replace("WatchdogSec=", "WatchdogSeconds="))
    run = analyze(*VERIFY, f"./{FOLLOW}", cwd=installed)
    assert "WatchdogSeconds" in run.stdout


@pytest.mark.parametrize("name", UNITS)
def test_systemd_scores_what_a_unit_exposes_under_2(installed: Path, name: str) -> None:
    run = analyze("security", "--offline=yes", "--no-pager", f"./{name}", cwd=installed)
    (score,) = re.findall(r"Overall exposure level for .*: ([\d.]+)", run.stdout)
    assert float(score) < 2.0


@pytest.mark.parametrize("name", UNITS)
def test_the_promised_confinement_is_in_the_unit(name: str) -> None:
    promised = {
        "DynamicUser": "yes",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "PrivateTmp": "yes",
    }
    assert {key: service(name)[key] for key in promised} == {key: [yes] for key, yes in promised.items()}


def test_both_units_hand_over_and_confine_alike() -> None:
    sections = [(DEPLOY / name).read_text("utf-8").partition("# The settings are")[2] for name in UNITS]
    assert sections[0].partition("\n[Install]")[0].strip() == sections[1].strip()


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_shows_its_process_the_boot_id_of_a_lease(name: str) -> None:
    assert "ProcSubset" not in service(name)


@pytest.mark.parametrize("name", UNITS)
def test_systemd_waits_longer_than_a_drain_takes(name: str) -> None:
    assert int(service(name)["TimeoutStopSec"][0]) >= PipelineSettings().drain_timeout_s + 10


def test_the_service_is_started_again_but_not_on_what_needs_a_person() -> None:
    assert service(FOLLOW)["Restart"] == service(BACKFILL)["Restart"] == ["on-failure"]
    need_a_person = {EXIT_CODES[SettingsError], EXIT_CODES[AccountRefused]}
    assert codes(FOLLOW, "RestartPreventExitStatus") == need_a_person
    assert codes(BACKFILL, "RestartPreventExitStatus") == {*need_a_person, EXIT_CODES[HeldError]}
    assert codes(BACKFILL, "SuccessExitStatus") == {BY_SIGNAL + 15}


@pytest.mark.parametrize("name", UNITS)
def test_an_outage_of_any_length_is_not_given_up(name: str) -> None:
    assert unit((DEPLOY / name).read_text("utf-8"))["Unit"]["StartLimitIntervalSec"] == ["0"]


def test_systemd_hears_the_service_and_watches_it() -> None:
    heard = service(FOLLOW)
    assert (heard["Type"], heard["NotifyAccess"]) == (["notify"], ["main"])
    assert int(heard["WatchdogSec"][0]) > 0


def test_the_service_waits_for_a_backfill_to_end() -> None:
    assert service(BACKFILL)["Type"] == ["oneshot"]
    assert unit((DEPLOY / BACKFILL).read_text("utf-8"))["Unit"]["Before"] == [FOLLOW]


@pytest.mark.parametrize("name", UNITS)
def test_every_secret_comes_from_a_credential_and_reaches_its_key(name: str, secrets_lie_in: Path) -> None:
    given = dict(value.split(":") for value in service(name)["LoadCredential"])
    place = secrets_lie_in / "run"
    place.mkdir()
    for credential, path in given.items():
        assert path.startswith("/etc/kiva_stream/")
        shutil.copy(secrets_lie_in / path.removeprefix("/etc/kiva_stream/"), place / credential)
    variables = (value.partition("=") for value in service(name)["Environment"])
    environ = {variable: value.replace("%d", str(place)) for variable, _, value in variables}
    assert loaded_secrets(environ) == {str(key): value for key, value in SECRETS.items()}


def test_by_hand_the_same_settings_are_used(installed: Path, secrets_lie_in: Path) -> None:
    script = (installed / "as-kiva-stream").read_text().replace("/etc/kiva_stream", str(secrets_lie_in))
    run = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True)
    environ = dict(re.findall(r"^(KIVA_STREAM_\w+)=(.*)$", run.stdout, re.MULTILINE))
    assert loaded_secrets(environ) == {str(key): value for key, value in SECRETS.items()}


def test_by_hand_arguments_and_exit_code_pass_through(installed: Path) -> None:
    (installed / "kiva-stream").write_text('#!/bin/sh\nprintf "<%s>" "$@"\nexit 5\n')
    command = ["sh", str(installed / "as-kiva-stream"), "sync", "two words"]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (run.stdout, run.returncode) == ("<sync><two words>", 5)


@pytest.mark.parametrize("name", UNITS)
def test_the_command_line_knows_what_a_unit_runs(name: str) -> None:
    (line,) = service(name)["ExecStart"]
    program, command, *arguments = line.replace("%i", "2024-01-01").split()
    assert program == "/opt/kiva_stream/bin/kiva-stream"
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    group.commands[command].make_context(command, arguments)


def operations(section: str) -> str:
    document = (CHECKOUT / "docs/operations.md").read_text("utf-8")
    return document.split(f"\n## {section}\n")[1].split("\n## ")[0]


def test_operations_names_every_file_and_every_credential() -> None:
    text = operations("Run as a service")
    assert set(re.findall(r"^\| `([\w@.-]+)` \|", text, re.MULTILINE)) == {
        path.name for path in DEPLOY.iterdir()
    }
    (credentials,) = re.findall(r"^for key in (.*); do$", text, re.MULTILINE)
    assert set(credentials.split()) == {str(key) for key in SECRETS}


def test_operations_says_what_systemd_does_at_each_exit_code_of_a_service() -> None:
    rows = re.findall(r"^\| ([\d, ]+)", operations("Run as a service"), re.MULTILINE)
    said = {int(code) for row in rows for code in re.findall(r"\d+", row)}
    assert {0, *EXIT_CODES.values(), BY_SIGNAL + 15} <= said


def test_the_units_of_a_second_site_are_sound_and_its_own(tmp_path: Path) -> None:
    blocks = re.findall(r"```\n(.*?)```", operations("Run as a service"), re.DOTALL)
    (script,) = (block for block in blocks if "sed " in block)
    script = script.replace("/etc/systemd/system", str(tmp_path)).replace("/usr/local/sbin", str(tmp_path))
    subprocess.run(["sh", "-ec", script], cwd=CHECKOUT, check=True)
    written = {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()}
    assert set(written) == {path.name.replace("kiva-stream", "kiva-stream-uk") for path in DEPLOY.iterdir()}
    for text in written.values():
        assert "/etc/kiva_stream_uk/" in text or "etc=/etc/kiva_stream_uk\n" in text
        assert not re.search(r"/etc/kiva_stream\b(?!_)|=kiva-stream\.service", text)
