"""Log lines on stderr. Every line passes the Scrubber.

Other modules log through `log` or `structlog.get_logger()`; this one decides how a line is rendered.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterable

import structlog
from structlog.typing import Processor

from kiva_stream.observability.scrubbing import Scrubber
from kiva_stream.settings.sections import LogSettings

log = structlog.get_logger()


class ThrottledWarning:
    """Logs a warning at most every `every_s` seconds: in an outage hundreds of calls would log the same."""

    def __init__(self, every_s: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._next_at = -math.inf

    def __call__(self, event: str, **fields: object) -> None:
        """Log the warning, unless the last one is too recent."""
        now = self._clock()
        if now >= self._next_at:
            self._next_at = now + self._every_s
            log.warning(event, **fields)


class _Foreign(logging.Handler):
    """Logs the records of the standard `logging`, which libraries use, as lines of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record."""
        structlog.get_logger().log(
            record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info
        )


def configure(settings: LogSettings, secrets: Iterable[str] = ()) -> Scrubber:
    """Set up logging of the whole process; return the Scrubber that every line passes.

    `secrets` are values that no line may contain. Lines go to the `sys.stderr` of the moment of logging.
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
            lambda _logger, _method, line: scrubber(str(line)),
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
        # The plain formatter: others show local variables, and with them any secret that a frame holds.
        return structlog.dev.ConsoleRenderer(
            colors=on_terminal, exception_formatter=structlog.dev.plain_traceback
        )
    return structlog.processors.JSONRenderer(ensure_ascii=False)
