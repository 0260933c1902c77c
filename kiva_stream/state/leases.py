"""Leases: a site, and its account, belong to one process at a time, for as long as it renews them.

A lease is a row with a fencing token (the column `epoch`), which grows by one with each process that takes
the lease, and the moment at which it expires by the database's clock. A process that lost its lease, for
example since it was frozen for longer than the lease lasts, is stopped twice. A commit renews the lease in
the same statement, and fails when the token is another process's. And nothing is written to ActiveCampaign
after a deadline on the process's own clock, which counts from before the renewal was sent.

A lease names its process too. When that process has surely ended, which only another one on the same host
can find out, the lease is taken at once: one statement compares the fencing token and sets the next one. The
lease of any other process is waited for until it expires.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import anyio
import asyncpg

from kiva_stream.errors import CheckpointError, HeldError, StateBusyError
from kiva_stream.observability.logs import ThrottledWarning, log
from kiva_stream.primitives.processes import ProcessIdentity, has_ended, this_process
from kiva_stream.primitives.signal import Signal
from kiva_stream.state.store import Store, columns

BOTH = 2  # the site and the account
RENEWALS = 3  # in the time that a lease lasts
RETRIES = 10  # in the time between two renewals, if one fails at once
RELEASE_S = 2.0  # how long the end waits for a state database that is away


class Lease:
    """The right to work a site, and its account, until a deadline on this process's clock.

    Implements the port FencingCheck.
    """

    def __init__(
        self,
        *,
        site_id: int,
        token: int,
        lease_s: float,
        asked_at: float,
        crashed_at: datetime | None = None,
    ) -> None:
        self.site_id = site_id
        self.crashed_at = crashed_at  # when it was taken over: the process before had ended by then
        self.token = token
        self.lease_s = lease_s
        self._deadline = asked_at + lease_s
        self._renewal = Signal()

    def renewed(self, asked_at: float) -> None:
        """Extend the deadline after a renewal that was sent at this moment of the monotonic clock."""
        self._deadline = max(self._deadline, asked_at + self.lease_s)
        self._renewal.notify()

    async def regained(self) -> None:
        """Return when the lease is renewed. If another process took the site, `renew` raises instead."""
        await self._renewal.wait_until(lambda: time.monotonic() < self._deadline)

    def require(self) -> None:
        """Raise HeldError when the deadline has passed."""
        if time.monotonic() >= self._deadline:
            raise HeldError(
                f"The lease of site {self.site_id} could not be renewed for {self.lease_s:g} s, and another "
                "process may work the site by now: nothing more is sent."
            )


@asynccontextmanager
async def hold(store: Store, site_id: int, account: str, *, lease_s: float) -> AsyncIterator[Lease]:
    """Hold a site and its account for this process, which has to `renew` the lease; release them at the end.

    Raises HeldError when another process holds one of them, CheckpointError.
    """
    lease = await _taken(store, site_id, account, lease_s=lease_s)
    try:
        yield lease
    finally:
        with anyio.move_on_after(RELEASE_S, shield=True), suppress(CheckpointError):
            await store.fetch("release_leases", site_id, lease.token)


async def _taken(store: Store, site_id: int, account: str, *, lease_s: float) -> Lease:
    """Take both leases, or none."""
    names = [f"account {account}", f"site {site_id}"]
    ended = await _leases_of_ended(store, names)
    asked_at, crashed_at = time.monotonic(), datetime.now(UTC) if ended else None
    try:
        async with store.transaction() as connection:
            rows = await connection.fetch(
                store.sql["take_leases"], site_id, names, _holder(), lease_s, *_process(), *columns(ended, 2)
            )
            _require_both(rows)
    except HeldError:
        raise HeldError(await _who_holds(store, site_id, names)) from None
    return Lease(
        site_id=site_id,
        token=rows[0]["epoch"],
        lease_s=lease_s,
        asked_at=asked_at,
        crashed_at=crashed_at,
    )


async def _leases_of_ended(store: Store, names: list[str]) -> list[tuple[str, int]]:
    """Return those leases, each with its fencing token, whose process has ended without releasing them."""
    ended = []
    for row in await store.fetch("unexpired_leases", names):
        process = ProcessIdentity(
            boot_id=row["boot_id"], namespaces=row["namespaces"], pid=row["pid"], started_at=row["started_at"]
        )
        if None not in process and has_ended(process):
            ended.append((row["name"], row["epoch"]))
            log.info("the process of a lease has ended", lease=row["name"], holder=row["holder"])
    return ended


def _require_both(taken: Sequence[asyncpg.Record]) -> None:
    """Raise HeldError unless both were taken; the transaction then gives back the one that was."""
    if len(taken) < BOTH:
        raise HeldError


async def _who_holds(store: Store, site_id: int, names: list[str]) -> str:
    """Return a sentence about the process that holds one of these."""
    advice = "stop that process first, or wait for it with `follow --wait` or `backfill --wait`."
    for row in await store.fetch("unexpired_leases", names):
        held = f"Site {row['site_id']} is held by {row['holder']}"
        return f"{held}, for at most {max(row['left_s'], 0):.0f} s more unless it renews that: {advice}"
    return f"Site {site_id} was held by another process until just now: try again."


async def renew(store: Store, lease: Lease) -> None:
    """Renew a lease for ever. While the state database is away, try again.

    Raises HeldError when another process has taken the site.
    """
    every_s = wait_s = lease.lease_s / RENEWALS
    warn = ThrottledWarning()
    while True:
        await anyio.sleep(wait_s)
        asked_at = time.monotonic()
        try:
            await store.fetch("renew_lease", lease.site_id, lease.token, lease.lease_s, timeout_s=every_s)
        except StateBusyError as error:
            warn("the lease cannot be renewed now", site=lease.site_id, why=str(error))
            wait_s = every_s / RETRIES
        else:
            lease.renewed(asked_at)
            wait_s = every_s


def _process() -> Sequence[str | int | None]:
    """Return the columns that name this process; without a value where that is not known."""
    return this_process() or (None,) * len(ProcessIdentity._fields)


def _holder() -> str:
    return f"{socket.gethostname()} pid {os.getpid()}"
