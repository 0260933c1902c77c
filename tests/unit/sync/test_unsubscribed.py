"""A contact that has unsubscribed stays unsubscribed, whatever happens to its customers.

Each test plays the life of a few customers, in one process after the other, some of them struck down.
"""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiva_stream.model.bulk_imports import ImportReport, ImportState
from kiva_stream.model.contacts import ContactStatus, DesiredContact, ListStatus
from kiva_stream.model.customers import CustomerAccount
from kiva_stream.model.week_tags import WeekTag
from tests.fakes.destination_contacts import FakeContacts
from tests.support.entries import account, customer, position
from tests.support.virtual_time import run
from tests.unit.sync.lives import (
    ADDRESSES,
    ANN,
    ANNS,
    BOB,
    CARL,
    FRESH,
    GHOST,
    LINES,
    NOBODY,
    STRANGER,
    TWIN,
    Happens,
    Life,
    Passes,
    Run,
    Step,
    Trouble,
)

# Whatever happens

WHO = st.sampled_from([1, 1, 1, 2, 3, 4, 4, 5])
SOME = st.frozensets(st.sampled_from(ADDRESSES), max_size=2)
WILL = st.sampled_from(["opts out", "opts in", "is blacklisted", "is blacklisted no more", "leaves"])
EDIT = st.sampled_from(["gets a phone", "loses the address", "is erased", *ADDRESSES])
HAPPENS = st.one_of(
    st.builds(Happens, WHO, WILL | EDIT, st.sampled_from(["", *LINES])),
    st.builds(Happens, WHO, WILL, st.sampled_from(["", "something", "unsubscribed", "re-subscribed"])),
    st.builds(Happens, WHO, st.just("opts in"), st.sampled_from(["", *LINES])),
)
STRUCK = st.one_of(
    st.none(),
    st.tuples(st.just("call"), st.integers(1, 8)),
    st.tuples(st.just("turn"), st.integers(0, 300)),
)
RUN = st.builds(
    Run,
    st.sampled_from(["backfill", "follow", "follow", "sync"]),
    st.lists(HAPPENS, max_size=3).map(tuple),
    STRUCK,
    WHO,
)
STATES = st.lists(st.sampled_from([ImportState.RUNNING, ImportState.LOST]), max_size=3).map(tuple)
CIRCUMSTANCES = st.one_of(
    st.just(Trouble()),
    st.builds(Trouble, SOME, SOME, SOME, SOME, STATES, st.booleans()),
    st.builds(Passes, st.sampled_from([0, 1, 23, 24]), st.booleans()),
)
ROUND = st.tuples(CIRCUMSTANCES, st.lists(HAPPENS, max_size=3), RUN)


@settings(max_examples=150, derandomize=True)
@given(st.lists(ROUND, max_size=8), st.integers(1, 3), st.sampled_from([2, 10]))
def test_whatever_happens_an_unsubscribed_contact_is_resubscribed_only_by_a_young_entry_all_agree_to(
    rounds: list[tuple[Step, list[Happens], Run]], page_rows: int, import_min_contacts: int
) -> None:
    async def story() -> None:
        life = Life(page_rows=page_rows, import_min_contacts=import_min_contacts)
        for circumstances, happenings, process in rounds:
            await life.play(circumstances, *happenings, process)
        await life.come_to_rest()

    run(story())


# Each way


BACKFILL, FOLLOW, SYNC = Run("backfill"), Run("follow"), Run("sync")


async def left(*others: CustomerAccount) -> Life:
    """Return a life in which Ann was brought and then unsubscribed at ActiveCampaign, on her own."""
    life = Life(account(ANN), *others)
    await life.play(BACKFILL, Happens(1, "leaves"))
    assert life.is_on_list() is False
    return life


async def test_at_activecampaign_an_import_subscribes_all_contacts_but_unsubscribed_ones() -> None:
    there = FakeContacts()
    there.add(GHOST)
    there.at(GHOST).is_on_list = False
    rows = [
        DesiredContact(email, "Ann", "1", "", "1", ListStatus.SUBSCRIBE) for email in (GHOST, STRANGER, FRESH)
    ]
    there.add(STRANGER)
    started = await there.start_import(rows, exclude_automations=True)
    report = await there.import_report(started.id)
    assert report == ImportReport(ImportState.COMPLETED, frozenset({GHOST}))
    assert [there.at(email).is_on_list for email in (GHOST, STRANGER, FRESH)] == [False, True, True]
    assert there.at(GHOST).shown is None


async def test_only_the_import_that_creates_a_contact_subscribes_it_and_no_later_one() -> None:
    life = Life(account(ANN), account(BOB), import_min_contacts=1)
    await life.play(
        BACKFILL, Happens(1, "gets a phone"), BACKFILL, Happens(1, "gets a phone", "edited"), FOLLOW
    )
    sent = [
        row.list_status for rows in life.account.imports.values() for row in rows if row.email == ANN.email
    ]
    assert sent == [ListStatus.SUBSCRIBE, ListStatus.KEEP, ListStatus.KEEP]
    assert life.is_on_list()


async def test_an_address_that_is_there_already_is_subscribed_unless_it_unsubscribed_there() -> None:
    life = Life(account(customer(1, email=STRANGER)), account(customer(2, email=GHOST)))
    await life.play(BACKFILL)
    assert (life.is_on_list(1), life.is_on_list(2)) == (True, False)


@pytest.mark.parametrize("process", [BACKFILL, FOLLOW, SYNC], ids=lambda process: process.kind)
async def test_a_customer_who_opts_out_is_unsubscribed_and_opting_in_alone_does_not_resubscribe(
    process: Run,
) -> None:
    life = Life(account(ANN), account(BOB))
    await life.play(BACKFILL, Happens(1, "opts out", "unsubscribed"), process)
    assert life.is_on_list() is False
    await life.play(Happens(1, "opts in", "something"), process, Happens(1, "gets a phone"), process)
    assert life.is_on_list() is False
    assert life.is_on_list(2)


async def test_a_blacklisted_customer_stays_off_whatever_the_log_says_and_when_it_is_lifted() -> None:
    life = Life(account(ANN))
    await life.play(BACKFILL, Happens(1, "is blacklisted", "re-subscribed"), FOLLOW)
    assert life.is_on_list() is False
    await life.play(Happens(1, "is blacklisted no more"), FOLLOW)
    assert life.is_on_list() is False
    assert life.account.list_calls == [(ANNS, False)]


async def test_a_sync_of_one_customer_leaves_a_contact_unsubscribed_that_unsubscribed_itself() -> None:
    life = await left()
    await life.play(Happens(1, "gets a phone", "re-subscribed"), SYNC)
    assert life.account.synced == [ANNS]
    assert life.is_on_list() is False


@pytest.mark.parametrize("import_min_contacts", [1, 10], ids=["by an import", "alone"])
async def test_a_backfill_resubscribes_no_contact_however_young_the_entry(import_min_contacts: int) -> None:
    life = Life(account(ANN), import_min_contacts=import_min_contacts)
    await life.play(BACKFILL, Happens(1, "leaves"))
    await life.play(Happens(1, "gets a phone", "re-subscribed"), BACKFILL)
    assert life.events.places() == [1]
    shown = life.account.at(ANNS).shown
    assert shown
    assert shown.phone == "1"
    assert life.is_on_list() is False


async def test_a_new_week_changes_tags_and_resubscribes_no_contact() -> None:
    life = await left()
    before = dict(life.account.at(ANNS).tags)
    await life.play(Passes(0, new_week=True), FOLLOW)
    assert list(life.account.at(ANNS).tags) == [WeekTag.OPEN] != list(before)
    assert life.is_on_list() is False
    assert life.account.list_calls == []


@pytest.mark.parametrize(
    ("says", "comes_back"),
    [
        ("re-subscribed", True),
        ("re-subscribed a moment less than a day ago", True),
        ("re-subscribed a day ago", False),
        ("something", False),
    ],
)
async def test_following_resubscribes_by_an_entry_younger_than_a_day(says: str, *, comes_back: bool) -> None:
    life = await left()
    await life.play(Happens(1, says=says), FOLLOW)
    assert life.is_on_list() is comes_back


async def test_an_entry_resubscribes_once_and_a_later_unsubscription_stays() -> None:
    life = await left()
    await life.play(Happens(1, says="re-subscribed"), FOLLOW, Happens(1, "leaves"), FOLLOW, BACKFILL, SYNC)
    assert life.account.list_calls == [(ANNS, True)]
    assert life.is_on_list() is False


async def test_of_an_unsubscription_after_a_re_subscription_the_row_of_now_decides() -> None:
    life = await left()
    await life.play(Happens(1, "opts in", "re-subscribed"), Happens(1, "opts out", "unsubscribed"), FOLLOW)
    assert life.account.list_calls == [(ANNS, False)]
    await life.play(Happens(1, "opts out", "unsubscribed"), Happens(1, "opts in", "re-subscribed"), FOLLOW)
    assert life.is_on_list()


async def test_a_resubscribed_customer_who_opts_out_is_unsubscribed_again() -> None:
    life = Life(account(ANN, email_opt_in=False))
    await life.play(BACKFILL, Happens(1, "opts in", "re-subscribed"), FOLLOW)
    assert life.is_on_list()
    await life.play(Happens(1, "opts out", "unsubscribed"), FOLLOW)
    assert life.is_on_list() is False
    assert life.account.list_calls == [(ANNS, True), (ANNS, False)]


@pytest.mark.parametrize("objection", ["opts out", "is blacklisted"])
async def test_a_contact_is_not_resubscribed_while_another_account_of_the_address_objects(
    objection: str,
) -> None:
    life = Life(account(ANN), account(TWIN))
    await life.play(BACKFILL, Happens(4, objection), FOLLOW, Happens(1, "opts in", "re-subscribed"), FOLLOW)
    assert life.account.list_calls == [(ANNS, False)]
    assert life.is_on_list() is False


async def test_an_opted_out_customer_who_joins_a_contact_unsubscribes_it_beyond_their_leaving() -> None:
    life = Life(account(ANN), account(BOB, email_opt_in=False))
    await life.play(BACKFILL, Happens(2, ANNS, "edited"), FOLLOW)
    assert life.is_on_list() is False
    await life.play(Happens(2, FRESH, "edited"), FOLLOW)
    assert (life.is_on_list(1), life.is_on_list(2)) == (False, False)


async def test_a_contact_that_gets_another_address_stays_off_with_it() -> None:
    life = await left()
    await life.play(Happens(1, FRESH, "edited"), FOLLOW)
    assert life.account.renamed == [(ANNS, FRESH)]
    assert life.account.at(FRESH).is_on_list is False


async def test_an_address_that_unsubscribed_at_activecampaign_is_adopted_as_it_is() -> None:
    life = Life(account(ANN))
    await life.play(BACKFILL, Happens(1, GHOST, "edited"), FOLLOW, BACKFILL, SYNC)
    assert life.links.status_of(ANN) == (ContactStatus.LINKED, "")
    assert life.account.at(GHOST).customer_id == "1"
    assert life.is_on_list() is False


@pytest.mark.parametrize(("hours", "process"), [(24, FOLLOW), (0, BACKFILL)], ids=["old", "of a backfill"])
async def test_an_entry_that_is_replayed_when_an_address_appears_resubscribes_no_contact(
    hours: int, process: Run
) -> None:
    life = Life(account(NOBODY))
    await life.play(Happens(5, says="re-subscribed"), FOLLOW, Passes(hours))
    assert life.ledger.dead == {position(1): "no_email"}
    await life.play(Happens(5, GHOST, "something"), process)
    assert life.ledger.superseded == [position(1)]
    assert life.events.places(GHOST) == [1, 2]
    assert life.is_on_list(5) is False


async def test_a_contact_that_fails_in_an_import_is_sent_alone_and_put_on_the_list_by_a_later_import() -> (
    None
):
    life = Life(account(ANN), import_min_contacts=1)
    await life.play(Trouble(failing=frozenset({ANNS})), BACKFILL)
    assert life.account.synced == [ANNS]
    assert life.is_on_list() is None
    await life.play(Trouble(), Happens(1, "gets a phone"), BACKFILL, FOLLOW)
    assert life.account.synced == [ANNS]
    assert life.account.list_calls == []
    assert life.is_on_list()


async def test_an_opted_out_contact_that_fails_in_an_import_is_unsubscribed_alone() -> None:
    life = Life(account(ANN, email_opt_in=False))
    await life.play(Trouble(failing=frozenset({ANNS})), BACKFILL)
    assert life.account.calls == [f"sync {ANNS}", f"unsubscribe {ANNS}"]


async def test_the_contact_of_an_erased_customer_is_unsubscribed() -> None:
    life = Life(account(ANN), account(BOB))
    await life.play(BACKFILL, Happens(1, "is erased"), BACKFILL)
    await life.play(Run("follow", (Happens(2, "is erased"),)))
    assert (life.is_on_list(1), life.is_on_list(2)) == (False, False)


@pytest.mark.parametrize("kind", ["backfill", "follow", "sync"])
@pytest.mark.parametrize(("what", "times"), [("call", 10), ("turn", 60)])
def test_after_a_crash_at_any_moment_the_next_process_resubscribes_no_contact_that_left(
    kind: Literal["backfill", "follow", "sync"], what: Literal["call", "turn"], times: int
) -> None:
    async def story(after: int) -> None:
        life = Life(account(ANN), account(BOB), account(CARL, email_opt_in=False))
        struck = Run(kind, struck=(what, after))
        await life.play(
            struck, BACKFILL, Happens(1, "leaves"), Happens(2, "opts out", "unsubscribed"), struck
        )
        await life.play(Happens(1, "gets a phone", "edited"), struck, BACKFILL)
        assert [life.is_on_list(who) for who in (1, 2, 3)] == [False] * 3

    for after in range(1, times):
        run(story(after))


async def test_an_opt_out_after_a_crash_during_a_resubscription_unsubscribes() -> None:
    life = await struck_down_as_it_brought_her_back()
    await life.play(Happens(1, "opts out", "unsubscribed"), FOLLOW)
    assert life.is_on_list() is False


async def test_an_erasure_after_a_crash_during_a_resubscription_unsubscribes() -> None:
    life = await struck_down_as_it_brought_her_back()
    await life.play(Happens(1, "is erased"), FOLLOW)
    assert life.is_on_list() is False


async def struck_down_as_it_brought_her_back() -> Life:
    """Return a life in which Ann is back on the list, and nobody noted it."""
    life = Life(account(ANN, email_opt_in=False))
    await life.play(BACKFILL, Happens(1, "opts in", "re-subscribed"), Run("follow", struck=("call", 2)))
    assert life.is_on_list()
    return life


async def test_a_customer_who_opts_out_during_the_upsert_is_not_resubscribed() -> None:
    life = await left()
    life.order_delivery.on_upsert = lambda: life.change(Happens(1, "opts out"))
    await life.play(Run("follow", (Happens(1, says="re-subscribed"), Happens(1, says="edited"))))
    assert life.shop.rows[ANN.id].email_opt_in is False
    assert (ANNS, True) not in life.account.list_calls


async def test_an_opt_out_that_an_import_left_out_without_a_word_is_sent_all_the_same() -> None:
    life = Life(account(ANN), import_min_contacts=1)
    await life.play(BACKFILL, Happens(1, "opts out"), Trouble(excluded=frozenset({ANNS})), BACKFILL)
    await life.play(Trouble(), BACKFILL, FOLLOW)
    assert life.is_on_list() is False


async def test_a_sync_before_any_backfill_counts_other_accounts_of_the_same_address() -> None:
    life = Life(account(ANN), account(TWIN, email_opt_in=False))
    await life.play(SYNC)
    assert life.is_on_list() is False


async def test_a_customer_who_opts_in_during_the_upsert_and_out_again_later_is_unsubscribed() -> None:
    life = Life(account(ANN, email_opt_in=False))
    life.order_delivery.on_upsert = lambda: life.change(Happens(1, "opts in"))
    await life.play(BACKFILL, Run("follow", (Happens(1, says="re-subscribed"), Happens(1, says="edited"))))
    assert life.account.list_calls == [(ANNS, True)]
    await life.play(Happens(1, "opts out", "unsubscribed"), FOLLOW, BACKFILL)
    assert life.is_on_list() is False
