from __future__ import annotations

import msgspec
import pytest

from kiva_stream.sandbox.generator.commits import Commits
from kiva_stream.sandbox.generator.expected_entries import REMEMBERED, ExpectedOutcomes, eventdata
from kiva_stream.sandbox.generator.history import History
from kiva_stream.sandbox.generator.population import NO_CUSTOMER, Address, CustomerAccount
from kiva_stream.sandbox.generator.rows import Row

NOON_MS = 1_775_000_000_000  # 2026-03-31T23:33:20Z


@pytest.fixture(scope="module")
def template() -> Row:
    """A structured substitution of a plain customer."""
    found = Commits(1).transactions(row for week in History(20_000, 1).weeks() for row in week)
    row = next(
        row
        for entries in found
        for _, row in entries
        if row.kind.key == 8 and row.action and row.customer.plain
    )
    return msgspec.structs.replace(
        row, occurred_ms=NOON_MS, inserted_ms=NOON_MS, staff=None, actor="customer"
    )


def a_customer(anomaly: str = "", key: str | None = "ann@example.com") -> CustomerAccount:
    return CustomerAccount(1, "Ann", "Lee", Address(key, key), "individual", 0, 0, anomaly=anomaly)


def outcome_of(row: Row, **changes: object) -> tuple[str, str | None]:
    entry = ExpectedOutcomes().expect(7, msgspec.structs.replace(row, **changes))
    return entry.outcome, entry.why


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"customer": a_customer()}, ("delivered", None)),
        ({"customer": a_customer(), "sort": "sync_only"}, ("synced", None)),
        ({"customer": a_customer(), "sort": "noise"}, ("skipped", "noise")),
        ({"customer": a_customer("erased")}, ("skipped", "erased")),
        ({"customer": a_customer("deleted"), "sort": "sync_only"}, ("skipped", "erased")),
        ({"customer": a_customer("test")}, ("skipped", "test")),
        ({"customer": a_customer("missing", None)}, ("dead", "no_email")),
        ({"customer": a_customer("invalid", None), "sort": "sync_only"}, ("dead", "no_email")),
        ({"customer": a_customer("erased"), "reason": "wrong_site"}, ("dead", "wrong_site")),
        ({"customer": NO_CUSTOMER, "reason": "no_customer"}, ("dead", "no_customer")),
        ({"customer": NO_CUSTOMER, "reason": "no_account"}, ("skipped", "no_account")),
    ],
)
def test_an_outcome_follows_from_the_customer_of_the_entry(
    template: Row, changes: dict[str, object], outcome: tuple[str, str | None]
) -> None:
    assert outcome_of(template, **changes) == outcome


def test_a_staff_login_as_a_customer_is_skipped_and_other_staff_events_are_delivered(template: Row) -> None:
    log_in = template.kind._replace(key=5)
    assert outcome_of(template, staff="wayne", kind=log_in) == ("skipped", "staff_login")
    assert outcome_of(template, staff="wayne") == ("delivered", None)
    assert outcome_of(template, staff="wayne", kind=log_in, customer=a_customer("test")) == (
        "skipped",
        "test",
    )
    assert outcome_of(template, staff="wayne", kind=log_in, customer=a_customer("missing", None)) == (
        "skipped",
        "staff_login",
    )


@pytest.mark.parametrize(("later_ms", "why"), [(2_000, "duplicate"), (-2_000, "duplicate"), (2_001, None)])
def test_the_same_content_within_two_seconds_of_an_earlier_position_is_a_duplicate(
    template: Row, later_ms: int, why: str | None
) -> None:
    outcomes = ExpectedOutcomes()
    outcomes.expect(1, template)
    again = msgspec.structs.replace(template, inserted_ms=template.inserted_ms + later_ms)
    assert outcomes.expect(2, again).why == why


def test_a_late_entry_is_compared_with_all_before_it_and_not_with_the_last_alone(template: Row) -> None:
    outcomes = ExpectedOutcomes()
    for later_ms, why in ((0, None), (36_000, None), (1_000, "duplicate")):
        row = msgspec.structs.replace(template, inserted_ms=template.inserted_ms + later_ms)
        assert outcomes.expect(1, row).why == why


def test_an_entry_from_before_the_remembered_ones_is_not_compared(template: Row) -> None:
    noise = msgspec.structs.replace(template, sort="noise")
    for between, why in ((REMEMBERED - 1, "duplicate"), (REMEMBERED, None)):
        outcomes = ExpectedOutcomes()
        outcomes.expect(1, template)
        for _ in range(between):
            outcomes.expect(2, noise)
        assert outcomes.expect(3, template).why == why


def test_another_customer_message_or_data_is_no_duplicate(template: Row) -> None:
    outcomes = ExpectedOutcomes()
    outcomes.expect(1, template)
    for change in ({"customer": a_customer()}, {"message": "other"}, {"data": "{}"}, {"action": None}):
        assert outcomes.expect(2, msgspec.structs.replace(template, **change)).why is None


@pytest.mark.parametrize(
    ("changes", "tail"),
    [
        ({}, "at=2026-03-31T23:33:20Z; log=7"),
        ({"occurred_ms": NOON_MS + 999}, "at=2026-03-31T23:33:20Z; log=7"),
        ({"occurred_ms": NOON_MS + 300_000}, "at=2026-03-31T23:38:20Z; log=7"),
        ({"occurred_ms": NOON_MS + 300_001}, "at=2026-03-31T23:33:20Z; log=7"),
        ({"occurred_ms": 0}, "at=2026-03-31T23:33:20Z; log=7"),
        ({"staff": "wayne"}, "by=admin; at=2026-03-31T23:33:20Z; log=7"),
        ({"action": "customer.cancel"}, "by=customer; at=2026-03-31T23:33:20Z; log=7"),
        ({"action": "customer.cancel.auto"}, "by=auto; at=2026-03-31T23:33:20Z; log=7"),
        ({"action": "customer.cancel", "staff": "joy"}, "by=admin; at=2026-03-31T23:33:20Z; log=7"),
    ],
)
def test_eventdata_ends_with_actor_time_and_entry(
    template: Row, changes: dict[str, object], tail: str
) -> None:
    assert eventdata(msgspec.structs.replace(template, pairs="", **changes), 7) == tail
    whole = msgspec.structs.replace(template, pairs="order=1; ", **changes)
    assert eventdata(whole, 7) == f"order=1; {tail}"


def test_a_pair_that_does_not_fit_is_left_out_and_the_others_stay(template: Row) -> None:
    long = "\N{LATIN SMALL LETTER E WITH ACUTE}" * 120
    pairs = f"a=1; b={long}; c=3; "
    assert eventdata(msgspec.structs.replace(template, pairs=pairs), 7).startswith("a=1; c=3; at=")
    fits = "x" * (250 - len("b=; at=2026-03-31T23:33:20Z; log=7"))
    whole = eventdata(msgspec.structs.replace(template, pairs=f"b={fits}; "), 7)
    assert len(whole) == 250
    assert eventdata(msgspec.structs.replace(template, pairs=f"b={fits}x; "), 7).startswith("at=")
