"""Standard streams of which no failure disturbs a command: stdin, stdout, stderr.

A descriptor that is closed at the start is opened on /dev/null: else the first socket would get its number,
and the event loop aborts the process when it closes a descriptor below 3. What cannot be written is dropped.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDIN, STDOUT, STDERR = range(3)


class LossyFile(io.FileIO):
    """A descriptor to write to. What it does not take is dropped, and the error is kept."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.failure: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Write data, or drop it. Never raises OSError."""
        size = memoryview(data).nbytes
        try:
            written = super().write(data)
        except OSError as error:
            self.failure = error
            return size
        return size if written is None else written  # None: a descriptor that would block


class StandardStreams:
    """The streams of this process. They are set up once, before anything else is opened or written."""

    def __init__(self) -> None:
        """Open what is closed, and replace `sys.stdin`, `sys.stdout` and `sys.stderr` where they need it."""
        for descriptor in (STDIN, STDOUT, STDERR):
            _open_if_closed(descriptor)
        if sys.stdin is None:
            sys.stdin = io.TextIOWrapper(io.FileIO(STDIN, closefd=False), "utf-8")
        self._answers = LossyFile(STDOUT)
        sys.stdout = _text(self._answers, sys.stdout, errors="replace")
        sys.stderr = _text(LossyFile(STDERR), sys.stderr, errors="backslashreplace")

    def obstacle(self) -> str | None:
        """Return why the answer was not written whole; None if it was, or its reader had enough of it."""
        sys.stdout.flush()
        failure = self._answers.failure
        if failure is None or failure.errno == errno.EPIPE:
            return None
        return f"The answer cannot be written to stdout: {failure.strerror}."


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        os.dup2(opened, descriptor)
        if opened != descriptor:
            os.close(opened)


def _text(file: LossyFile, replaced: TextIO | None, errors: str) -> TextIO:
    """Return a stream of text of the encoding of the one that it replaces. It is flushed after every line."""
    encoding = "utf-8" if replaced is None else replaced.encoding
    return io.TextIOWrapper(io.BufferedWriter(file), encoding, errors, line_buffering=True)
