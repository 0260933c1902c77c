"""The state schema on a real PostgreSQL: what moves together, what is bound to what, who holds a site."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest
from msgspec.structs import replace

from kiva_stream.errors import CheckpointError, HeldError, SettingsError
from kiva_stream.model.bulk_imports import OpenImport
from kiva_stream.model.checkpoint import Commit, Delivered, SavedCheckpoint
from kiva_stream.model.dead_letters import DeadLetter
from kiva_stream.model.ids import AcId, ContactId, CustomerId, Email, OrderId
from kiva_stream.model.orders import OrderSource, SentOrder
from kiva_stream.model.outcomes import DELIVERED, SYNCED, Outcome, Reason
from kiva_stream.model.positions import HighWaterMark, Position
from kiva_stream.primitives import sql_blocks
from kiva_stream.state import ledger as ledger_module
from kiva_stream.state.ledger import SiteLedger
from kiva_stream.state.links import ContactLinks
from kiva_stream.state.orders import OrderStates
from kiva_stream.state.status import read_status
from kiva_stream.state.store import SQL_FILES, Store
from tests.support.postgres import as_role, connected
from tests.support.state_schema import (
    ACCOUNT,
    ANN,
    BEA,
    CONTACT_URL,
    START,
    begin,
    commit_of,
    delivered,
    held_ledger,
)

LAST = Position(2**62, 0)


@pytest.fixture
def links(store: Store) -> ContactLinks:
    return ContactLinks(store, 1)


# The checkpoint


async def test_a_site_without_a_checkpoint_has_none(store: Store) -> None:
    async with held_ledger(store) as ledger:
        assert await ledger.saved(ACCOUNT) is None


async def test_a_checkpoint_is_saved_as_it_began(store: Store) -> None:
    moment = datetime(2018, 3, 4, tzinfo=UTC)
    async with held_ledger(store) as ledger:
        await ledger.bind(ACCOUNT, CONTACT_URL)
        await ledger.begin(SavedCheckpoint("2018-03-04", moment, START))
    async with held_ledger(store) as ledger:
        saved = await ledger.saved(ACCOUNT)
        status = await read_status(store, 1)
    assert saved is not None
    assert replace(saved, moved_ago=timedelta()) == SavedCheckpoint("2018-03-04", moment, START)
    assert status is not None
    assert (status.account, status.counted_from) == (ACCOUNT, START)


async def test_a_site_that_is_bound_has_no_checkpoint_yet(store: Store) -> None:
    async with held_ledger(store) as ledger:
        await ledger.bind(ACCOUNT, CONTACT_URL)
        assert await ledger.saved(ACCOUNT) is None
    assert await read_status(store, 1) is None


async def test_a_site_may_be_bound_again_and_has_the_newest_contact_url(
    ledger: SiteLedger, look: asyncpg.Connection
) -> None:
    await ledger.bind(ACCOUNT, "https://moved.example/contacts/")
    assert await look.fetch("SELECT site_id, account, contact_url FROM kiva_stream.site") == [
        (1, ACCOUNT, "https://moved.example/contacts/")
    ]
    assert await ledger.saved(ACCOUNT)


async def test_a_sites_state_belongs_to_one_account(ledger: SiteLedger, look: asyncpg.Connection) -> None:
    for refused in (ledger.saved("other.example 1"), ledger.bind("other.example 1", "https://other/")):
        with pytest.raises(
            SettingsError, match=r"belongs to .* account\.example 1, .* name other\.example 1"
        ):
            await refused
    assert await look.fetchrow("SELECT account, contact_url FROM kiva_stream.site") == (ACCOUNT, CONTACT_URL)


async def test_an_account_serves_one_site(store: Store, ledger: SiteLedger, look: asyncpg.Connection) -> None:
    async with held_ledger(store, 2) as second:
        for refused in (second.saved(ACCOUNT), second.bind(ACCOUNT, CONTACT_URL)):
            with pytest.raises(HeldError, match=r"account account\.example 1 serves site 1"):
                await refused
        assert await second.saved("other.example 1") is None
    assert await look.fetchval("SELECT count(*) FROM kiva_stream.site") == 1


async def test_of_two_sites_that_take_an_account_at_once_one_gets_it(store: Store) -> None:
    async with held_ledger(store, 1) as first, held_ledger(store, 2) as second:
        results = await asyncio.gather(
            *(each.bind(ACCOUNT, CONTACT_URL) for each in (first, second)), return_exceptions=True
        )
    assert sorted(type(result).__name__ for result in results) == ["HeldError", "NoneType"]


async def test_a_site_begins_once_and_only_when_it_is_bound(store: Store, ledger: SiteLedger) -> None:
    with pytest.raises(CheckpointError):
        await ledger.begin(SavedCheckpoint("day1", None, START))
    async with held_ledger(store, 2) as unbound:
        with pytest.raises(CheckpointError):
            await unbound.begin(SavedCheckpoint("day1", None, START))


@pytest.mark.parametrize("phase", ["contacts", "orders", "events", "tags", "done", "sweep", "follow"])
async def test_a_site_says_what_is_being_done(store: Store, ledger: SiteLedger, phase: str) -> None:
    await ledger.set_phase(phase)
    status = await read_status(store, 1)
    assert status is not None
    assert status.phase == phase


async def test_a_site_remembers_until_when_it_had_caught_up(store: Store, ledger: SiteLedger) -> None:
    moment = datetime(2018, 3, 4, 1, 2, 3, 456789, UTC)
    await ledger.set_caught_up(moment)
    status = await read_status(store, 1)
    assert status is not None
    assert status.caught_up_at == moment


async def test_a_sweep_clears_the_counts_of_what_is_read_again(store: Store, ledger: SiteLedger) -> None:
    ahead = {("outcome", "delivered"): 3}
    await ledger.commit(Commit(Position(6, 61), 2, [], [], {("outcome", "synced"): 1}, ahead))
    await ledger.begin_sweep()
    status = await read_status(store, 1)
    assert status is not None
    assert (status.phase, status.pending, status.outcomes) == ("sweep", 0, {SYNCED: 1})
    assert (status.watermark, status.high_water_mark) == (Position(6, 61), None)


async def test_a_ledger_may_be_asked_by_several_at_once(ledger: SiteLedger) -> None:
    """Follow notes how far it has looked while the checkpoint commits and letters are read."""
    moment = datetime(2018, 3, 4, tzinfo=UTC)
    await asyncio.gather(
        ledger.commit(commit_of(Position(6, 61), [delivered(6, 61)])),
        ledger.set_caught_up(moment),
        ledger.without_contact([CustomerId(5)]),
        ledger.prune(400, START),
    )
    status = await read_status(ledger._store, 1)
    assert status is not None
    assert (status.caught_up_at, status.watermark) == (moment, Position(6, 61))


# Commits


async def everything(look: asyncpg.Connection) -> list[list[tuple[object, ...]]]:
    """Return all that a commit may move."""
    tables = [
        "SELECT watermark_txid, watermark_id, pending, ahead FROM kiva_stream.checkpoint",
        "SELECT kind, name, count FROM kiva_stream.tally ORDER BY 1, 2",
        "SELECT txid, log_id, contact_id, event, attempts FROM kiva_stream.ledger ORDER BY 1, 2",
        "SELECT txid, log_id, reason, customer_id, attempts, reply FROM kiva_stream.dead_letter ORDER BY 2",
        "SELECT site_id, contact_id FROM kiva_stream.tag_due ORDER BY 2",
    ]
    return [[tuple(row) for row in await look.fetch(table)] for table in tables]


async def test_a_commit_moves_ledger_dead_letters_counts_tags_due_and_watermark(
    ledger: SiteLedger, look: asyncpg.Connection, links: ContactLinks
) -> None:
    (ann,) = (await links.link({CustomerId(5): ANN})).values()
    await links.record_confirmed(ann.id, b"ann", AcId(11), unsubscribed=False)
    await look.execute("DELETE FROM kiva_stream.tag_due")
    letter = DeadLetter(Position(6, 62), Reason.EVENT_REJECTED, CustomerId(5), 2, "no such event")
    nobody = DeadLetter(Position(6, 63), Reason.NO_CUSTOMER, None)
    await ledger.commit(
        Commit(
            Position(6, 61),
            3,
            [Delivered(Position(6, 61), ContactId(7), 16, 2), delivered(7, 70, 42)],
            [letter, nobody],
            {("outcome", "delivered"): 1, ("event", "16"): 1, ("note", "bad_data"): 2},
            {("outcome", "delivered"): 1, ("outcome", "dead event_rejected"): 2},
            frozenset({ann.id}),
        )
    )
    assert await everything(look) == [
        [(6, 61, 3, '[["outcome", "delivered", 1], ["outcome", "dead event_rejected", 2]]')],
        [("event", "16", 1), ("note", "bad_data", 2), ("outcome", "delivered", 1)],
        [(6, 61, 7, 16, 2), (7, 70, 7, 42, 1)],
        [(6, 62, "event_rejected", 5, 2, "no such event"), (6, 63, "no_customer", None, 0, "")],
        [(1, ann.id)],
    ]


async def test_a_commit_notes_when_it_moved_the_watermark_and_only_then(
    ledger: SiteLedger, look: asyncpg.Connection
) -> None:
    await look.execute("UPDATE kiva_stream.checkpoint SET moved_at = now() - interval '1 hour'")
    await ledger.commit(commit_of(START))
    assert await moved_ago(ledger) >= timedelta(hours=1)
    await ledger.commit(commit_of(Position(6, 61)))
    assert await moved_ago(ledger) < timedelta(hours=1)


async def moved_ago(ledger: SiteLedger) -> timedelta:
    saved = await ledger.saved(ACCOUNT)
    assert saved is not None
    return saved.moved_ago


async def test_counts_add_up_over_commits(ledger: SiteLedger, look: asyncpg.Connection) -> None:
    for log_id in (60, 61):
        await ledger.commit(commit_of(Position(6, log_id), delivered=2, synced=1))
    assert await look.fetch("SELECT name, count FROM kiva_stream.tally ORDER BY 1") == [
        ("delivered", 4),
        ("synced", 2),
    ]


LETTER = DeadLetter(Position(6, 60), Reason.NO_EMAIL, CustomerId(5))
BROKEN = {
    "a delivery twice": commit_of(
        Position(8, 80),
        [delivered(8, 80), delivered(6, 61)],
        [LETTER._replace(position=Position(8, 81))],
        ok=1,
    ),
    "a dead letter twice": commit_of(Position(8, 80), [delivered(8, 80)], [LETTER], ok=1),
    "a revival whose event arrived twice": commit_of(Position(8, 80), [delivered(6, 61)], ok=1)._replace(
        superseded=((LETTER.position, LETTER.why),)
    ),
    "a count of an unknown kind": Commit(Position(8, 80), 1, [delivered(8, 80)], [], {("what", "ok"): 1}, {}),
    "a count of too much": commit_of(Position(8, 80), [delivered(8, 80)], delivered=2**63 - 1),
    "a watermark out of range": commit_of(Position(2**63, 80), [delivered(8, 80)], ok=1),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_a_commit_moves_everything_or_nothing(
    ledger: SiteLedger, look: asyncpg.Connection, broken: Commit
) -> None:
    await ledger.commit(commit_of(Position(6, 61), [delivered(6, 61)], [LETTER], 4, delivered=1))
    before = await everything(look)
    with pytest.raises(CheckpointError):
        await ledger.commit(broken)
    assert await everything(look) == before
    await ledger.commit(commit_of(Position(8, 80), [delivered(8, 80)]))  # and the next one passes
    assert (await everything(look))[0] == [(8, 80, 0, "[]")]


async def test_a_commit_touches_its_own_site_alone(store: Store, ledger: SiteLedger) -> None:
    async with held_ledger(store, 2) as second:
        await begin(second, "other.example 1")
        await second.commit(commit_of(Position(9, 90), [delivered(9, 90)], [LETTER], delivered=1))
    first = await read_status(store, 1)
    assert first is not None
    assert (first.watermark, first.outcomes) == (START, {})
    assert await ledger.earlier_outcomes(START, LAST) == {}


async def test_a_commit_adds_to_counts_in_one_order(
    database: str, store: Store, ledger: SiteLedger, links: ContactLinks
) -> None:
    """Who counts other notes at the same time waits for it, and not it for them."""
    ahead = {("note", name): 1 for name in ("b", "a")}
    for _ in range(50):
        await asyncio.gather(
            ledger.commit(commit_of(START)._replace(passed=ahead)), links.count_notes({"a": 1, "b": 1})
        )
    status = await read_status(store, 1)
    assert status is not None
    assert status.notes == {"a": 100, "b": 100}


# Dead letters that come back


async def letters(look: asyncpg.Connection) -> list[tuple[object, ...]]:
    rows = await look.fetch(
        "SELECT txid, log_id, reason, customer_id, attempts, reply FROM kiva_stream.dead_letter ORDER BY 1, 2"
    )
    return [tuple(row) for row in rows]


async def outcomes(store: Store) -> dict[str, int]:
    status = await read_status(store, 1)
    assert status is not None
    return {str(outcome): count for outcome, count in status.outcomes.items()}


def letter(log_id: int, why: Reason, customer: int | None = 5) -> DeadLetter:
    return DeadLetter(Position(6, log_id), why, None if customer is None else CustomerId(customer))


async def died(ledger: SiteLedger, *dead: DeadLetter) -> None:
    """Commit dead letters that the watermark passed."""
    passed = Counter(("outcome", f"dead {row.why}") for row in dead)
    await ledger.commit(Commit(Position(6, 99), 0, [], list(dead), passed))


async def test_dead_letters_without_contact_are_those_dead_for_want_of_a_contact(
    store: Store, ledger: SiteLedger
) -> None:
    wanting = {
        Position(6, 60): Reason.NO_EMAIL,
        Position(6, 61): Reason.AC_REJECTED,
        Position(6, 62): Reason.NO_CONTACT,
    }
    others = (Reason.EVENT_REJECTED, Reason.ORDER_INVALID, Reason.WRONG_SITE)
    await died(
        ledger,
        *(letter(position.id, why) for position, why in wanting.items()),
        *(letter(70 + number, why) for number, why in enumerate(others)),
        letter(80, Reason.NO_EMAIL, 6),
        letter(81, Reason.NO_EMAIL, None),
        letter(82, Reason.EVENT_REJECTED, 7),
    )
    async with held_ledger(store, 2) as second:
        await begin(second, "other.example 1")
        await died(second, letter(60, Reason.NO_EMAIL, 8))
    assert await ledger.without_contact([CustomerId(5), CustomerId(9)]) == wanting
    assert await ledger.without_contact([CustomerId(5), CustomerId(6)]) == wanting | {
        Position(6, 80): Reason.NO_EMAIL
    }
    assert await ledger.without_contact([]) == {}
    assert await ledger.customers_with_dead_letters() == {5, 6}


async def test_a_reopened_dead_letter_with_another_outcome_is_deleted(
    store: Store, ledger: SiteLedger, look: asyncpg.Connection
) -> None:
    first, second, third = (letter(n, Reason.NO_EMAIL) for n in (60, 61, 62))
    await died(ledger, first, second, third)
    revived = tuple((row.position, row.why) for row in (first, second))
    passed = {("outcome", "delivered"): 1, ("outcome", "synced"): 1}
    await ledger.commit(
        Commit(Position(6, 99), 0, [delivered(6, 60)], [], passed, superseded=revived),
    )
    assert await outcomes(store) == {"delivered": 1, "synced": 1, "dead no_email": 1}
    assert await letters(look) == [(6, 62, "no_email", 5, 0, "")]
    await ledger.commit(
        Commit(
            Position(6, 99), 0, [], [], {("outcome", "synced"): 1}, superseded=((third.position, third.why),)
        )
    )
    assert await outcomes(store) == {"delivered": 1, "synced": 2}
    assert await letters(look) == []


@pytest.mark.parametrize("why", [Reason.EVENT_REJECTED, Reason.NO_EMAIL])
async def test_a_reopened_entry_that_is_dead_again_is_one_dead_letter_with_its_new_reason(
    store: Store, ledger: SiteLedger, look: asyncpg.Connection, why: Reason
) -> None:
    first, second = letter(60, Reason.NO_EMAIL), letter(61, Reason.NO_EMAIL)
    await died(ledger, first, second)
    again = DeadLetter(first.position, why, CustomerId(5), 3, "said so")
    fresh = letter(70, Reason.NO_EMAIL)
    passed = Counter({("outcome", f"dead {why}"): 1}) + Counter({("outcome", "dead no_email"): 1})
    await ledger.commit(
        Commit(Position(6, 99), 0, [], [again, fresh], passed, superseded=((first.position, first.why),))
    )
    assert await outcomes(store) == Counter({f"dead {why}": 1}) + Counter({"dead no_email": 2})
    assert await letters(look) == [
        (6, 60, why, 5, 3, "said so"),
        (6, 61, "no_email", 5, 0, ""),
        (6, 70, "no_email", 5, 0, ""),
    ]


async def test_an_entry_reopened_by_one_commit_may_be_dead_in_a_later_one(
    store: Store, ledger: SiteLedger, look: asyncpg.Connection
) -> None:
    first = letter(60, Reason.AC_REJECTED)
    await died(ledger, first)
    await ledger.commit(
        commit_of(Position(6, 99), synced=1)._replace(superseded=((first.position, first.why),))
    )
    await died(ledger, first)
    assert await letters(look) == [(6, 60, "ac_rejected", 5, 0, "")]
    assert await outcomes(store) == {"synced": 1, "dead ac_rejected": 1}


async def test_other_sites_dead_letters_stay(
    store: Store, ledger: SiteLedger, look: asyncpg.Connection
) -> None:
    first = letter(60, Reason.NO_EMAIL)
    async with held_ledger(store, 2) as second:
        await begin(second, "other.example 1")
        await died(second, first)
    await died(ledger, first)
    await ledger.commit(
        commit_of(Position(6, 99), synced=1)._replace(superseded=((first.position, first.why),))
    )
    assert await look.fetch("SELECT site_id FROM kiva_stream.dead_letter") == [(2,)]


async def test_earlier_outcomes_above_a_watermark_are_delivered_and_dead_entries(
    ledger: SiteLedger,
) -> None:
    dead = [LETTER, LETTER._replace(position=Position(7, 1), why=Reason.EVENT_REJECTED)]
    sent = [delivered(6, 59), delivered(6, 61), delivered(6, 62), delivered(7, 2)]
    await ledger.commit(commit_of(START, sent, dead))
    assert await ledger.earlier_outcomes(Position(6, 61), LAST) == {
        Position(6, 62): DELIVERED,
        Position(7, 1): Outcome("dead", Reason.EVENT_REJECTED),
        Position(7, 2): DELIVERED,
    }


async def cut(look: asyncpg.Connection) -> None:
    await look.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'kiva_stream state'"
    )


# Who holds a site: test_state_leases.py


@pytest.mark.parametrize("error", [ValueError("mine"), OSError("mine"), TimeoutError("mine")])
async def test_what_fails_while_a_site_is_held_is_not_the_state_databases_fault(
    store: Store, error: Exception
) -> None:
    with pytest.raises(type(error), match="mine"):
        async with held_ledger(store):
            raise error


# Old deliveries


async def test_old_deliveries_are_forgotten_in_slices_and_never_above_the_watermark(
    ledger: SiteLedger, look: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "PRUNE_SLICE", 2)
    await ledger.commit(commit_of(START, [delivered(6, log_id) for log_id in range(60, 70)]))
    await look.execute(
        "CREATE TABLE kiva_stream.slice (rows bigint);"
        "CREATE FUNCTION kiva_stream.noted() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO kiva_stream.slice SELECT count(*) FROM gone; RETURN NULL; END';"
        "CREATE TRIGGER noted AFTER DELETE ON kiva_stream.ledger REFERENCING OLD TABLE AS gone"
        " FOR EACH STATEMENT EXECUTE FUNCTION kiva_stream.noted();"
        "UPDATE kiva_stream.ledger SET delivered_at = now() - make_interval(days => 401) WHERE log_id <> 62;"
        "UPDATE kiva_stream.ledger SET delivered_at = now() - make_interval(days => 399) WHERE log_id = 62"
    )
    await ledger.prune(400, Position(6, 66))
    left = [row[0] for row in await look.fetch("SELECT log_id FROM kiva_stream.ledger ORDER BY 1")]
    assert left == [62, 67, 68, 69]  # 62 is young, the others lie above the watermark
    assert [row[0] for row in await look.fetch("SELECT rows FROM kiva_stream.slice")] == [2, 2, 2, 0]


async def test_other_sites_deliveries_are_not_forgotten(store: Store, look: asyncpg.Connection) -> None:
    async with held_ledger(store, 2) as second:
        await begin(second)
        await second.commit(commit_of(START, [delivered(6, 60)]))
    await look.execute("UPDATE kiva_stream.ledger SET delivered_at = '2018-01-01'")
    async with held_ledger(store, 1) as first:
        await first.prune(400, Position(9, 9))
    assert await look.fetchval("SELECT count(*) FROM kiva_stream.ledger") == 1


# Status


async def test_status_is_what_was_committed(store: Store, ledger: SiteLedger, links: ContactLinks) -> None:
    found = await links.link({CustomerId(n): Email(f"{n}@example.com") for n in range(5)})
    await links.record_confirmed(found[CustomerId(0)].id, b"0", AcId(11), unsubscribed=False)
    await OrderStates(store, 1).record([sent_order(1), sent_order(2), sent_order(3, "no such product")])
    await ledger.begin_backfill(HighWaterMark(Position(9, 90), datetime.max.replace(tzinfo=UTC)), 1234)
    await ledger.set_phase("events")
    await ledger.count_contacts()
    passed = {
        ("outcome", "delivered"): 3,
        ("outcome", "synced"): 2,
        ("outcome", "skipped noise"): 4,
        ("outcome", "dead no_email"): 1,
        ("event", "16"): 1,
        ("event", "35"): 2,
        ("note", "bad_data"): 5,
    }
    ahead = {("outcome", "delivered"): 1, ("event", "16"): 1, ("outcome", "skipped test"): 1}
    await ledger.commit(commit_of(Position(7, 69)))
    await ledger.commit(Commit(Position(7, 70), 6, [], [], passed, ahead))
    status = await read_status(store, 1)
    assert status is not None
    assert (status.account, status.phase, status.since, status.events_since) == (
        ACCOUNT,
        "events",
        "day1",
        None,
    )
    assert (status.counted_from, status.watermark) == (START, Position(7, 70))
    assert (status.high_water_mark, status.entries, status.pending) == (Position(9, 90), 1234, 6)
    assert status.outcomes == {
        DELIVERED: 4,
        SYNCED: 2,
        Outcome("skipped", "test"): 1,
        Outcome("skipped", "noise"): 4,
        Outcome("dead", "no_email"): 1,
    }
    assert status.events == {"Customer cancelled": 4}  # lines 16 and 35 are one event
    assert status.notes == {"bad_data": 5}
    assert status.contacts == {"new": 4, "linked": 1, "rejected": 0}
    assert (status.tags_due, status.caught_up_at) == (1, None)
    assert status.orders == {"sent": 2, "refused": 1}


def sent_order(number: int, refused: str = "") -> SentOrder:
    moment = datetime(2018, 3, 4, tzinfo=UTC)
    return SentOrder(OrderId(number), OrderSource.HISTORICAL, b"print", moment, refused)


async def test_oddities_are_counted_beside_those_of_the_entries(
    store: Store, ledger: SiteLedger, links: ContactLinks
) -> None:
    await ledger.commit(commit_of(START)._replace(passed={("note", "bad_data"): 2}))
    await links.count_notes({"bad_data": 1, "several_addresses": 3})
    await links.count_notes({"several_addresses": 1})
    await links.count_notes({})
    status = await read_status(store, 1)
    assert status is not None
    assert status.notes == {"bad_data": 3, "several_addresses": 4}


async def test_counting_contacts_again_replaces_the_counts(
    store: Store, ledger: SiteLedger, links: ContactLinks
) -> None:
    (ann,) = (await links.link({CustomerId(5): ANN})).values()
    await ledger.count_contacts()
    await links.record_rejected(ann.id, Reason.AC_REJECTED)
    await ledger.count_contacts()
    status = await read_status(store, 1)
    assert status is not None
    assert status.contacts == {"new": 0, "linked": 0, "rejected": 1}


async def test_what_is_ahead_of_the_watermark_is_counted_anew_by_every_commit(
    store: Store, ledger: SiteLedger
) -> None:
    for ahead in (3, 2):
        await ledger.commit(Commit(START, 9, [], [], {}, {("outcome", "synced"): ahead}))
    status = await read_status(store, 1)
    assert status is not None
    assert status.outcomes == {SYNCED: 2}


async def test_a_new_backfill_moves_the_mark_and_starts_with_nothing_pending(
    store: Store, ledger: SiteLedger
) -> None:
    passed, ahead = {("outcome", "delivered"): 1}, {("outcome", "synced"): 1}
    await ledger.commit(Commit(Position(6, 60), 9, [], [], passed, ahead))
    await ledger.begin_backfill(HighWaterMark(Position(7, 70), datetime.now(UTC)), 5)
    status = await read_status(store, 1)
    assert status is not None
    assert (status.high_water_mark, status.pending, status.phase) == (Position(7, 70), 0, "contacts")
    assert status.outcomes == {DELIVERED: 1}


async def test_a_site_never_begun_has_no_status(store: Store, ledger: SiteLedger) -> None:
    assert await read_status(store, 9) is None


async def test_status_is_read_beside_a_running_process_and_counts_orders_and_tags_due_alone(
    store: Store, ledger: SiteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    fetch = asyncpg.Connection.fetch

    async def noted(
        self: asyncpg.Connection,
        query: str,
        *args: object,
        timeout: float | None,  # noqa: ASYNC109  asyncpg's
    ) -> list[asyncpg.Record]:
        asked.append(query)
        return await fetch(self, query, *args, timeout=timeout)  # type: ignore[no-any-return]

    monkeypatch.setattr(asyncpg.Connection, "fetch", noted)
    assert await read_status(store, 1)
    queries = sql_blocks.load("kiva_stream.state", "kiva_stream", *SQL_FILES)
    assert asked == [
        queries["checkpoint"],
        queries["tallies"],
        queries["count_due"],
        queries["parked_above"],
        queries["site_holder"],
        queries["not_on_list"],
        queries["incidents"],
        queries["listed_held"],
        queries["erased_customers"],
    ]
    assert not any("count(" in query.lower() for query in asked[:2])


# What the shop reads


async def test_the_shop_sees_each_customers_contact(
    ledger: SiteLedger, links: ContactLinks, look: asyncpg.Connection
) -> None:
    everybody = await links.link({CustomerId(5): ANN, CustomerId(6): ANN, CustomerId(7): BEA})
    ann = everybody[CustomerId(5)]
    await links.record_confirmed(ann.id, b"ann", AcId(11), unsubscribed=False)
    rows = await look.fetch("SELECT * FROM kiva_stream.contacts ORDER BY customer_id")
    moment = await look.fetchval("SELECT confirmed_at FROM kiva_stream.contact WHERE id = $1", ann.id)
    url = f"{CONTACT_URL}11"
    assert [dict(row) for row in rows] == [
        {
            "site_id": 1,
            "customer_id": customer,
            "email": ANN,
            "ac_contact_id": 11,
            "ac_contact_url": url,
            "last_synced_at": moment,
        }
        for customer in (5, 6)
    ]
    assert moment is not None


async def test_where_a_contact_is_shown_is_not_said_before_its_id_is_known(
    ledger: SiteLedger, links: ContactLinks, look: asyncpg.Connection
) -> None:
    (ann,) = (await links.link({CustomerId(5): ANN})).values()
    await links.close_import(OpenImport("i-1", {ann.id: b"ann"}, is_short=False), [ann.id])
    query = "SELECT email, ac_contact_id, ac_contact_url FROM kiva_stream.contacts"
    assert await look.fetch(query) == [(ANN, None, None)]
    await links.record_ids({ANN: AcId(12)}, AcId(12))
    assert await look.fetch(query) == [(ANN, 12, f"{CONTACT_URL}12")]


async def test_a_role_that_may_read_the_view_needs_no_table_and_gets_none(
    database: str, ledger: SiteLedger, links: ContactLinks, look: asyncpg.Connection
) -> None:
    (ann,) = (await links.link({CustomerId(5): ANN})).values()
    await links.record_confirmed(ann.id, b"ann", AcId(11), unsubscribed=False)
    role = f"kiva_test_{uuid4().hex}"
    await look.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA kiva_stream TO {role};"
        f"GRANT SELECT ON kiva_stream.contacts TO {role}"
    )
    async with connected(as_role(database, role)) as shop:
        assert await shop.fetchval("SELECT ac_contact_id FROM kiva_stream.contacts") == 11
        for table in ("contact", "customer", "site"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await shop.fetch(f"SELECT 1 FROM kiva_stream.{table}")
    await look.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
