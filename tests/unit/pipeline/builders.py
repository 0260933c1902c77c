"""What tests of one stage are built from: a running checkpoint, entries, and what is in a batch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from msgspec.structs import replace

from kiva_stream.model.checkpoint import Leftovers
from kiva_stream.model.dead_letters import DeadLetter
from kiva_stream.model.deliveries import Batch
from kiva_stream.model.entries import Entry
from kiva_stream.model.ids import ContactId, CustomerId
from kiva_stream.model.outcomes import Reason
from kiva_stream.pipeline.checkpoint import Checkpoint
from kiva_stream.primitives.clock import Sleep
from tests.fakes.state_ledger import FakeLedger
from tests.support.entries import customer, entry, moment, place_of, position
from tests.support.waiting import no_time

CONTACT = ContactId(1)


def make_checkpoint(
    ledger: FakeLedger,
    *,
    window: int = 100,
    max_in_flight: int = 2,
    parked_max: int = 1_000,
    commit_interval_s: float = 0.02,
    left: Leftovers | None = None,
    sleep: Sleep = no_time,
) -> Checkpoint:
    """Return the checkpoint of a run that begins at the ledger's watermark, with what is left there."""
    return Checkpoint(
        ledger,
        ledger.watermark,
        left or ledger.left(),
        window=window,
        max_in_flight=max_in_flight,
        parked_max=parked_max,
        commit_interval_s=commit_interval_s,
        sleep=sleep,
    )


@asynccontextmanager
async def running(checkpoint: Checkpoint) -> AsyncIterator[None]:
    """Run a checkpoint until the block is left; its last commit is done then."""
    async with anyio.create_task_group() as group:
        group.start_soon(checkpoint.run)
        yield
        checkpoint.close()


def dead_letter(place: int, why: Reason = Reason.EVENT_REJECTED, attempts: int = 0) -> DeadLetter:
    """Return the dead letter of the entry at a place."""
    return DeadLetter(position(place), why, CustomerId(1), attempts)


def places(batch: Batch) -> list[int]:
    """Return the places in the log of a batch's deliveries."""
    return [place_of(each.position) for each in batch.deliveries]


def same(place: int, second: float, **changes: object) -> Entry:
    """Return an entry of Ann that differs from others like it in place and time only, but for the changes."""
    return replace(entry(place, customer(1), message="Logged out", inserted_at=moment(second)), **changes)
