"""Contacts whose week tag is due, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import date

import asyncpg
import pytest

from kiva_stream.errors import CheckpointError
from kiva_stream.model.ids import AcId, ContactId, CustomerId, Email
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.state.ledger import SiteLedger
from kiva_stream.state.links import ContactLinks
from kiva_stream.state.store import Store
from kiva_stream.state.tags import DueTags
from tests.support.state_schema import START, commit_of, until

FIRST = ContactId(0)
MONDAY = date(2018, 3, 5)


@pytest.fixture
async def three(store: Store, ledger: SiteLedger) -> list[ContactId]:
    """Three linked contacts of site 1, none of them due; a new and a rejected one are there besides."""
    links = ContactLinks(store, 1)
    found = await links.link({CustomerId(n): Email(f"{n}@example.com") for n in range(5)})
    *linked, refused, _ = sorted(contact.id for contact in found.values())
    for contact in linked:
        await links.record_confirmed(contact, b"print", AcId(contact + 100), unsubscribed=False)
    await links.record_rejected(refused, Reason.AC_REJECTED)
    due = DueTags(store, 1)
    await due.clear_due(await due.page(FIRST, 10))
    return linked


@pytest.fixture
def due(store: Store) -> DueTags:
    return DueTags(store, 1)


async def due_now(due: DueTags) -> list[ContactId]:
    return [each.record.contact.id for each in await due.page(FIRST, 100)]


async def test_before_the_first_week_there_is_none(store: Store, ledger: SiteLedger, due: DueTags) -> None:
    assert await due.week() is None
    assert await DueTags(store, 9).week() is None  # nothing was written of that site


async def test_a_new_week_makes_every_linked_contact_due(due: DueTags, three: list[ContactId]) -> None:
    assert await due_now(due) == []
    await due.begin_week(MONDAY)
    assert await due.week() == MONDAY
    assert await due_now(due) == three


async def test_a_week_opens_with_its_contacts_due_or_not_at_all(
    due: DueTags, three: list[ContactId], look: asyncpg.Connection
) -> None:
    await look.execute(f"ALTER TABLE kiva_stream.tag_due ADD CHECK (contact_id <> {three[1]})")
    with pytest.raises(CheckpointError):
        await due.begin_week(MONDAY)
    assert await due.week() is None
    assert await due_now(due) == []


async def test_all_may_be_looked_at_in_the_same_week(due: DueTags, three: list[ContactId]) -> None:
    await due.mark_due(three[:1])
    await due.mark_all_due()
    assert await due_now(due) == three
    assert await due.week() is None


async def test_only_linked_contacts_of_the_site_are_due(
    store: Store, due: DueTags, three: list[ContactId], ledger: SiteLedger
) -> None:
    everybody = [linked.contact.id for linked in await ContactLinks(store, 1).page(FIRST, 10)]
    await DueTags(store, 2).mark_due(everybody)
    await DueTags(store, 2).mark_all_due()
    assert await due_now(due) == await due_now(DueTags(store, 2)) == []
    await due.mark_due(everybody)
    assert await due_now(due) == three
    await due.clear_due(await due.page(FIRST, 10))
    await ledger.commit(commit_of(START)._replace(tags_due=frozenset(everybody)))
    assert await due_now(due) == three
    assert await DueTags(store, 2).page(FIRST, 10) == []


async def test_due_contacts_come_in_pages_with_all_that_is_known_of_them(
    store: Store, due: DueTags, three: list[ContactId]
) -> None:
    await due.mark_due(three)
    await due.record_tag(three[0], ac_id=AcId(7), tag=WeekTag.CLOSED, link=77)
    (first, second), (third,) = await due.page(FIRST, 2), await due.page(three[1], 2)
    rows = await ContactLinks(store, 1).records(three)
    assert [each.record for each in (first, second, third)] == sorted(rows, key=lambda row: row.contact.id)
    assert (first.record.ac_id, first.record.tag, first.record.tag_link) == (7, WeekTag.CLOSED, 77)
    assert (second.record.ac_id, second.record.tag, second.record.tag_link) == (three[1] + 100, None, None)


async def test_a_cleared_contact_is_not_due_until_it_is_marked_again(
    due: DueTags, three: list[ContactId]
) -> None:
    await due.mark_due(three)
    first, second, _ = await due.page(FIRST, 10)
    await due.clear_due([first, second])
    assert await due_now(due) == three[2:]
    await due.clear_due([])
    await due.mark_due(three[:1])
    assert await due_now(due) == [three[0], three[2]]


async def test_a_contact_marked_due_again_before_it_is_cleared_stays_due(
    due: DueTags, three: list[ContactId], ledger: SiteLedger
) -> None:
    becoming_due: list[Callable[[], Awaitable[None]]] = [
        lambda: due.mark_due(three[:1]),
        due.mark_all_due,
        lambda: due.begin_week(MONDAY),
        lambda: ledger.commit(commit_of(START)._replace(tags_due=frozenset(three[:1]))),
    ]
    for again in becoming_due:
        await due.mark_due(three[:1])
        (seen,) = await due.page(FIRST, 1)
        await again()
        await due.clear_due([seen])
        assert three[0] in await due_now(due)
        await due.clear_due(await due.page(FIRST, 10))
    assert await due_now(due) == []


async def test_a_contact_marked_due_again_while_it_is_cleared_stays_due(
    due: DueTags, three: list[ContactId], look: asyncpg.Connection
) -> None:
    """The other one's transaction is open while it is settled, and commits then."""
    await due.mark_due(three)
    seen = await due.page(FIRST, 10)
    transaction = look.transaction()
    await transaction.start()
    await look.execute(
        "UPDATE kiva_stream.tag_due SET mark = DEFAULT WHERE contact_id = $1", seen[1].record.contact.id
    )
    settling = asyncio.create_task(due.clear_due(seen))
    await until(
        lambda: look.fetchval(
            "SELECT count(*) > 0 FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    )
    assert not settling.done()
    await transaction.commit()
    await settling
    assert await due_now(due) == [three[1]]


async def test_many_contacts_are_marked_and_cleared_at_once_without_a_deadlock(
    store: Store, due: DueTags, three: list[ContactId], ledger: SiteLedger
) -> None:
    backwards = list(reversed(three))

    async def settle() -> None:
        await due.clear_due(list(reversed(await due.page(FIRST, 10))))

    for _ in range(30):
        await asyncio.gather(
            due.mark_due(three),
            due.mark_due(backwards),
            settle(),
            ledger.commit(commit_of(START)._replace(tags_due=frozenset(three))),
        )
    await due.clear_due(await due.page(FIRST, 10))
    assert await due_now(due) == []


async def test_a_tag_that_is_forgotten_is_not_known_any_more(
    store: Store, due: DueTags, three: list[ContactId]
) -> None:
    for contact in three:
        await due.record_tag(contact, ac_id=AcId(7), tag=WeekTag.OPEN, link=contact + 50)
    await due.record_tags_unknown(three[:2])
    rows = await ContactLinks(store, 1).records(three)
    assert {row.contact.id: (row.ac_id, row.tag, row.tag_link) for row in rows} == {
        three[0]: (7, None, None),
        three[1]: (7, None, None),
        three[2]: (7, WeekTag.OPEN, three[2] + 50),
    }
