"""Leases: a site, and its account, belong to one process at a time, for as long as it renews them.

A lease is a row with an epoch, one more for each process that takes it, and the moment it expires by the
database's clock. Who lost it (frozen for longer than it lasts, say) is stopped twice: a commit renews it in
the same statement, and fails when the epoch is another's; and nothing is written to ActiveCampaign behind a
deadline on the own clock, which began before the renewal was asked for.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import anyio
import asyncpg

from kiva_stream.errors import CheckpointError, HeldError, StateBusyError
from kiva_stream.observability.logs import log
from kiva_stream.primitives.signal import Signal
from kiva_stream.state.store import Store

BOTH = 2  # the site and the account
RENEWALS = 3  # in the time that a lease lasts
RELEASE_S = 2.0  # how long the end waits for a state database that is away


class Lease:
    """The right to work a site, and its account, until a deadline on this process's clock."""

    def __init__(self, site_id: int, epoch: int, lease_s: float, asked_at: float) -> None:
        self.site_id = site_id
        self.epoch = epoch
        self.lease_s = lease_s
        self._deadline = asked_at + lease_s
        self._renewal = Signal()

    def renewed(self, asked_at: float) -> None:
        """Take in that it was renewed by a statement that was sent at a moment of the monotonic clock."""
        self._deadline = max(self._deadline, asked_at + self.lease_s)
        self._renewal.notify()

    async def regained(self) -> None:
        """Return when it is renewed: it was late, and nobody took the site (else `renew` ends all)."""
        await self._renewal.wait_until(lambda: time.monotonic() < self._deadline)

    def require(self) -> None:
        """Raise HeldError when another process may have taken the site by now: then nothing may be sent."""
        if time.monotonic() >= self._deadline:
            raise HeldError(
                f"The lease of site {self.site_id} could not be renewed for {self.lease_s:g} s, and another "
                "process may work the site by now: nothing more is sent."
            )


@asynccontextmanager
async def hold(store: Store, site_id: int, account: str, lease_s: float) -> AsyncIterator[Lease]:
    """Hold a site and its account for this process, as long as it renews that; let go of them at the end.

    Raises HeldError when another process holds one of them, CheckpointError.
    """
    lease = await _taken(store, site_id, account, lease_s)
    try:
        yield lease
    finally:
        with anyio.move_on_after(RELEASE_S, shield=True), suppress(CheckpointError):
            await store.fetch("release_leases", site_id, lease.epoch)


async def _taken(store: Store, site_id: int, account: str, lease_s: float) -> Lease:
    """Take both leases, or none."""
    names = [f"account {account}", f"site {site_id}"]
    asked_at = time.monotonic()
    try:
        async with store.transaction() as connection:
            rows = await connection.fetch(store.sql["take_leases"], site_id, names, _holder(), lease_s)
            _require_both(rows)
    except HeldError:
        raise HeldError(await _who_holds(store, site_id, names)) from None
    return Lease(site_id, rows[0]["epoch"], lease_s, asked_at)


def _require_both(taken: Sequence[asyncpg.Record]) -> None:
    """Raise HeldError, which takes back the one that was free, when the other was not."""
    if len(taken) < BOTH:
        raise HeldError


async def _who_holds(store: Store, site_id: int, names: list[str]) -> str:
    """Return a sentence about who holds one of these."""
    advice = "stop that process first, or let `follow --wait` wait for it."
    for row in await store.fetch("who_holds", names):
        held = f"Site {row['site_id']} is held by {row['holder']}"
        return f"{held}, for at most {max(row['left_s'], 0):.0f} s more unless it renews that: {advice}"
    return f"Site {site_id} was held by another process until just now: try again."


async def renew(store: Store, lease: Lease) -> None:
    """Renew a lease for ever; a state database that is away is waited for.

    Raises HeldError when another process has taken the site.
    """
    while True:
        await anyio.sleep(lease.lease_s / RENEWALS)
        asked_at = time.monotonic()
        try:
            await store.fetch(
                "renew", lease.site_id, lease.epoch, lease.lease_s, timeout_s=lease.lease_s / RENEWALS
            )
        except StateBusyError as error:
            log.warning("the lease cannot be renewed now", site=lease.site_id, why=str(error))
        else:
            lease.renewed(asked_at)


def _holder() -> str:
    return f"{socket.gethostname()} pid {os.getpid()}"
