"""A pgbouncer before a test's PostgreSQL, where the program is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest

PORT = 6432
PATIENCE_S = 10.0


@contextmanager
def pgbouncer(dsn: str, pool_mode: str, **settings: object) -> Iterator[str]:
    """Yield the DSN of a database by way of a pgbouncer; skip the test where there is none."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    account = None if os.geteuid() else pwd.getpwnam("nobody")  # it refuses to run as root
    with tempfile.TemporaryDirectory(prefix="pgbouncer.") as name:
        folder = Path(name)
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
        (folder / "pgbouncer.ini").write_text(
            _configuration(dsn, folder, {"pool_mode": pool_mode, **settings})
        )
        (folder / "pgbouncer.ini").chmod(0o644)
        command = [program, str(folder / "pgbouncer.ini")]
        with subprocess.Popen(
            command,
            user=account.pw_uid if account else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                _wait_for(folder / f".s.PGSQL.{PORT}", process)
                host = quote(str(folder), safe="")
                yield urlsplit(dsn)._replace(netloc="postgres@", query=f"host={host}&port={PORT}").geturl()
            finally:
                process.kill()


def _configuration(dsn: str, folder: Path, settings: dict[str, object]) -> str:
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    server = {
        "host": query.get("host", [parts.hostname or "127.0.0.1"])[0],
        "port": query.get("port", [str(parts.port or 5432)])[0],
        "user": parts.username or "postgres",
        **({"password": parts.password} if parts.password else {}),
    }
    chosen = {
        "listen_addr": "",
        "listen_port": PORT,
        "unix_socket_dir": folder,
        "auth_type": "any",
        **settings,
    }
    lines = [f"{key} = {value}" for key, value in chosen.items()]
    target = " ".join(f"{key}={value}" for key, value in server.items())
    return "\n".join(["[databases]", f"* = {target}", "[pgbouncer]", *lines, ""])


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Return when a socket is listened on."""
    ends_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends_at and process.poll() is None:
        with socket.socket(socket.AF_UNIX) as client:
            if path.exists() and client.connect_ex(str(path)) == 0:
                return
        time.sleep(0.01)
    raise AssertionError(f"pgbouncer did not begin to listen: {process.poll()}")
