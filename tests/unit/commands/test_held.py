"""Held records in reports, and the sentence about what a backfill leaves parked."""

from __future__ import annotations

from kiva_stream.commands.held import held_rows, left_sentence
from kiva_stream.model.held_records import HeldKey, HeldKind
from kiva_stream.model.ids import CustomerId
from kiva_stream.state.held_records import ListedHeld
from tests.support.entries import moment


def listed(kind: HeldKind, *customers: int, parked: int = 3) -> ListedHeld:
    key = HeldKey(kind, 9)
    whose = [CustomerId(each) for each in customers]
    return ListedHeld(
        key,
        customers=whose,
        since=moment(0),
        attempts=2,
        next_try=None,
        reply="HTTP 500",
        parked=parked,
    )


def test_an_order_is_named_by_its_place_and_what_a_contact_has_by_its_kind() -> None:
    rows = held_rows([listed(HeldKind.ORDER, 17, 18), listed(HeldKind.LIST, 19)])
    assert [(row.what, row.customers) for row in rows] == [("order:9", ["17", "18"]), ("list", ["19"])]


def test_a_backfill_says_what_it_leaves_parked_of_whom_and_why() -> None:
    assert left_sentence([], 0) is None
    assert left_sentence([listed(HeldKind.ORDER, 17)], 3) == (
        "3 entries of 1 customer are parked: ActiveCampaign does not take order:9 of customer 17 "
        "(HTTP 500); `follow`, or `backfill` again, tries them."
    )
    assert left_sentence([listed(HeldKind.CONTACT), listed(HeldKind.CONTACT)], 0) == (
        "0 entries are parked: ActiveCampaign does not take contact (HTTP 500), and 1 more; "
        "`follow`, or `backfill` again, tries them."
    )
    assert left_sentence([], 1) == "1 entry is parked; `follow`, or `backfill` again, tries them."
