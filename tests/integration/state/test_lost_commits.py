"""What a crash leaves in the state: doubts and parked entries; and commits that fail for a while."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from kiva_stream.errors import CheckpointError, StateBusyError
from kiva_stream.model.dead_letters import DeadLetter
from kiva_stream.model.ids import ContactId, CustomerId
from kiva_stream.model.outcomes import DELIVERED, PARKED, Outcome, Reason
from kiva_stream.model.positions import Position
from kiva_stream.state.ledger import SiteLedger
from kiva_stream.state.status import read_status
from kiva_stream.state.store import Store
from tests.support.state_schema import START, begin, commit_of, delivered, held_ledger, until

A, B, C, D = (Position(6, number) for number in (61, 62, 63, 64))
LETTER = DeadLetter(A, Reason.NO_EMAIL, CustomerId(5))


async def test_recorded_intents_are_in_doubt_until_they_are_in_the_ledger(ledger: SiteLedger) -> None:
    await ledger.commit(commit_of(START)._replace(intents=frozenset({A, B})))
    assert (await ledger.leftovers()).in_doubt == {A, B}
    await ledger.commit(commit_of(START, [delivered(*A)])._replace(intents=frozenset({A, B})))
    assert (await ledger.leftovers()).in_doubt == {B}


async def test_an_event_below_the_watermark_is_in_doubt_only_while_it_is_processed_again(
    ledger: SiteLedger,
) -> None:
    dead = [LETTER]
    parked = ((B, ContactId(7)),)
    await ledger.commit(commit_of(D, [], dead)._replace(intents=frozenset({A, B, C}), parked=parked))
    assert (await ledger.leftovers()).in_doubt == {A, B}


async def test_parked_entries_are_stored_until_they_have_an_outcome(store: Store, ledger: SiteLedger) -> None:
    parked = ((A, ContactId(7)), (C, ContactId(7)))
    await ledger.commit(commit_of(B)._replace(parked=parked))
    status = await read_status(store, 1)
    assert status is not None
    assert status.parked == 2
    left = await ledger.leftovers()
    assert (left.parked, left.earlier_outcomes_to) == (2, C)
    assert await ledger.parked_page(START, D, 9) == [A, C]
    assert await ledger.parked_page(A, C, 9) == [C]
    assert await ledger.parked_page(START, D, 1) == [A]
    another = ((C, ContactId(8)),)
    await ledger.commit(commit_of(B, [delivered(*A)], delivered=1)._replace(unparked=(A,), parked=another))
    assert (await ledger.leftovers()).parked == 1
    assert await ledger.parked_of([ContactId(7)]) == []
    assert await ledger.parked_of([ContactId(8)]) == [C]


async def test_earlier_outcomes_are_read_a_range_at_a_time(ledger: SiteLedger) -> None:
    letter = LETTER._replace(position=B)
    parked = ((C, ContactId(7)),)
    await ledger.commit(commit_of(START, [delivered(*A), delivered(*D)], [letter])._replace(parked=parked))
    assert await ledger.earlier_outcomes(START, C) == {
        A: DELIVERED,
        B: Outcome("dead", "no_email"),
        C: PARKED,
    }
    assert await ledger.earlier_outcomes(C, D) == {D: DELIVERED}
    assert (await ledger.leftovers()).earlier_outcomes_to == D


async def test_entries_may_be_reopened_while_they_are_parked_or_still_dead_if_they_were(
    ledger: SiteLedger,
) -> None:
    commit = commit_of(START, [delivered(*A)], [LETTER._replace(position=B)])
    await ledger.commit(commit._replace(parked=((D, ContactId(7)),)))
    assert await ledger.reopenable([A, B, C, D], [B, C]) == {B, D}
    assert await ledger.reopenable([], []) == set()
    assert await ledger.delivered([A, B]) == {A}
    await ledger.commit(commit_of(START, synced=1)._replace(unparked=(D,)))
    assert await ledger.reopenable([D], []) == set()


async def test_nothing_is_left_before_the_first_commit(ledger: SiteLedger) -> None:
    left = await ledger.leftovers()
    assert left.parked == 0
    assert [*left.in_doubt, *left.dead_letter_customers] == []
    assert left.earlier_outcomes_to < START


FULL_DISK = """
CREATE SEQUENCE kiva_stream.tries;
CREATE FUNCTION kiva_stream.full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM nextval('kiva_stream.tries');
  RAISE EXCEPTION 'could not extend file: no space left on device' USING ERRCODE = '53100';
END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON kiva_stream.ledger EXECUTE FUNCTION kiva_stream.full_disk();
"""


async def test_a_commit_waits_until_there_is_room_on_the_disk(
    ledger: SiteLedger, look: asyncpg.Connection
) -> None:
    await look.execute(FULL_DISK)
    commit = asyncio.create_task(ledger.commit(commit_of(A, [delivered(*A)], delivered=1)))
    tries = "SELECT last_value >= 2 FROM kiva_stream.tries"
    await until(lambda: look.fetchval(tries))
    assert not commit.done()
    await look.execute("DROP TRIGGER full_disk ON kiva_stream.ledger")
    await commit
    await ledger.commit(commit_of(B, [delivered(*B)], delivered=1))
    assert await look.fetch("SELECT name, count FROM kiva_stream.tally") == [("delivered", 2)]


async def test_a_commit_that_never_passes_is_given_up_when_the_lease_is_over(
    store: Store, look: asyncpg.Connection
) -> None:
    async with held_ledger(store, lease_s=0.5) as ledger:
        await begin(ledger)
        await look.execute(FULL_DISK)
        with pytest.raises(StateBusyError, match="no space left on device"):
            await ledger.commit(commit_of(A, [delivered(*A)]))
    assert await look.fetchval("SELECT watermark_id FROM kiva_stream.checkpoint") == START.id


async def test_a_commit_that_fails_since_its_process_stood_still_is_tried_again(
    store: Store, look: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, failures = Store.fetch, ["commit"]

    async def standing_still(
        self: Store, block: str, *args: object, timeout_s: float | None = None
    ) -> list[asyncpg.Record]:
        if block in failures:
            failures.remove(block)
            time.sleep(1.5 * lease_s)  # noqa: ASYNC251  all of the process stands still
            raise StateBusyError("a statement was not answered in time")
        return await fetch(self, block, *args, timeout_s=timeout_s)

    lease_s = 0.5
    async with held_ledger(store, lease_s=lease_s) as ledger:
        await begin(ledger)
        monkeypatch.setattr(Store, "fetch", standing_still)
        await ledger.commit(commit_of(A, synced=1))
    assert failures == []
    assert await look.fetchval("SELECT watermark_id FROM kiva_stream.checkpoint") == A.id


async def test_a_commit_whose_answer_was_lost_is_made_once_even_if_its_number_cannot_be_read(
    store: Store, ledger: SiteLedger, look: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, failures = Store.fetch, ["commit", "last_commit"]

    async def losing(
        self: Store, block: str, *args: object, timeout_s: float | None = None
    ) -> list[asyncpg.Record]:
        rows = await fetch(self, block, *args, timeout_s=timeout_s)
        if block in failures:
            failures.remove(block)
            raise StateBusyError("connection was closed in the middle of operation")
        return rows

    monkeypatch.setattr(Store, "fetch", losing)
    await ledger.commit(commit_of(A, synced=1))  # nothing in it that could be there twice but its counts
    assert failures == []
    assert await look.fetch("SELECT name, count FROM kiva_stream.tally") == [("synced", 1)]


@pytest.mark.parametrize("is_kept", [True, False])
async def test_a_commit_whose_answer_was_lost_is_made_once(
    store: Store,
    ledger: SiteLedger,
    look: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_kept: bool,
) -> None:
    fetch, failures = Store.fetch, ["commit"]

    async def losing(
        self: Store, block: str, *args: object, timeout_s: float | None = None
    ) -> list[asyncpg.Record]:
        is_lost = block in failures
        if is_lost:
            failures.remove(block)
        is_asked = is_kept or not is_lost
        rows = await fetch(self, block, *args, timeout_s=timeout_s) if is_asked else []
        if is_lost:
            raise StateBusyError("connection was closed in the middle of operation")
        return rows

    await ledger.commit(commit_of(A, [delivered(*A)], delivered=1))
    monkeypatch.setattr(Store, "fetch", losing)
    await ledger.commit(commit_of(B, [delivered(*B)], delivered=1))
    assert await look.fetch("SELECT name, count FROM kiva_stream.tally") == [("delivered", 2)]
    assert await look.fetchval("SELECT commits FROM kiva_stream.checkpoint") == 2


async def test_connections_cut_under_it_do_not_end_a_ledger(
    ledger: SiteLedger, look: asyncpg.Connection
) -> None:
    await look.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
        "AND datname = current_database()"
    )
    await ledger.commit(commit_of(A, [delivered(*A)], delivered=1))
    assert await look.fetchval("SELECT watermark_id FROM kiva_stream.checkpoint") == A.id


async def test_a_commit_that_is_wrong_is_not_tried_again(ledger: SiteLedger) -> None:
    await ledger.commit(commit_of(A, [delivered(*A)]))
    with pytest.raises(CheckpointError) as raised:
        await ledger.commit(commit_of(B, [delivered(*A)]))
    assert not isinstance(raised.value, StateBusyError)
