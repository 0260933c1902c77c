"""What an operator sees of the work: log lines on stderr, and progress as frozen records for hooks.

Whoever has something to tell sends a record to a hook, or logs through `structlog.get_logger()`; how it is
shown is decided here and in the command line. Nothing leaves by a log line before it passed the Scrubber.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import time
from collections.abc import Callable, Iterable
from urllib.parse import quote

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from kiva_stream.model import Position
from kiva_stream.settings import LogSettings

HIDDEN = "***"
SHORTEST_SECRET = 4  # characters; hiding shorter ones would only make the lines unreadable

# An address as it stands in texts, and, with %40, in URLs. It starts only where a word does: tried at every
# letter of a long text without one, it would take time by the square of the length.
_WORD = r"""[^\s@"'`<>(),;:=&?/\\]"""
_ADDRESS = re.compile(rf"(?<!{_WORD})({_WORD}){_WORD}*?(@|%40)(?=\w)")

log = structlog.get_logger()


class Progress(msgspec.Struct, frozen=True):
    """How far a backfill has come; sent about once a second, and once at the end."""

    phase: str  # contacts | orders | events | tags | done
    entries_read: int
    outcomes: int  # entries that have their outcome
    events_sent: int
    contacts_done: int
    watermark: Position
    per_second: float  # lately, of what is counted in this phase
    entries_total: int | None = None  # up to the high-water mark; None: not known
    contacts_total: int | None = None
    orders_done: int = 0
    orders_total: int | None = None

    @property
    def done(self) -> int:
        """What is done of this phase: contacts, orders, or entries with their outcome."""
        return {"contacts": self.contacts_done, "orders": self.orders_done}.get(self.phase, self.outcomes)

    @property
    def total(self) -> int | None:
        """What there is to do in this phase, None when it is not known."""
        totals = {"contacts": self.contacts_total, "orders": self.orders_total}
        return totals.get(self.phase, self.entries_total)

    @property
    def left_s(self) -> float | None:
        """The time left of this phase at this rate, in seconds; None when it is not known."""
        if self.total is None or self.per_second <= 0:
            return None
        return max(self.total - self.done, 0) / self.per_second


OnProgress = Callable[[Progress], None]


class ProgressLog:
    """A hook that logs a line at once, then every `every_s` seconds, and whenever the phase changes."""

    def __init__(self, every_s: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._phase: str | None = None
        self._next_at = 0.0

    def __call__(self, progress: Progress) -> None:
        """Log the progress when it is due."""
        now = self._clock()
        if progress.phase == self._phase and now < self._next_at:
            return
        self._phase, self._next_at = progress.phase, now + self._every_s
        log.info("progress", **_fields(progress))


class Rarely:
    """Logs a warning at most every `every_s` seconds: in an outage hundreds of calls would say the same."""

    def __init__(self, every_s: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._next_at = -math.inf

    def __call__(self, event: str, **fields: object) -> None:
        """Log it when it is due."""
        now = self._clock()
        if now >= self._next_at:
            self._next_at = now + self._every_s
            log.warning(event, **fields)


def _fields(progress: Progress) -> dict[str, object]:
    known = msgspec.structs.asdict(progress) | {
        "left_s": progress.left_s,
        "watermark": str(progress.watermark),
    }
    return {name: value for name, value in known.items() if value is not None}


class Scrubber:
    """Takes secrets, and unless told otherwise the names in e-mail addresses, out of a text."""

    def __init__(self, secrets: Iterable[str] = (), *, mask_emails: bool = True) -> None:
        forms = {form for secret in secrets if len(secret) >= SHORTEST_SECRET for form in _forms(secret)}
        longest_first = sorted(forms, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first))) if forms else None
        self._mask_emails = mask_emails

    def __call__(self, text: str) -> str:
        """Return the text without them: `***` for a secret, `a***@example.com` for an address."""
        if self._secrets:
            text = self._secrets.sub(HIDDEN, text)
        return _ADDRESS.sub(rf"\1{HIDDEN}\2", text) if self._mask_emails else text


def _forms(secret: str) -> set[str]:
    """Return a secret as it may stand in a log line: as it is, in a URL, in a repr; each also in JSON."""
    plain = {secret, quote(secret, safe=""), repr(secret)[1:-1], repr(secret.encode())[2:-1]}
    return plain | {
        json.dumps(form, ensure_ascii=escaped)[1:-1] for form in plain for escaped in (True, False)
    }


class _Foreign(logging.Handler):
    """Takes what libraries log the standard way into the same lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record as our own."""
        structlog.get_logger().log(
            record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info
        )


def configure(settings: LogSettings, secrets: Iterable[str] = ()) -> Scrubber:
    """Set up logging of the whole process; return the Scrubber that every line passes.

    `secrets` are values that must never show. Lines go to what `sys.stderr` is when they are logged.
    """
    scrubber = Scrubber(secrets, mask_emails=settings.mask_emails)
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _renderer(settings.format),
            _scrubbing(scrubber),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[_Foreign()], force=True)
    return scrubber


def _renderer(wanted: str) -> Processor:
    on_terminal = sys.stderr.isatty()
    if wanted == "console" or (wanted == "auto" and on_terminal):
        # The plain formatter: others show local variables, and with them whatever a frame holds.
        return structlog.dev.ConsoleRenderer(
            colors=on_terminal, exception_formatter=structlog.dev.plain_traceback
        )
    return structlog.processors.JSONRenderer(ensure_ascii=False)


def _scrubbing(scrubber: Scrubber) -> Processor:
    def scrub(_logger: WrappedLogger, _method: str, line: EventDict | str) -> str:
        return scrubber(str(line))

    return scrub
