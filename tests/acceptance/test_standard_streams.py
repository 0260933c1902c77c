"""Standard streams that are closed or fail, a home folder that cannot be read: the work is done still."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from tests.acceptance.live_shop import arrived, live_shop
from tests.acceptance.stages import PATIENCE_S, Commands
from tests.support.postgres import connected

NOISY = {"KIVA_STREAM__LOG__LEVEL": "debug"}
# Path.exists() raises an OSError for such a name, as it does below a folder that may not be entered; also for
# root, who may enter every folder.
UNREADABLE_HOME = f"/{'x' * 300}"
BACKFILL = ("backfill", "--since", "day1", "--yes")


def started(commands: Commands, arguments: tuple[str, ...], redirection: str) -> subprocess.Popen[str]:
    """Start a command by a shell, which replaces its streams. The shell's exit code is the command's."""
    script = f'{{ "$0" -m kiva_stream "$@"; echo $? >code; }} {redirection}; exit $(cat code)'
    if "|" not in redirection:
        script = f'exec "$0" -m kiva_stream "$@" {redirection}'
    return subprocess.Popen(
        ["sh", "-c", script, sys.executable, *arguments],
        env={**os.environ, **commands.environ, **NOISY},
        cwd=commands.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ran(commands: Commands, arguments: tuple[str, ...], redirection: str) -> tuple[int, str]:
    """Run a command to its end; return its exit code, and what it said on both streams."""
    with started(commands, arguments, redirection) as process:
        out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out + err


@pytest.mark.parametrize(
    ("redirection", "code"),
    [
        ("<&-", 0),
        (">&-", 0),
        ("2>&-", 0),
        ("<&- >&- 2>&-", 0),
        ("2>/dev/full", 0),
        ("2>&1 | head -1", 0),
        (">/dev/full", 1),  # all is delivered, and the summary could not be written
    ],
)
async def test_a_backfill_whose_streams_are_closed_or_fail_delivers_everything(
    database: str, tmp_path: Path, redirection: str, code: int
) -> None:
    async with live_shop(database, tmp_path, 1) as shop, connected(database) as writer:
        for _ in range(3):
            await shop.write(writer, 1)
        ended, said = await anyio.to_thread.run_sync(ran, shop, BACKFILL, redirection)
        assert "Traceback" not in said
        assert "Exception ignored" not in said
        assert ended == code, said
        assert len(await shop.arrivals()) == 3


@pytest.mark.parametrize("redirection", ["<&- >&- 2>/dev/full", "2>&1 | head -1"])
async def test_follow_whose_streams_are_closed_or_fail_goes_on(
    database: str, tmp_path: Path, redirection: str
) -> None:
    async with live_shop(database, tmp_path, 1) as shop, connected(database) as writer:
        with started(shop, ("follow", "--since", "day1"), redirection) as process:
            try:
                for count in range(1, 4):
                    await shop.write(writer, 1)
                    await arrived(shop, count)
            finally:
                # A shell may be between: the lease names the process.
                os.kill(await writer.fetchval("SELECT pid FROM kiva_stream.lease"), signal.SIGTERM)
            out, err = await anyio.to_thread.run_sync(lambda: process.communicate(timeout=PATIENCE_S))
        assert process.returncode == 0, out + err


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "| head -1"])
def test_an_answer_that_cannot_be_written_is_one_sentence(tmp_path: Path, redirection: str) -> None:
    code, said = ran(Commands(tmp_path, "", None, {}), ("--help",), redirection)  # type: ignore[arg-type]
    failed = redirection == ">/dev/full"
    assert code == failed
    assert ("The answer cannot be written to stdout: No space left on device." in said) == failed
    assert "Traceback" not in said
    assert "Exception ignored" not in said


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
async def test_a_character_that_stdout_cannot_show_is_replaced(
    database: str, tmp_path: Path, encoding: str
) -> None:
    async with live_shop(database, tmp_path, 1) as shop, connected(database) as writer:
        await writer.execute("UPDATE kiva.sites SET name = 'Kale → Beet'")
        shop.environ |= {"PYTHONIOENCODING": encoding, "COLUMNS": "200"}
        code, said = await anyio.to_thread.run_sync(ran, shop, ("check",), "")
        assert code == 0, said
        assert "Kale ? Beet" in said


def test_a_home_folder_that_cannot_be_read_is_as_if_it_were_empty(tmp_path: Path) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:9/shop"  # over TCP asyncpg looks for certificates
    needed = {
        "SOURCE__DSN": nowhere,
        "SOURCE__SITE_ID": "1",
        "STATE__DSN": nowhere,
        "ACTIVECAMPAIGN__API_URL": "http://127.0.0.1:9",
        "ACTIVECAMPAIGN__API_TOKEN": "t",
        "ACTIVECAMPAIGN__EVENT_ACTID": "1",
        "ACTIVECAMPAIGN__EVENT_KEY": "k",
    }
    environ = {f"KIVA_STREAM__{key}": value for key, value in needed.items()} | {"HOME": UNREADABLE_HOME}
    code, said = ran(Commands(tmp_path, "", None, environ), ("status",), "")  # type: ignore[arg-type]
    assert code == 5, said
    assert "onnect" in said
    assert "too long" not in said
