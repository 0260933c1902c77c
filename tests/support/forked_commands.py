"""Commands of `python -m kiva_stream` that run in forks of an interpreter which has imported their modules.

To import them takes longer than most commands of the tests do. A fork is a process like any other; only what
depends on the start of an interpreter (its arguments, its encodings) has to be tested with a new one.
"""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import runpy
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kiva_stream import commands

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "typer",
        *(each.name for each in pkgutil.iter_modules(commands.__path__, "kiva_stream.commands.")),
    ]
)


class Ended(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


def run_to_end(
    arguments: Sequence[str], *, environ: Mapping[str, str], folder: Path, within_s: float
) -> Ended:
    """Run a command in a folder. Raises TimeoutError, having killed it, if it takes longer."""
    with tempfile.TemporaryDirectory() as written:
        out, err = Path(written, "out"), Path(written, "err")
        process = _FORKS.Process(target=_command, args=(arguments, dict(environ), folder, out, err))
        process.start()
        process.join(within_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f"{' '.join(arguments)}: {err.read_text()}")
        return Ended(process.exitcode, out.read_text(), err.read_text())


def _command(
    arguments: Sequence[str], environ: Mapping[str, str], folder: Path, out: Path, err: Path
) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    for number, path in enumerate((Path(os.devnull), out, err)):
        with path.open("r" if number == 0 else "w") as opened:
            os.dup2(opened.fileno(), number)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.argv = ["kiva_stream", *arguments]
    runpy.run_module("kiva_stream", run_name="__main__", alter_sys=True)
