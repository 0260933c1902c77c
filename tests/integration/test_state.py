"""The state schema on a real PostgreSQL: what moves together, what is bound to what, who holds a site."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from traceback import format_exception
from uuid import uuid4

import anyio
import asyncpg
import pytest

from kiva_stream import sql
from kiva_stream.errors import CheckpointError, HeldError, SettingsError
from kiva_stream.model import (
    DELIVERED,
    SYNCED,
    Commit,
    ContactId,
    ContactStatus,
    CustomerId,
    DeadLetter,
    Delivered,
    Email,
    HighWaterMark,
    OpenImport,
    Outcome,
    Position,
    Reason,
)
from kiva_stream.settings import StateSettings
from kiva_stream.state import ledger as ledger_module
from kiva_stream.state.ledger import SiteLedger
from kiva_stream.state.links import ContactLinks
from kiva_stream.state.status import read_status
from kiva_stream.state.store import VERSION, Store
from tests.dsn import UNREADABLE_DSNS, as_role, connected

ACCOUNT = "account.example 1"
ANN, BEA = Email("ann@example.com"), Email("bea@example.com")
START = Position(5, 50)


def settings(dsn: str, schema: str = "kiva_stream") -> StateSettings:
    return StateSettings(dsn=dsn, schema=schema)


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    """A state schema of this version."""
    async with Store.open(settings(database)) as opened:
        await opened.migrate()
        yield opened


@asynccontextmanager
async def held_ledger(store: Store, site_id: int = 1) -> AsyncIterator[SiteLedger]:
    async with store.hold(site_id) as connection:
        yield SiteLedger(store, connection, site_id)


@pytest.fixture
async def ledger(store: Store) -> AsyncIterator[SiteLedger]:
    """The ledger of site 1, which began after START."""
    async with held_ledger(store) as opened:
        await opened.begin(ACCOUNT, "day1", None, START)
        yield opened


@pytest.fixture
def links(store: Store) -> ContactLinks:
    return ContactLinks(store, 1)


@pytest.fixture
async def look(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection beside, to look at the tables."""
    async with connected(database) as connection:
        yield connection


def commit_of(
    watermark: Position,
    sent: Sequence[Delivered] = (),
    dead: Sequence[DeadLetter] = (),
    pending: int = 0,
    **outcomes: int,
) -> Commit:
    passed = {("outcome", name): count for name, count in outcomes.items()}
    return Commit(watermark, pending, list(sent), list(dead), passed, {})


def delivered(txid: int, log_id: int, line: int = 1) -> Delivered:
    return Delivered(Position(txid, log_id), ContactId(7), line, 1)


async def until(is_so: Callable[[], Awaitable[object]]) -> None:
    """Return when a condition holds; fail when it does not within ten seconds."""
    with anyio.fail_after(10):
        while not await is_so():  # noqa: ASYNC110  it is the server's condition
            await anyio.sleep(0.005)


# The schema


async def test_migrating_again_changes_nothing(database: str, look: asyncpg.Connection) -> None:
    async with Store.open(settings(database)) as store:
        assert await store.version() == 0
        assert await store.migrate()
        assert not await store.migrate()
        assert await store.version() == VERSION
        await store.require_version()
    assert await look.fetchval("SELECT count(*) FROM kiva_stream.version") == VERSION


async def test_two_schemas_of_one_database_are_strangers(database: str) -> None:
    async with Store.open(settings(database)) as one, Store.open(settings(database, "other")) as other:
        await one.migrate()
        assert await other.version() == 0
        await other.migrate()
        async with held_ledger(one) as first, held_ledger(other) as second:
            await first.begin(ACCOUNT, "day1", None, START)
            assert await second.saved(ACCOUNT) is None


async def test_a_schema_that_was_there_before_will_do(database: str, look: asyncpg.Connection) -> None:
    await look.execute("CREATE SCHEMA kiva_stream")
    async with Store.open(settings(database)) as store:
        assert await store.migrate()


async def test_a_newer_schema_is_refused(store: Store, look: asyncpg.Connection) -> None:
    await look.execute("INSERT INTO kiva_stream.version VALUES (99)")
    for refused in (store.require_version(), store.migrate()):
        with pytest.raises(CheckpointError, match=r"of version 99, newer .* use the newer kiva_stream"):
            await refused


async def test_a_missing_schema_says_to_run_setup(database: str) -> None:
    async with Store.open(settings(database)) as store:
        with pytest.raises(CheckpointError, match="run `kiva-stream setup`"):
            await store.require_version()


async def test_a_migration_that_fails_leaves_nothing_behind(
    database: str, look: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    migration = Store._migration
    monkeypatch.setattr(Store, "_migration", lambda self, version: migration(self, version) + "SELECT 1/0;")
    async with Store.open(settings(database)) as store:
        with pytest.raises(CheckpointError, match="division by zero"):
            await store.migrate()
    assert not await look.fetchval("SELECT to_regnamespace('kiva_stream') IS NOT NULL")


async def test_a_role_that_may_not_create_the_schema_gets_a_clear_sentence(
    database: str, look: asyncpg.Connection
) -> None:
    role = f"kiva_test_{uuid4().hex}"
    await look.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    async with Store.open(settings(as_role(database, role))) as store:
        with pytest.raises(CheckpointError, match=r"may not do this: .* GRANT CREATE ON DATABASE"):
            await store.migrate()
    await look.execute(f"DROP ROLE {role}")


async def test_a_role_that_may_create_the_schema_needs_nothing_else(
    database: str, look: asyncpg.Connection
) -> None:
    role = f"kiva_test_{uuid4().hex}"
    name = await look.fetchval("SELECT current_database()")
    await look.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT CREATE ON DATABASE {name} TO {role}")
    async with Store.open(settings(as_role(database, role))) as store:
        await store.migrate()
        async with held_ledger(store) as ledger:
            await ledger.begin(ACCOUNT, "day1", None, START)
            await ledger.commit(commit_of(Position(6, 60), [delivered(6, 60)], delivered=1))
        await ContactLinks(store, 1).link({CustomerId(5): ANN})
        assert await read_status(store, 1)
    await look.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_server_out_of_reach_is_one_sentence() -> None:
    with pytest.raises(CheckpointError, match=r"^The state database \(state\.dsn\) cannot be used: "):
        async with Store.open(settings("postgresql://nobody@127.0.0.1:1/nothing")):
            pass


@pytest.mark.parametrize("dsn", UNREADABLE_DSNS)
async def test_an_address_that_cannot_be_read_is_one_sentence_without_it(dsn: str) -> None:
    with pytest.raises(
        CheckpointError, match=r"^state\.dsn cannot be read as a PostgreSQL address"
    ) as caught:
        async with Store.open(settings(dsn)):
            pass
    assert "s3cret" not in "".join(format_exception(caught.value))


async def test_what_fails_inside_a_transaction_is_not_the_state_databases_fault(store: Store) -> None:
    with pytest.raises(ValueError, match=r"^mine$"):
        async with store.transaction():
            raise ValueError("mine")


# The checkpoint


async def test_a_site_without_a_checkpoint_has_none(store: Store) -> None:
    async with held_ledger(store) as ledger:
        assert await ledger.saved(ACCOUNT) is None


async def test_a_checkpoint_is_saved_as_it_began(store: Store) -> None:
    moment = datetime(2018, 3, 4, tzinfo=UTC)
    async with held_ledger(store) as ledger:
        await ledger.begin(ACCOUNT, "2018-03-04", moment, START)
    async with held_ledger(store) as ledger:
        saved = await ledger.saved(ACCOUNT)
    assert saved is not None
    assert (saved.account, saved.since, saved.events_since) == (ACCOUNT, "2018-03-04", moment)
    assert saved.counted_from == saved.watermark == START


async def test_a_sites_state_belongs_to_one_account(ledger: SiteLedger) -> None:
    with pytest.raises(SettingsError, match=r"belongs to .* account\.example 1, .* name other\.example 1"):
        await ledger.saved("other.example 1")


async def test_an_account_serves_one_site(store: Store, ledger: SiteLedger) -> None:
    async with held_ledger(store, 2) as second:
        with pytest.raises(HeldError, match=r"account account\.example 1 serves site 1"):
            await second.saved(ACCOUNT)
        assert await second.saved("other.example 1") is None
        with pytest.raises(CheckpointError):
            await second.begin(ACCOUNT, "day1", None, START)


async def test_a_site_begins_once(ledger: SiteLedger) -> None:
    with pytest.raises(CheckpointError):
        await ledger.begin("other.example 1", "day1", None, START)


# Commits


async def everything(look: asyncpg.Connection) -> list[list[tuple[object, ...]]]:
    """Return all that a commit may move."""
    tables = [
        "SELECT watermark_txid, watermark_id, pending, ahead FROM kiva_stream.site",
        "SELECT kind, name, count FROM kiva_stream.tally ORDER BY 1, 2",
        "SELECT txid, log_id, contact_id, event, attempts FROM kiva_stream.ledger ORDER BY 1, 2",
        "SELECT txid, log_id, reason, customer_id, attempts, reply FROM kiva_stream.dead_letter ORDER BY 2",
    ]
    return [[tuple(row) for row in await look.fetch(table)] for table in tables]


async def test_a_commit_moves_ledger_dead_letters_counts_and_watermark(
    ledger: SiteLedger, look: asyncpg.Connection
) -> None:
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
        )
    )
    assert await everything(look) == [
        [(6, 61, 3, '[["outcome", "delivered", 1], ["outcome", "dead event_rejected", 2]]')],
        [("event", "16", 1), ("note", "bad_data", 2), ("outcome", "delivered", 1)],
        [(6, 61, 7, 16, 2), (7, 70, 7, 42, 1)],
        [(6, 62, "event_rejected", 5, 2, "no such event"), (6, 63, "no_customer", None, 0, "")],
    ]


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
        await second.begin("other.example 1", "day1", None, START)
        await second.commit(commit_of(Position(9, 90), [delivered(9, 90)], [LETTER], delivered=1))
    first = await read_status(store, 1)
    assert first is not None
    assert (first.watermark, first.outcomes) == (START, {})
    assert await ledger.settled_above(START) == {}


async def test_what_is_settled_above_a_watermark_is_what_was_delivered_or_died_there(
    ledger: SiteLedger,
) -> None:
    dead = [LETTER, LETTER._replace(position=Position(7, 1), why=Reason.EVENT_REJECTED)]
    sent = [delivered(6, 59), delivered(6, 61), delivered(6, 62), delivered(7, 2)]
    await ledger.commit(commit_of(START, sent, dead))
    assert await ledger.settled_above(Position(6, 61)) == {
        Position(6, 62): DELIVERED,
        Position(7, 1): Outcome("dead", Reason.EVENT_REJECTED),
        Position(7, 2): DELIVERED,
    }


async def test_a_connection_that_is_cut_commits_no_more(ledger: SiteLedger, look: asyncpg.Connection) -> None:
    """The lock went with it: another process may hold the site by now."""
    await cut(look)
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"^The state database \(state\.dsn\) cannot be used"):
            await ledger.commit(commit_of(Position(6, 61), delivered=1))
    assert (await everything(look))[:2] == [[(*START, 0, "[]")], []]


async def cut(look: asyncpg.Connection) -> None:
    await look.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'kiva_stream state'"
    )


# Who holds a site


async def test_a_site_is_held_by_one_process(database: str, store: Store) -> None:
    async with Store.open(settings(database)) as other, store.hold(1):
        with pytest.raises(HeldError, match="Site 1 is held by another kiva_stream process"):
            async with other.hold(1):
                pytest.fail("held twice")
        async with other.hold(2):
            pass


async def test_a_site_is_free_when_it_is_let_go(database: str, store: Store) -> None:
    async with Store.open(settings(database)) as other:
        async with store.hold(1):
            pass
        async with other.hold(1):
            pass


async def test_a_site_is_free_when_the_connection_that_holds_it_is_gone(
    database: str, store: Store, look: asyncpg.Connection
) -> None:
    async with store.hold(1):
        await cut(look)
        async with Store.open(settings(database)) as other, other.hold(1):
            pass


HOLDER = """
import asyncio, sys
from kiva_stream.settings import StateSettings
from kiva_stream.state.store import Store

async def main():
    async with Store.open(StateSettings(dsn=sys.argv[1])) as store, store.hold(1):
        print("held", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_site_is_free_when_the_process_that_holds_it_was_killed(database: str, store: Store) -> None:
    async def is_free() -> bool:
        try:
            async with store.hold(1):
                return True
        except HeldError:
            return False

    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, database, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert holder.stdout
    try:
        assert await holder.stdout.readline() == b"held\n"
        assert not await is_free()
    finally:
        holder.kill()
        await holder.wait()
    await until(is_free)


@pytest.mark.parametrize("error", [ValueError("mine"), OSError("mine"), TimeoutError("mine")])
async def test_what_fails_while_a_site_is_held_is_not_the_state_databases_fault(
    store: Store, error: Exception
) -> None:
    with pytest.raises(type(error), match="mine"):
        async with store.hold(1):
            raise error


# Old deliveries


async def test_old_deliveries_are_forgotten_in_slices_and_never_above_the_watermark(
    ledger: SiteLedger, look: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "FORGET_SLICE", 2)
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
    await ledger.forget_old_deliveries(400, Position(6, 66))
    left = [row[0] for row in await look.fetch("SELECT log_id FROM kiva_stream.ledger ORDER BY 1")]
    assert left == [62, 67, 68, 69]  # 62 is young, the others lie above the watermark
    assert [row[0] for row in await look.fetch("SELECT rows FROM kiva_stream.slice")] == [2, 2, 2, 0]


async def test_other_sites_deliveries_are_not_forgotten(store: Store, look: asyncpg.Connection) -> None:
    async with held_ledger(store, 2) as second:
        await second.begin(ACCOUNT, "day1", None, START)
        await second.commit(commit_of(START, [delivered(6, 60)]))
    await look.execute("UPDATE kiva_stream.ledger SET delivered_at = '2018-01-01'")
    async with held_ledger(store, 1) as first:
        await first.forget_old_deliveries(400, Position(9, 9))
    assert await look.fetchval("SELECT count(*) FROM kiva_stream.ledger") == 1


# Links


async def test_customers_of_one_address_share_a_contact(links: ContactLinks) -> None:
    found = await links.link({CustomerId(5): ANN, CustomerId(6): BEA, CustomerId(7): ANN})
    assert found[CustomerId(5)] is found[CustomerId(7)]
    assert found[CustomerId(6)] is not found[CustomerId(5)]
    contact = found[CustomerId(5)]
    assert (contact.email, contact.status, contact.why) == (ANN, ContactStatus.NEW, "")
    assert await links.link({CustomerId(8): ANN}) == {CustomerId(8): contact}
    (linked,) = await links.contacts([contact.id])
    assert linked.contact is contact
    assert (linked.customers, linked.fingerprint) == ((5, 7, 8), None)


async def test_linking_nobody_links_nobody(links: ContactLinks) -> None:
    assert await links.link({}) == {}
    assert await links.page(ContactId(0), 10) == []


async def test_a_confirmed_link_stays_when_the_address_changes(store: Store, links: ContactLinks) -> None:
    (first,) = (await links.link({CustomerId(5): ANN})).values()
    await links.confirm(first.id, b"ann")
    for again in (links, ContactLinks(store, 1)):
        (contact,) = (await again.link({CustomerId(5): BEA})).values()
        assert (contact.id, contact.email) == (first.id, ANN)
    assert len(await links.page(ContactId(0), 10)) == 1


@pytest.mark.parametrize("is_rejected", [False, True])
async def test_a_link_that_nobody_confirmed_follows_the_address(
    store: Store, links: ContactLinks, *, is_rejected: bool
) -> None:
    (first,) = (await links.link({CustomerId(5): ANN})).values()
    if is_rejected:
        await links.reject(first.id, Reason.AC_REJECTED)
    for again in (links, ContactLinks(store, 1)):
        (contact,) = (await again.link({CustomerId(5): BEA})).values()
        assert (contact.email, contact.status) == (BEA, ContactStatus.NEW)
    ((_, nobody, _), (_, customers, _)) = [
        (each.contact, each.customers, each.fingerprint) for each in await links.page(ContactId(0), 10)
    ]
    assert (nobody, customers) == ((), (5,))


async def test_sites_do_not_share_contacts(store: Store, links: ContactLinks) -> None:
    (mine,) = (await links.link({CustomerId(5): ANN})).values()
    (other,) = (await ContactLinks(store, 2).link({CustomerId(5): ANN})).values()
    assert mine.id != other.id
    assert [linked.contact.id for linked in await links.page(ContactId(0), 10)] == [mine.id]
    assert await ContactLinks(store, 2).contacts([mine.id]) == []


async def test_contacts_come_in_pages_by_id(links: ContactLinks) -> None:
    found = await links.link({CustomerId(n): Email(f"{n}@example.com") for n in (9, 5, 7)})
    ids = sorted(contact.id for contact in found.values())
    assert [linked.contact.id for linked in await links.page(ContactId(0), 2)] == ids[:2]
    assert [linked.contact.id for linked in await links.page(ids[1], 2)] == ids[2:]


async def test_who_holds_a_contact_sees_it_confirmed_and_rejected(store: Store, links: ContactLinks) -> None:
    found = await links.link({CustomerId(5): ANN, CustomerId(6): BEA})
    ann, bea = found[CustomerId(5)], found[CustomerId(6)]
    await links.confirm(ann.id, b"ann")
    await links.reject(bea.id, Reason.AC_REJECTED)
    assert (ann.status, ann.why) == (ContactStatus.LINKED, "")
    assert (bea.status, bea.why) == (ContactStatus.REJECTED, Reason.AC_REJECTED)
    stored = {linked.contact.email: linked for linked in await ContactLinks(store, 1).page(ContactId(0), 9)}
    assert stored[ANN].contact == ann
    assert stored[ANN].fingerprint == b"ann"
    assert stored[BEA].contact == bea
    await links.confirm(bea.id, b"bea")
    assert (bea.status, bea.why) == (ContactStatus.LINKED, "")
    (again,) = await ContactLinks(store, 1).contacts([bea.id])
    assert again.contact == bea


async def test_an_import_is_kept_until_it_is_closed(store: Store, links: ContactLinks) -> None:
    found = await links.link({CustomerId(5): ANN, CustomerId(6): BEA})
    ann, bea = found[CustomerId(5)], found[CustomerId(6)]
    first = OpenImport("i-1", {ann.id: b"ann", bea.id: b"bea"}, is_short=True)
    second = OpenImport("i-2", {bea.id: b"bea 2"}, is_short=False)
    await links.keep_import(first)
    await links.keep_import(second)
    again = ContactLinks(store, 1)
    assert await again.open_imports() == [first, second]
    assert await ContactLinks(store, 2).open_imports() == []
    await links.close_import(first, [ann.id])
    assert await again.open_imports() == [second]
    assert (ann.status, bea.status) == (ContactStatus.LINKED, ContactStatus.NEW)
    prints = {linked.contact.email: linked.fingerprint for linked in await again.contacts([ann.id, bea.id])}
    assert prints == {ANN: b"ann", BEA: None}
    await links.close_import(second, [])
    assert await again.open_imports() == []


async def test_an_import_is_closed_with_its_contacts_or_not_at_all(
    links: ContactLinks, look: asyncpg.Connection
) -> None:
    (ann,) = (await links.link({CustomerId(5): ANN})).values()
    started = OpenImport("i-1", {ann.id: b"ann"}, is_short=False)
    await links.keep_import(started)
    await look.execute("CREATE RULE kept AS ON DELETE TO kiva_stream.import DO ALSO SELECT 1 / 0")
    with pytest.raises(CheckpointError):
        await links.close_import(started, [ann.id])
    assert ann.status is ContactStatus.NEW
    assert await look.fetchval("SELECT status FROM kiva_stream.contact") == "new"


async def test_contacts_nobody_holds_are_let_go_beyond_the_bound(store: Store) -> None:
    links = ContactLinks(store, 1, cache_rows=3)
    await links.link({CustomerId(n): Email(f"{n}@example.com") for n in range(1, 10)})
    gc.collect()
    assert len(links._by_customer) == len(links._contacts) == 3
    kept = (await links.link({CustomerId(1): ANN}))[CustomerId(1)]
    for n in range(2, 10):
        await links.link({CustomerId(n): ANN})
    assert (await links.link({CustomerId(1): ANN}))[CustomerId(1)] is kept


async def test_the_customers_not_asked_for_the_longest_go_first(store: Store) -> None:
    links = ContactLinks(store, 1, cache_rows=2)
    for n in (1, 2, 1, 3):
        await links.link({CustomerId(n): ANN})
    assert list(links._by_customer) == [1, 3]


async def test_two_at_once_link_the_same_people_to_the_same_contacts(links: ContactLinks) -> None:
    people = {CustomerId(n): Email(f"{n % 40}@example.com") for n in range(100)}
    reverse = dict(reversed(people.items()))
    one, other = await asyncio.gather(links.link(people), links.link(reverse))
    assert all(one[customer] is other[customer] for customer in people)
    assert len(await links.page(ContactId(0), 1000)) == 40


# Status


async def test_status_is_what_was_committed(store: Store, ledger: SiteLedger, links: ContactLinks) -> None:
    found = await links.link({CustomerId(n): Email(f"{n}@example.com") for n in range(5)})
    await links.confirm(found[CustomerId(0)].id, b"0")
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


async def test_counting_contacts_again_replaces_the_counts(
    store: Store, ledger: SiteLedger, links: ContactLinks
) -> None:
    (ann,) = (await links.link({CustomerId(5): ANN})).values()
    await ledger.count_contacts()
    await links.reject(ann.id, Reason.AC_REJECTED)
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


async def test_status_is_read_beside_a_running_process_and_counts_nothing(
    store: Store, ledger: SiteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    fetch = asyncpg.Pool.fetch

    async def noted(self: asyncpg.Pool, query: str, *args: object) -> list[asyncpg.Record]:
        asked.append(query)
        return await fetch(self, query, *args)  # type: ignore[no-any-return]

    monkeypatch.setattr(asyncpg.Pool, "fetch", noted)
    assert await read_status(store, 1)
    queries = sql.load("kiva_stream.state", "queries.sql", "kiva_stream")
    assert asked == [queries["site"], queries["tallies"]]
    assert not any("count(" in query.lower() for query in asked)
