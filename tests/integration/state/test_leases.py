"""Who holds a site and its account: one process at a time, until it lets go or its lease is over."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from kiva_stream.errors import HeldError
from kiva_stream.state.leases import Lease, hold, renew
from kiva_stream.state.store import Store
from tests.support.state_schema import START, begin, commit_of, held_ledger, until

SHORT_LEASE_S = 1.0  # also the time that a commit may take, on a busy machine as well
OVER = "SELECT bool_and(expires_at < clock_timestamp()) FROM kiva_stream.lease"
OUTLASTS = """
SELECT bool_and($1 < clock_timestamp() AND expires_at > clock_timestamp())
FROM kiva_stream.lease WHERE name IN ('site 1', 'account green')
"""


async def test_a_site_is_held_by_one_process_which_the_refusal_of_others_names(
    store: Store, look: asyncpg.Connection
) -> None:
    async with hold(store, 1, "green", lease_s=30):
        await look.execute("UPDATE kiva_stream.lease SET holder = 'shop pid 7'")
        with pytest.raises(HeldError, match=r"^Site 1 is held by shop pid 7, for at most (29|30) s more"):
            async with hold(store, 1, "green", lease_s=30):
                pytest.fail("held twice")
        async with hold(store, 2, "blue", lease_s=30):
            pass


async def test_an_account_is_held_by_one_process_whatever_the_site(store: Store) -> None:
    async with hold(store, 1, "green", lease_s=30):
        with pytest.raises(HeldError, match=r"^Site 1 is held "):
            async with hold(store, 2, "green", lease_s=30):
                pytest.fail("held twice")
        async with hold(store, 2, "blue", lease_s=30):
            pass


async def test_a_process_refused_one_of_both_leases_holds_neither(store: Store) -> None:
    async with hold(store, 1, "green", lease_s=30):
        with pytest.raises(HeldError):
            async with hold(store, 2, "green", lease_s=30):
                pytest.fail("held twice")
    async with hold(store, 2, "green", lease_s=30):
        pass


async def test_a_released_site_is_free_and_its_next_lease_has_another_fencing_token(store: Store) -> None:
    tokens = []
    for _ in range(3):
        async with hold(store, 1, "green", lease_s=30) as lease:
            tokens.append(lease.token)
            assert lease.crashed_at is None
    assert tokens == [1, 2, 3]


async def test_an_expired_lease_frees_the_site_and_its_owner_can_neither_renew_nor_commit(
    store: Store, look: asyncpg.Connection
) -> None:
    async with held_ledger(store, lease_s=SHORT_LEASE_S) as late:
        await begin(late)
        await until(lambda: look.fetchval(OVER))
        async with held_ledger(store, lease_s=30) as ledger:
            lost = "^Another process has taken site 1"
            with pytest.raises(HeldError, match=lost):
                await late.commit(commit_of(START, synced=1))
            with pytest.raises(HeldError, match=lost):
                await renew(store, Lease(site_id=1, token=1, lease_s=0.01, asked_at=0.0))
            await ledger.commit(commit_of(START, synced=1))


async def test_a_process_that_lost_only_the_account_can_neither_renew_nor_commit(
    store: Store, look: asyncpg.Connection
) -> None:
    async with held_ledger(store, lease_s=SHORT_LEASE_S) as late:
        await begin(late)
        await until(lambda: look.fetchval(OVER))
        async with hold(store, 2, "of site 1", lease_s=30):
            lost = "^Another process has taken site 1 or its account"
            with pytest.raises(HeldError, match=lost):
                await late.commit(commit_of(START, synced=1))
            with pytest.raises(HeldError, match=lost):
                await renew(store, Lease(site_id=1, token=1, lease_s=0.01, asked_at=0.0))


async def test_a_late_renewal_succeeds_unless_another_process_took_the_site(
    store: Store, look: asyncpg.Connection
) -> None:
    async with held_ledger(store, lease_s=SHORT_LEASE_S) as late:
        await begin(late)
        await until(lambda: look.fetchval(OVER))
        await late.commit(commit_of(START, synced=1))
        assert not await look.fetchval(OVER)


async def test_of_many_who_take_a_site_at_once_one_gets_it(store: Store) -> None:
    async def take() -> bool:
        try:
            async with hold(store, 1, "green", lease_s=30):
                await done.wait()
        except HeldError:
            return False
        return True

    async def seven_are_refused() -> bool:
        return sum(taker.done() for taker in takers) == 7

    done = asyncio.Event()
    takers = [asyncio.create_task(take()) for _ in range(8)]
    await until(seven_are_refused)
    done.set()
    assert sorted(await asyncio.gather(*takers)) == [False] * 7 + [True]


async def test_a_lease_is_renewed_by_itself_and_by_every_commit(
    store: Store, look: asyncpg.Connection
) -> None:
    left = "SELECT min(extract(epoch FROM expires_at - clock_timestamp())) FROM kiva_stream.lease"
    almost_over = "UPDATE kiva_stream.lease SET expires_at = clock_timestamp() + interval '1 s'"
    async with held_ledger(store, lease_s=30) as ledger:
        await begin(ledger)
        await look.execute(almost_over)
        await ledger.commit(commit_of(START, synced=1))
        assert await look.fetchval(left) > 20
    async with hold(store, 1, "green", lease_s=0.9) as lease:
        by_itself = await look.fetchval("SELECT max(expires_at) FROM kiva_stream.lease WHERE site_id = 1")
        renewing = asyncio.create_task(renew(store, lease))
        await until(lambda: look.fetchval(OUTLASTS, by_itself))
        await asyncio.wait_for(lease.regained(), 10)
        renewing.cancel()


def test_a_lease_that_was_not_renewed_lets_nothing_be_sent() -> None:
    lease = Lease(site_id=1, token=1, lease_s=5, asked_at=-1e9)
    with pytest.raises(HeldError, match="nothing more is sent"):
        lease.require()


async def test_a_task_waiting_for_a_late_lease_continues_when_it_is_renewed() -> None:
    lease = Lease(site_id=1, token=1, lease_s=60, asked_at=time.monotonic() - 100)
    waiting = asyncio.create_task(lease.regained())
    await asyncio.sleep(0)
    lease.renewed(time.monotonic() - 90)  # that one is over already
    await asyncio.sleep(0)
    assert not waiting.done()
    lease.renewed(time.monotonic())
    await asyncio.wait_for(waiting, 10)
    lease.require()


async def test_the_deadline_begins_before_the_renewal_was_asked_for(store: Store) -> None:
    async with hold(store, 1, "green", lease_s=3600) as lease:
        before = lease._deadline
        lease.renewed(before - 2 * 3600)  # an older one that comes late
        assert lease._deadline == before
