"""The notify protocol of systemd, received at a socket like systemd's."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from kiva_stream.observability.systemd import SystemdNotifier
from tests.support import virtual_time


class Manager:
    """Listens as the service manager does."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{place[1:]}" if place.startswith("@") else place)
        self._socket.setblocking(False)

    def received(self) -> list[str]:
        """Return the messages that came since the last call."""
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return messages

    def environ(self, **more: str) -> dict[str, str]:
        """Return the environment that it gives to its service."""
        return {"NOTIFY_SOCKET": self.place, **more}

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["a file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify") if request.param == "a file" else f"@kiva-{uuid.uuid4()}")
    yield manager
    manager.close()


def watched(notifier: SystemdNotifier, for_s: float, is_alive: Callable[[], bool]) -> None:
    """Let the watchdog run for a while that takes no time."""

    async def story() -> None:
        with anyio.move_on_after(for_s):
            await notifier.watchdog(is_alive)

    virtual_time.run(story())


def test_ready_status_and_stopping_are_sent_in_the_words_of_sd_notify(manager: Manager) -> None:
    notifier = SystemdNotifier(manager.environ())
    notifier.ready()
    notifier.status("at 7:12; 1,200 entries")
    notifier.stopping()
    assert manager.received() == ["READY=1", "STATUS=at 7:12; 1,200 entries", "STOPPING=1"]


def test_a_status_of_several_lines_is_sent_as_one_line(manager: Manager) -> None:
    SystemdNotifier(manager.environ()).status("täglich\nWATCHDOG=1\r\n")
    assert manager.received() == ["STATUS=täglich WATCHDOG=1"]


def test_the_watchdog_is_notified_every_quarter_interval_while_the_process_is_alive(manager: Manager) -> None:
    notifier = SystemdNotifier(manager.environ(WATCHDOG_USEC="120000000"))
    watched(notifier, 299, lambda: True)
    assert manager.received() == ["WATCHDOG=1"] * 10  # at 0, 30, 60, … and 270 s


def test_the_watchdog_is_not_notified_while_the_process_is_not_alive(manager: Manager) -> None:
    answers = iter([True, False, False, True, False])
    watched(SystemdNotifier(manager.environ(WATCHDOG_USEC="4000000")), 4.5, lambda: next(answers))
    assert manager.received() == ["WATCHDOG=1"] * 2
    assert list(answers) == []


def test_the_watchdog_of_another_process_is_not_notified(manager: Manager) -> None:
    environ = manager.environ(WATCHDOG_USEC="2000000")
    watched(SystemdNotifier(environ | {"WATCHDOG_PID": str(os.getpid() + 1)}), 9, lambda: True)
    assert manager.received() == []
    watched(SystemdNotifier(environ | {"WATCHDOG_PID": str(os.getpid())}), 0.5, lambda: True)
    assert manager.received() == ["WATCHDOG=1"]


@pytest.mark.parametrize("usec", [None, "", "0", "-1", "soon"])
def test_without_an_interval_there_is_no_watchdog_and_the_task_ends(
    manager: Manager, usec: str | None
) -> None:
    environ = manager.environ() if usec is None else manager.environ(WATCHDOG_USEC=usec)
    virtual_time.run(SystemdNotifier(environ).watchdog(lambda: True))
    assert manager.received() == []


def test_messages_arrive_again_after_some_were_lost(tmp_path: Path) -> None:
    notifier = SystemdNotifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    notifier.ready()
    manager = Manager(str(tmp_path / "notify"))
    notifier.status("back")
    assert manager.received() == ["STATUS=back"]
    manager.close()


def test_a_socket_that_fails_stops_no_work_and_is_logged_once(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    with capture_logs() as lines:
        notifier = SystemdNotifier({"NOTIFY_SOCKET": missing, "WATCHDOG_USEC": "2000000"})
        notifier.ready()
        watched(notifier, 5, lambda: True)
        notifier.stopping()
    assert [(line["log_level"], line["why"]) for line in lines] == [
        ("warning", "[Errno 2] No such file or directory")
    ]


def test_a_manager_that_does_not_read_holds_the_work_up_for_a_moment_only(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kiva_stream.observability.systemd.SEND_TIMEOUT_S", 0.001)
    notifier = SystemdNotifier(manager.environ())
    with capture_logs() as lines:
        for _ in range(5000):  # more than any queue of datagrams holds
            notifier.ready()
            if lines:
                break
    assert [line["why"] for line in lines] == ["timed out"]


@pytest.mark.parametrize("place", [None, "", "vsock:2:9999", "relative/path"])
def test_without_a_socket_nothing_is_sent_or_logged(place: str | None) -> None:
    notifier = SystemdNotifier({} if place is None else {"NOTIFY_SOCKET": place})
    with capture_logs() as lines:
        notifier.ready()
        notifier.status("x")
        notifier.stopping()
    assert lines == []
