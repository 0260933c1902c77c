"""Processes: a pid names one only together with its namespace, its start and the boot of its kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from kiva_stream.primitives import processes
from kiva_stream.primitives.processes import ProcessIdentity, has_ended, this_process
from tests.support.pid_namespaces import unshared

pytestmark = pytest.mark.skipif(this_process() is None, reason="this system does not tell processes apart")

IMPORTS = "from kiva_stream.primitives.processes import ProcessIdentity, has_ended, this_process"
IDENTITY = f"{IMPORTS}; print(this_process(), flush=True); input()"
NOBODY = 65534


@pytest.fixture
def own() -> ProcessIdentity:
    """The identity of the test's process."""
    own = this_process()
    assert own is not None
    return own


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """A process of this host that runs until it is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", IDENTITY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def identity(process: subprocess.Popen[str]) -> ProcessIdentity:
    assert process.stdout is not None
    printed = process.stdout.readline()
    return eval(printed, {"ProcessIdentity": ProcessIdentity})  # type: ignore[no-any-return]


def said(code: str, *before: str) -> str:
    """Return what a process of its own prints."""
    command = [*before, sys.executable, "-c", f"{IMPORTS}\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_process_that_runs_has_not_ended(own: ProcessIdentity, child: subprocess.Popen[str]) -> None:
    other = identity(child)
    assert not has_ended(own)
    assert not has_ended(other)
    assert (other.boot_id, other.namespaces, other.pid) == (own.boot_id, own.namespaces, child.pid)


def test_a_process_that_was_killed_has_ended(child: subprocess.Popen[str]) -> None:
    other = identity(child)
    child.kill()
    child.wait()
    assert has_ended(other)


def test_a_process_whose_pid_another_one_has_by_now_has_ended(own: ProcessIdentity) -> None:
    assert has_ended(own._replace(started_at=own.started_at - 1))


def test_whether_a_process_of_another_boot_or_namespace_has_ended_is_not_known(own: ProcessIdentity) -> None:
    ended = own._replace(started_at=own.started_at - 1)
    assert not has_ended(ended._replace(boot_id="of another host, or of an earlier boot"))
    assert not has_ended(ended._replace(namespaces="pid:[1] time:[2]"))


@pytest.fixture
def of_another_user() -> Iterator[tuple[int, list[str]]]:
    """A process that may not be signalled, and the words before a command that asks for it."""
    if os.getuid() != 0:
        yield 1, []
        return
    if shutil.which("setpriv") is None:
        pytest.skip("root may signal every process, and there is no setpriv to take that away")
    with subprocess.Popen(["sleep", "60"], user=NOBODY) as process:
        yield process.pid, ["setpriv", "--bounding-set=-kill"]
        process.kill()


def test_a_process_of_another_user_that_may_not_be_signalled_has_not_ended(
    own: ProcessIdentity, of_another_user: tuple[int, list[str]]
) -> None:
    pid, words = of_another_user
    asked = own._replace(pid=pid, started_at=1)  # without EPERM its start would tell that it has ended
    done = said(f"print(has_ended({asked!r}))", *words)
    assert done == "False"
    assert os.getuid() != 0 or has_ended(asked)


def test_a_process_that_proc_does_not_show_has_not_ended(
    child: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = identity(child)._replace(started_at=1)
    assert has_ended(other)
    monkeypatch.setattr(processes, "_started_at", lambda pid: None if pid == other.pid else 1)
    assert not has_ended(other)


def test_a_process_that_sees_the_proc_of_an_outer_namespace_has_no_identity() -> None:
    assert said("print(this_process())", *unshared(mounts_proc=False)) == "None"
    assert said("print(this_process().pid)", *unshared()) == "1"


def test_a_command_name_with_blanks_and_brackets_does_not_hide_the_start() -> None:
    name = "open('/proc/self/comm', 'w').write(') R 1 (x')"
    assert said(f"before = this_process(); {name}; print(this_process() == before is not None)") == "True"
