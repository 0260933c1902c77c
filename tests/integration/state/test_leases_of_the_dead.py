"""The lease of a process that ended without releasing it: taken at once on its host, else waited for."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import asyncpg
import pytest

from kiva_stream.errors import HeldError
from kiva_stream.primitives.processes import this_process
from kiva_stream.state import leases
from kiva_stream.state.leases import hold
from kiva_stream.state.store import Store
from tests.support.lease_holder import HELD
from tests.support.pid_namespaces import unshared
from tests.support.state_schema import until

pytestmark = pytest.mark.skipif(this_process() is None, reason="this system does not tell processes apart")

REFUSED = "^Site 1 is held by .* pid [0-9]+, for at most 3[56][0-9][0-9] s more"
HOLDER = (sys.executable, "-m", "tests.support.lease_holder")
ANOTHER_START = "UPDATE kiva_stream.lease SET started_at = started_at - 1"
REUSE = f"""
import subprocess, sys
from pathlib import Path
holder = subprocess.Popen([*{HOLDER!r}, sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
assert holder.stdout.readline() == b"{HELD}\\n"
if sys.argv[2] == "killed":
    holder.kill()
    holder.wait()
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(holder.pid - 1))
    other = subprocess.Popen(["sleep", "60"])
    assert other.pid == holder.pid
subprocess.run([*{HOLDER!r}, sys.argv[1]], stdin=subprocess.DEVNULL)
"""  # it is pid 1 of a namespace, whose other processes end with it


@contextmanager
def holding(dsn: str, *before: str) -> Iterator[subprocess.Popen[str]]:
    """Give a process that holds site 1; it is killed at the end."""
    command = [*before, *HOLDER, dsn]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{HELD}\n"
            yield process
        finally:
            process.kill()


def said(dsn: str, *before: str) -> str:
    """Return what a process says that takes site 1 and releases it at once, or is refused."""
    done = subprocess.run(
        [*before, *HOLDER, dsn], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    return last_line(done.stdout)


def last_line(text: str) -> str:
    """Return the last line, which comes after those of the log."""
    return text.splitlines()[-1]


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


async def test_the_lease_of_a_killed_process_of_this_host_is_taken_at_once(
    database: str, store: Store
) -> None:
    with holding(database) as process:
        with pytest.raises(HeldError, match=REFUSED):
            async with hold(store, 1, "green", lease_s=30):
                pytest.fail("held twice")
        kill(process)
        async with hold(store, 1, "green", lease_s=30) as lease:
            assert lease.token == 2
            assert lease.crashed_at is not None


@pytest.mark.usefixtures("store")
def test_the_lease_of_a_living_process_in_another_pid_namespace_is_not_taken(database: str) -> None:
    # Both are pid 1 of their namespaces, started at different moments.
    with holding(database, *unshared()):
        assert "pid 1, for at most" in said(database, *unshared())


@pytest.mark.usefixtures("store")
def test_the_lease_of_a_killed_process_is_waited_for_in_another_pid_namespace(database: str) -> None:
    with holding(database, *unshared()) as process:
        kill(process)
        assert "for at most 3" in said(database)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(("fate", "answer"), [("killed", HELD), ("alive", "Site 1 is held by")])
def test_the_lease_of_a_process_whose_pid_is_reused_in_the_namespace_is_taken_at_once(
    database: str, fate: str, answer: str
) -> None:
    done = subprocess.run(
        [*unshared(), sys.executable, "-c", REUSE, database, fate],
        capture_output=True,
        text=True,
        check=False,
    )
    assert last_line(done.stdout).startswith(answer), done.stderr


async def test_of_many_who_take_the_site_of_an_ended_process_one_gets_it(
    store: Store, look: asyncpg.Connection
) -> None:
    async def take() -> int | None:
        try:
            async with hold(store, 1, "green", lease_s=30) as lease:
                await done.wait()
                return lease.token
        except HeldError:
            return None

    async def seven_are_refused() -> bool:
        return sum(taker.done() for taker in takers) == 7

    done = asyncio.Event()
    async with hold(store, 1, "green", lease_s=3600):
        await look.execute(ANOTHER_START)
        takers = [asyncio.create_task(take()) for _ in range(8)]
        await until(seven_are_refused)
        done.set()
        assert sorted([await taker for taker in takers], key=str) == [2, *[None] * 7]


async def test_a_lease_taken_over_since_its_process_was_found_to_have_ended_is_not_taken(
    store: Store, look: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hold(store, 1, "green", lease_s=3600):
        await look.execute(ANOTHER_START)
        ended = await leases._leases_of_ended(store, ["account green", "site 1"])
        assert sorted(ended) == [("account green", 1), ("site 1", 1)]

        async def found_before(*_: object) -> list[tuple[str, int]]:
            return ended

        async with hold(store, 1, "green", lease_s=30) as second:
            monkeypatch.setattr(leases, "_leases_of_ended", found_before)
            with pytest.raises(HeldError, match="is held by"):
                async with hold(store, 1, "green", lease_s=30):
                    pytest.fail("held twice")
            await store.fetch("renew_lease", 1, second.token, 30.0)


async def test_a_process_whose_lease_was_taken_over_can_neither_renew_nor_release_it(
    store: Store, look: asyncpg.Connection
) -> None:
    async with AsyncExitStack() as stack:
        async with hold(store, 1, "green", lease_s=3600) as first:
            await look.execute(ANOTHER_START)
            await stack.enter_async_context(hold(store, 1, "green", lease_s=3600))
            with pytest.raises(HeldError, match=r"^Another process has taken site 1"):
                await store.fetch("renew_lease", 1, first.token, 30.0)
        with pytest.raises(HeldError, match=REFUSED):
            async with hold(store, 1, "green", lease_s=30):
                pytest.fail("held twice")


async def test_a_lease_that_names_no_process_is_waited_for(store: Store, look: asyncpg.Connection) -> None:
    async with hold(store, 1, "green", lease_s=3600):
        await look.execute(ANOTHER_START)
        for column in ("started_at", "pid", "namespaces", "boot_id"):
            await look.execute(f"UPDATE kiva_stream.lease SET {column} = NULL")
            with pytest.raises(HeldError, match=REFUSED):
                async with hold(store, 1, "green", lease_s=30):
                    pytest.fail("held twice")
