"""Held records in reports, and the sentence about what a backfill leaves parked."""

from __future__ import annotations

from datetime import datetime

from kiva_stream.commands.held import held_rows, left_sentence
from kiva_stream.model.held_records import HeldKey, HeldKind
from kiva_stream.model.ids import CustomerId
from kiva_stream.state.held_records import ListedHeld
from tests.support.entries import moment

SOON = moment(600)


def listed(kind: HeldKind, *customers: int, parked: int = 3, next_try: datetime | None = SOON) -> ListedHeld:
    key = HeldKey(kind, 9)
    whose = [CustomerId(each) for each in customers]
    return ListedHeld(
        key,
        customers=whose,
        since=moment(0),
        attempts=2,
        next_try=next_try,
        reply="HTTP 500",
        parked=parked,
    )


def test_an_order_is_named_by_its_place_and_what_a_contact_has_by_its_kind() -> None:
    rows = held_rows([listed(HeldKind.ORDER, 17, 18), listed(HeldKind.LIST, 19)])
    assert [(row.what, row.customers) for row in rows] == [("order:9", ["17", "18"]), ("list", ["19"])]


TRIES = "`follow`, or `backfill` again, tries them."


def test_a_backfill_says_what_it_leaves_parked_of_whom_and_why() -> None:
    assert left_sentence([], 0) is None
    assert left_sentence([listed(HeldKind.ORDER, 17)], 3) == (
        "3 entries of 1 customer are parked: ActiveCampaign does not take order:9 of customer 17 "
        f"(HTTP 500); {TRIES}"
    )
    assert left_sentence([], 1) == f"1 entry is parked; {TRIES}"


def test_a_backfill_that_leaves_no_entry_parked_says_what_is_held() -> None:
    held = [listed(HeldKind.TAG, 17, parked=0), listed(HeldKind.CONTACT, 18, parked=0)]
    assert left_sentence(held, 0) == (
        "ActiveCampaign does not take the week tag of customer 17 (HTTP 500), and 1 more; no entry waits for "
        f"that; {TRIES}"
    )


def test_entries_of_one_contact_count_once_and_those_of_nothing_held_apart() -> None:
    held = [listed(HeldKind.CONTACT, 17), listed(HeldKind.LIST, 17), listed(HeldKind.EVENT, 18, parked=1)]
    assert left_sentence(held, 1_006) == (
        "4 entries of 2 customers are parked: ActiveCampaign does not take the contact of customer 17 "
        f"(HTTP 500), and 2 more; 1,002 entries are parked for other reasons; {TRIES}"
    )


def test_what_only_a_replay_tries_is_said_so() -> None:
    in_doubt = listed(HeldKind.EVENT, 17, next_try=None)
    said = left_sentence([in_doubt], 3)
    assert said is not None
    assert said.endswith("(HTTP 500); `dead-letters replay` tries again.")
    said = left_sentence([listed(HeldKind.EVENT, 18), in_doubt], 6)
    assert said is not None
    assert said.endswith("tries them, but for 1 that only `dead-letters replay` tries.")
