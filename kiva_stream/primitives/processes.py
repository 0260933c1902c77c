"""Processes of this host: which one this is, and whether another one has ended.

A pid names a process only within its pid namespace, and only until that process has ended: then another one
may get it. Together with the moment at which it started, and the boot of the kernel, it names one process.
Source: proc(5), pid_namespaces(7) and time_namespaces(7) of the Linux manual.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
NAMESPACES = ("pid", "time")  # start times are those of a time namespace
STARTED_AT = 19  # the index of `starttime` among the fields of `stat` after the command's name


class ProcessIdentity(NamedTuple):
    """A process, told from every other one: of this host or another, now or earlier."""

    boot_id: str
    namespaces: str  # of the pid and of the start time
    pid: int
    started_at: int  # in clock ticks after the boot


def this_process() -> ProcessIdentity | None:
    """Return this process's identity; None on a system without Linux's /proc, or with that of other pids."""
    pid = os.getpid()
    try:
        if _pids_of_this_process() != [pid]:
            return None  # /proc is that of an outer pid namespace, where this pid is another process
        boot_id = (PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
        namespaces = " ".join(_namespaces())
    except OSError:
        return None
    started_at = _started_at(pid)
    if started_at is None:
        return None
    return ProcessIdentity(boot_id=boot_id, namespaces=namespaces, pid=pid, started_at=started_at)


def has_ended(process: ProcessIdentity) -> bool:
    """Return whether a process has surely ended; False also if that cannot be known from here."""
    own = this_process()
    if own is None or (process.boot_id, process.namespaces) != (own.boot_id, own.namespaces):
        return False
    try:
        os.kill(process.pid, 0)  # asks, and sends nothing
    except ProcessLookupError:
        return True
    except PermissionError:  # EPERM: a process of another user has this pid, and may be the one
        return False
    # None: it ended just now, or /proc hides it.
    return _started_at(process.pid) not in (None, process.started_at)


def _namespaces() -> Iterator[str]:
    """Yield this process's namespaces; an older kernel (before Linux 5.6) has no time namespaces."""
    for link in (PROC / "self/ns" / name for name in NAMESPACES):
        if link.is_symlink():
            yield str(link.readlink())


def _pids_of_this_process() -> list[int]:
    """Return this process's pid in /proc's pid namespace, then in those within that it is in too."""
    for line in (PROC / "self/status").read_text("ascii", "replace").splitlines():
        if line.startswith("NSpid:"):
            return [int(pid) for pid in line.split()[1:]]
    return []


def _started_at(pid: int) -> int | None:
    """Return when a process started, in clock ticks after the boot; None if /proc does not show it."""
    try:
        stat = (PROC / str(pid) / "stat").read_text("ascii", "replace")
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[STARTED_AT])  # the command's name may hold blanks and brackets
