"""Runs a command and measures it: how long it took, the processor time and the memory it used."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple

LOOK_EVERY_S = 0.02


class Measured(NamedTuple):
    """What a command used, of its process alone."""

    seconds: float  # from its start to its end
    cpu_s: float  # user and system
    peak_bytes: int  # most memory held at once
    output: str


def measured(command: list[str], folder: Path, environ: dict[str, str]) -> Measured:
    """Run a command in a folder to its end, blocking. Raises CalledProcessError when it fails.

    The peak is what /proc says last before the end: `ru_maxrss` of a child starts at its parent's size.
    """
    with TemporaryFile() as output:
        began_at = time.monotonic()
        child = subprocess.Popen(command, cwd=folder, env=environ, stdout=output, stderr=output)
        cpu_s, peak_bytes = _watch(child)
        seconds = time.monotonic() - began_at
        text = _read(output)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command, text)
    return Measured(seconds, cpu_s, peak_bytes, text)


def _watch(child: subprocess.Popen[bytes]) -> tuple[float, int]:
    """Return processor seconds and peak memory of a child at its end."""
    peak_bytes = 0
    while True:
        peak_bytes = peak_bytes_of(child.pid) or peak_bytes
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return usage.ru_utime + usage.ru_stime, peak_bytes
        time.sleep(LOOK_EVERY_S)


def peak_bytes_of(pid: int | str) -> int:
    """Return the most memory that a process held at once so far; 0 when it has ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def _read(output: IO[bytes]) -> str:
    output.seek(0)
    return output.read().decode(errors="replace")
