"""Pid namespaces of Linux, in which processes have pids of their own."""

from __future__ import annotations

import os
import subprocess
from functools import cache

import pytest


def unshared(*, mounts_proc: bool = True) -> list[str]:
    """Return the words before a command that runs it as pid 1 of a new pid namespace; it ends with this one.

    Skips the test where no namespace can be made.
    """
    words = ["unshare", "--pid", "--fork", "--kill-child=SIGKILL"]
    if mounts_proc:
        words.append("--mount-proc")
    if os.getuid() != 0:
        words.append("--map-root-user")
    if why := _obstacle(tuple(words)):
        pytest.skip(f"no pid namespace can be made here: {why}")
    return words


@cache
def _obstacle(words: tuple[str, ...]) -> str:
    """Return why a command cannot run in a namespace of its own; "" if it can."""
    try:
        done = subprocess.run([*words, "true"], capture_output=True, text=True, check=False, timeout=10)
    except OSError as error:
        return str(error)
    return done.stderr if done.returncode else ""
