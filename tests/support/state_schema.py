"""The state schema on a real PostgreSQL: a store, the ledger of a held site, and commits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import anyio

from kiva_stream.model.checkpoint import Commit, Delivered, SavedCheckpoint
from kiva_stream.model.dead_letters import DeadLetter
from kiva_stream.model.ids import ContactId, Email
from kiva_stream.model.positions import Position
from kiva_stream.settings.sections import StateSettings
from kiva_stream.state.leases import hold
from kiva_stream.state.ledger import SiteLedger
from kiva_stream.state.store import Store

ACCOUNT = "account.example 1"
CONTACT_URL = "https://account.example/app/contacts/"
ANN, BEA = Email("ann@example.com"), Email("bea@example.com")
START = Position(5, 50)


def settings(dsn: str, schema: str = "kiva_stream") -> StateSettings:
    """Return the settings of a state schema."""
    return StateSettings(dsn=dsn, schema=schema)


@asynccontextmanager
async def migrated_store(dsn: str) -> AsyncIterator[Store]:
    """Give a state schema of this version."""
    async with Store.open(settings(dsn)) as opened:
        await opened.migrate()
        yield opened


@asynccontextmanager
async def held_ledger(store: Store, site_id: int = 1, lease_s: float = 30) -> AsyncIterator[SiteLedger]:
    """Give the ledger of a site, which is held during the block with an account of its own."""
    async with hold(store, site_id, f"of site {site_id}", lease_s=lease_s) as lease:
        yield SiteLedger(store, lease, site_id)


async def begin(ledger: SiteLedger, account: str = ACCOUNT) -> None:
    """Bind a ledger's site to an account, and begin its checkpoint after START."""
    await ledger.bind(account, CONTACT_URL)
    await ledger.begin(SavedCheckpoint("day1", None, START))


def commit_of(
    watermark: Position,
    sent: Sequence[Delivered] = (),
    dead: Sequence[DeadLetter] = (),
    pending: int = 0,
    **outcomes: int,
) -> Commit:
    """Return a commit, with how many entries of each outcome the watermark passed."""
    passed = {("outcome", name): count for name, count in outcomes.items()}
    return Commit(watermark, pending, list(sent), list(dead), passed)


def delivered(txid: int, log_id: int, line: int = 1) -> Delivered:
    """Return a delivered event of an entry."""
    return Delivered(Position(txid, log_id), ContactId(7), line, 1)


async def until(is_so: Callable[[], Awaitable[object]]) -> None:
    """Return when a condition holds. Raises TimeoutError after ten seconds."""
    with anyio.fail_after(10):
        while not await is_so():  # noqa: ASYNC110  it is the server's condition
            await anyio.sleep(0.005)
