"""Dead letters in the state schema: which are meant, what is asked for, what is discarded; and `rewind`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime

import asyncpg
import pytest

from kiva_stream.errors import HeldError
from kiva_stream.model.checkpoint import Commit
from kiva_stream.model.dead_letters import DeadLetter
from kiva_stream.model.ids import ContactId, CustomerId, OrderId
from kiva_stream.model.orders import OrderSource, SentOrder
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import DAY1, Position
from kiva_stream.state.dead_letters import DeadLetterFilter, SiteDeadLetters
from kiva_stream.state.leases import Lease, hold
from kiva_stream.state.ledger import SiteLedger
from kiva_stream.state.links import ContactLinks
from kiva_stream.state.orders import OrderStates
from kiva_stream.state.rewinds import KeptAbove, KeptCheckpoint, NewStart, SiteRewinds
from kiva_stream.state.status import read_status
from kiva_stream.state.store import Store
from tests.support.state_schema import ANN, BEA, START, begin, commit_of, delivered

LETTERS = 1_000
WATERMARK = Position(9_000, 9_000)
NOBODY, REJECTED = Reason.NO_CUSTOMER, Reason.EVENT_REJECTED


@pytest.fixture
async def lease(store: Store) -> AsyncIterator[Lease]:
    """Site 1, held."""
    async with hold(store, 1, "of site 1", lease_s=30) as held:
        yield held


@pytest.fixture
async def ledger(store: Store, lease: Lease) -> SiteLedger:
    """The ledger of site 1, which began after START."""
    opened = SiteLedger(store, lease, 1)
    await begin(opened)
    return opened


@pytest.fixture
def letters(store: Store) -> SiteDeadLetters:
    return SiteDeadLetters(store, 1)


@pytest.fixture
def rewinds(store: Store) -> SiteRewinds:
    return SiteRewinds(store, 1)


def letter(number: int, why: Reason = REJECTED, customer: int = 7) -> DeadLetter:
    return DeadLetter(Position(1_000 + number, number), why, CustomerId(customer), 1, "no")


def at(*numbers: int) -> list[Position]:
    return [letter(number).position for number in numbers]


async def numbers(letters: SiteDeadLetters, choice: DeadLetterFilter, count: int | None = None) -> list[int]:
    return [each.position.id for each in await letters.page(choice, count, oldest_first=True)]


# Dead letters


async def test_a_thousand_are_chosen_by_reason_by_customer_and_by_position(
    ledger: SiteLedger, letters: SiteDeadLetters
) -> None:
    whys = NOBODY, REJECTED
    await ledger.commit(commit_of(WATERMARK, dead=[letter(n, whys[n % 2], n % 10) for n in range(LETTERS)]))
    assert await numbers(letters, DeadLetterFilter()) == list(range(LETTERS))
    assert [each.position.id for each in await letters.page(DeadLetterFilter(), 2)] == [999, 998]
    assert await numbers(letters, DeadLetterFilter(NOBODY), 3) == [0, 2, 4]
    assert await numbers(letters, DeadLetterFilter(customers=[CustomerId(3)])) == list(range(3, LETTERS, 10))
    assert await numbers(letters, DeadLetterFilter(customers=[])) == []
    assert await numbers(letters, DeadLetterFilter(NOBODY, positions=at(1, 2))) == [2]
    counts = {
        each.why: (each.count, each.asked, each.discarded)
        for each in await letters.counts(DeadLetterFilter())
    }
    assert counts == {NOBODY: (500, 0, 0), REJECTED: (500, 0, 0)}


async def test_a_replay_request_stays_until_the_entry_is_dead_again_or_has_another_outcome(
    ledger: SiteLedger, letters: SiteDeadLetters
) -> None:
    await ledger.commit(commit_of(WATERMARK, dead=[letter(n) for n in range(3)]))
    assert await letters.request_replay(DeadLetterFilter(positions=at(1, 0))) == 2
    asked = await letters.replay_requests()
    assert list(asked) == at(0, 1)
    assert await letters.request_replay(DeadLetterFilter()) == 3
    assert {place: (await letters.replay_requests())[place] for place in asked} == asked
    revived = tuple((place, REJECTED) for place in at(0, 1))
    again = Commit(WATERMARK, 0, [delivered(1_000, 0)], [letter(1, NOBODY)], {}, superseded=revived)
    await ledger.commit(again)
    assert list(await letters.replay_requests()) == at(2)
    assert await numbers(letters, DeadLetterFilter(NOBODY)) == [1]


async def test_a_discarded_dead_letter_is_replayed_only_if_named_and_is_not_reopened(
    ledger: SiteLedger, letters: SiteDeadLetters
) -> None:
    dead = [letter(n, Reason.NO_EMAIL) for n in range(3)]
    await ledger.commit(commit_of(WATERMARK, dead=dead))
    await letters.request_replay(DeadLetterFilter())
    assert await letters.discard(DeadLetterFilter(positions=at(0, 1))) == 2
    assert await letters.discard(DeadLetterFilter(positions=at(0, 1))) == 0
    assert list(await letters.replay_requests()) == at(2)
    assert await letters.request_replay(DeadLetterFilter(Reason.NO_EMAIL)) == 1
    assert list(await ledger.without_contact([CustomerId(7)])) == at(2)
    assert await letters.request_replay(DeadLetterFilter(positions=at(0))) == 1
    assert list(await letters.replay_requests()) == at(0, 2)
    assert list(await ledger.without_contact([CustomerId(7)])) == at(0, 2)


async def test_customers_of_one_contact_are_selected_together(store: Store, letters: SiteDeadLetters) -> None:
    one, two, other, unknown = (CustomerId(n) for n in (1, 2, 3, 4))
    await ContactLinks(store, 1).link({one: ANN, two: ANN, other: BEA})
    assert await letters.customers_of_same_contact(one) == {one, two}
    assert await letters.customers_of_same_contact(unknown) == {unknown}


async def test_refused_orders_are_marked_for_a_replay_and_discarded_too(
    store: Store, ledger: SiteLedger, letters: SiteDeadLetters
) -> None:
    await ledger.commit(commit_of(WATERMARK))
    states, now = OrderStates(store, 1), datetime.now(UTC)

    def order(number: int, refused: str = "no") -> SentOrder:
        return SentOrder(OrderId(number), OrderSource.HISTORICAL, bytes([number]), now, refused)

    await states.record([order(1, ""), order(2), order(3), order(4)])
    assert [each.id for each in await letters.refused_orders(None, None)] == [4, 3, 2]
    assert await letters.discard_refused_orders([OrderId(4), OrderId(1)]) == 1
    assert await letters.request_order_replay(None, with_discarded=False) == 2
    assert await letters.order_replay_requests() == [2, 3]
    count = await letters.count_refused_orders(None)
    assert (count.why, count.count, count.asked, count.discarded) == (Reason.ORDER_INVALID, 3, 2, 1)
    await states.record([order(2, ""), order(3, "still no"), order(4, "changed, and no")])
    assert await letters.order_replay_requests() == []
    assert [each.discarded_at for each in await letters.refused_orders(None, None)] == [None, None]
    assert await letters.request_order_replay([OrderId(4)], with_discarded=True) == 1


# Rewind


def start(to: Position, *, resend: bool = False, horizon: bool = True) -> NewStart:
    return NewStart(to, str(to), None, horizon, resend)


async def kept_of(rewinds: SiteRewinds) -> KeptCheckpoint:
    kept = await rewinds.checkpoint()
    assert kept is not None
    return kept


async def no_txids(_: Collection[int]) -> dict[int, int]:
    raise AssertionError("nobody asks the log")


async def test_a_rewind_moves_the_checkpoint_and_begins_the_counts_anew(
    store: Store, ledger: SiteLedger, lease: Lease, rewinds: SiteRewinds
) -> None:
    passed = {("outcome", "delivered"): 3, ("event", "1"): 3, ("note", "cut"): 1}
    parked = ((Position(8, 1), ContactId(7)), (Position(6, 1), ContactId(7)))
    out = frozenset([Position(8, 2)])
    sent = [delivered(6, 60), delivered(7, 70), delivered(8, 80)]
    await ledger.commit(
        Commit(
            Position(9, 90),
            2,
            sent,
            [letter(1)],
            passed,
            {("outcome", "synced"): 1},
            intents=out,
            parked=parked,
        )
    )
    above = await rewinds.move(lease, await kept_of(rewinds), start(Position(7, 70)), txids=no_txids)
    assert above == await rewinds.above(Position(7, 70)) == KeptAbove(deliveries=1, dead_letters=1)
    status = await read_status(store, 1)
    assert status is not None
    assert (status.watermark, status.counted_from, status.since) == (Position(7, 70),) * 2 + ("7:70",)
    assert (status.outcomes, status.events, status.notes, status.pending) == ({}, {}, {}, 0)
    left = await ledger.leftovers()
    assert (left.parked, left.in_doubt) == (1, out)
    assert await ledger.parked_page(DAY1, Position(9, 9), 9) == [Position(6, 1)]


async def test_a_rewind_that_resends_deletes_rows_above_and_none_below(
    ledger: SiteLedger, lease: Lease, rewinds: SiteRewinds, look: asyncpg.Connection
) -> None:
    await ledger.commit(commit_of(WATERMARK, [delivered(6, 60), delivered(8, 80)], [letter(0), letter(1)]))
    above = await rewinds.move(
        lease, await kept_of(rewinds), start(Position(7, 0), resend=True), txids=no_txids
    )
    assert above == KeptAbove(deliveries=1, dead_letters=2)
    assert await look.fetchval("SELECT array_agg(log_id) FROM kiva_stream.ledger") == [60]
    assert await rewinds.above(Position(7, 0)) == KeptAbove(0, 0)


async def test_a_process_that_lost_the_site_rewinds_nothing(
    ledger: SiteLedger, lease: Lease, rewinds: SiteRewinds, look: asyncpg.Connection
) -> None:
    await ledger.commit(commit_of(WATERMARK, [delivered(8, 80)]))
    await look.execute("UPDATE kiva_stream.lease SET epoch = epoch + 1")
    with pytest.raises(HeldError):
        await rewinds.move(lease, await kept_of(rewinds), start(START, resend=True), txids=no_txids)
    assert (await kept_of(rewinds)).watermark == WATERMARK
    assert await rewinds.above(START) == KeptAbove(1, 0)


async def test_the_checkpoint_knows_up_to_where_the_ledger_forgot(
    ledger: SiteLedger, rewinds: SiteRewinds, look: asyncpg.Connection
) -> None:
    await ledger.commit(commit_of(WATERMARK, [delivered(7, 70), delivered(6, 60), delivered(8, 80)]))
    assert (await kept_of(rewinds)).pruned_to is None
    await look.execute(
        "UPDATE kiva_stream.ledger SET delivered_at = now() - interval '9 days' WHERE txid < 8"
    )
    await ledger.prune(5, WATERMARK)
    assert (await kept_of(rewinds)).pruned_to == Position(7, 70)
    await ledger.prune(5, WATERMARK)
    assert (await kept_of(rewinds)).pruned_to == Position(7, 70)


async def test_switching_the_horizon_rewrites_all_stored_positions(
    ledger: SiteLedger, lease: Lease, rewinds: SiteRewinds, look: asyncpg.Connection
) -> None:
    txids = {60: 6, 70: 7, 80: 8}
    await ledger.commit(
        Commit(
            *(WATERMARK, 0, [delivered(7, 70)], [letter(1)._replace(position=Position(6, 60))], {}),
            intents=frozenset([Position(8, 80)]),
            parked=((Position(8, 80), ContactId(7)),),
        )
    )

    async def kept_at() -> list[tuple[int, int]]:
        rows = await look.fetch(
            "SELECT txid, log_id FROM kiva_stream.ledger UNION ALL "
            "SELECT txid, log_id FROM kiva_stream.dead_letter UNION ALL "
            "SELECT txid, log_id FROM kiva_stream.parked UNION ALL "
            "SELECT unnest(out_txids), unnest(out_ids) FROM kiva_stream.checkpoint ORDER BY 2, 1"
        )
        return [tuple(row) for row in rows]

    async def of_the_log(ids: Collection[int]) -> dict[int, int]:
        return {log_id: txids[log_id] for log_id in ids if log_id in txids}

    by_ids = start(Position(0, 100), horizon=False)
    await rewinds.move(lease, await kept_of(rewinds), by_ids, txids=no_txids)
    assert await kept_at() == [(0, 60), (0, 70), (0, 80), (0, 80)]
    assert (await kept_of(rewinds)).horizon is False
    await rewinds.move(lease, await kept_of(rewinds), start(Position(9, 0)), txids=of_the_log)
    assert await kept_at() == [(6, 60), (7, 70), (8, 80), (8, 80)]
    assert (await kept_of(rewinds)).horizon is True
