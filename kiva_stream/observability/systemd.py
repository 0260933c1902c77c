"""Notifications to systemd, by the protocols of sd_notify(3) and sd_watchdog_enabled(3).

No library fits: sdnotify and systemd-python are published as source only (the second has to be compiled),
cysystemd's wheels need glibc 2.34 and contain the journal in C; none of the three paces the watchdog.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Mapping

import anyio

from kiva_stream.observability.logs import ThrottledWarning

SEND_TIMEOUT_S = 1.0  # of one datagram, which blocks the event loop
USEC = 1_000_000  # microseconds of a second


class SystemdNotifier:
    """Notifies the service manager whose socket `environ` names (NOTIFY_SOCKET). No-op without one.

    No method raises: a message that cannot be sent is lost. The first failure is logged.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._watchdog_s = _watchdog_s(environ)
        self._warn_once = ThrottledWarning(math.inf)

    def ready(self) -> None:
        """Report that the start is done."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows. It must contain no secrets."""
        self._send(f"STATUS={' '.join(text.split())}")

    def stopping(self) -> None:
        """Report that a stop has begun."""
        self._send("STOPPING=1")

    async def watchdog(self, is_alive: Callable[[], bool]) -> None:
        """Notify the watchdog every quarter of its interval while `is_alive`, until cancelled.

        systemd kills and restarts a process that sends nothing for an interval. Returns at once where no
        watchdog is configured.
        """
        while self._watchdog_s is not None:
            if is_alive():
                self._send("WATCHDOG=1")
            await anyio.sleep(self._watchdog_s / 4)

    def _send(self, message: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
                sending.settimeout(SEND_TIMEOUT_S)
                sending.connect(self._address)
                sending.send(message.encode())
        except OSError as error:
            self._warn_once("systemd cannot be told how the service is", why=str(error))


def _address(place: str) -> str | None:
    """Return the address of the socket at `place` (`@…`: an abstract one); None if that is no socket."""
    if place.startswith("@"):
        return f"\0{place[1:]}"
    return place if place.startswith("/") else None


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """Return the watchdog's interval in seconds; None if this process has none."""
    usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    is_for_us = pid in {"", str(os.getpid())}
    return int(usec) / USEC if usec.isdecimal() and int(usec) > 0 and is_for_us else None
