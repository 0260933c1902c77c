from __future__ import annotations

import msgspec
import pytest

from kiva_stream.sandbox.generator.commits import Commits
from kiva_stream.sandbox.generator.history import History
from kiva_stream.sandbox.generator.population import NO_CUSTOMER, CustomerAccount, Address
from kiva_stream.sandbox.generator.rows import Row
from kiva_stream.sandbox.generator.truth import REMEMBERED, ExpectedOutcomes, eventdata

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


def judge(row: Row, **changes: object) -> tuple[str, str | None]:
    verdict = ExpectedOutcomes().judge(7, msgspec.structs.replace(row, **changes))
    return verdict.outcome, verdict.why


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
def test_an_outcome_follows_from_whose_entry_it_is(
    template: Row, changes: dict[str, object], outcome: tuple[str, str | None]
) -> None:
    assert judge(template, **changes) == outcome


def test_staff_logging_in_as_a_customer_is_no_event_and_their_other_deeds_are(template: Row) -> None:
    log_in = template.kind._replace(key=5)
    assert judge(template, staff="wayne", kind=log_in) == ("skipped", "staff_login")
    assert judge(template, staff="wayne") == ("delivered", None)
    assert judge(template, staff="wayne", kind=log_in, customer=a_customer("test")) == ("skipped", "test")
    assert judge(template, staff="wayne", kind=log_in, customer=a_customer("missing", None)) == (
        "skipped",
        "staff_login",
    )


@pytest.mark.parametrize(("later_ms", "why"), [(2_000, "duplicate"), (-2_000, "duplicate"), (2_001, None)])
def test_the_same_within_two_seconds_of_an_earlier_position_is_a_duplicate(
    template: Row, later_ms: int, why: str | None
) -> None:
    judges = ExpectedOutcomes()
    judges.judge(1, template)
    again = msgspec.structs.replace(template, inserted_ms=template.inserted_ms + later_ms)
    assert judges.judge(2, again).why == why


def test_a_late_entry_is_compared_with_all_before_it_and_not_with_the_last_alone(template: Row) -> None:
    judges = ExpectedOutcomes()
    for later_ms, why in ((0, None), (36_000, None), (1_000, "duplicate")):
        row = msgspec.structs.replace(template, inserted_ms=template.inserted_ms + later_ms)
        assert judges.judge(1, row).why == why


def test_what_lies_more_than_the_window_before_is_not_compared(template: Row) -> None:
    noise = msgspec.structs.replace(template, sort="noise")
    for between, why in ((REMEMBERED - 1, "duplicate"), (REMEMBERED, None)):
        judges = ExpectedOutcomes()
        judges.judge(1, template)
        for _ in range(between):
            judges.judge(2, noise)
        assert judges.judge(3, template).why == why


def test_another_customer_message_or_data_is_no_duplicate(template: Row) -> None:
    judges = ExpectedOutcomes()
    judges.judge(1, template)
    for change in ({"customer": a_customer()}, {"message": "other"}, {"data": "{}"}, {"action": None}):
        assert judges.judge(2, msgspec.structs.replace(template, **change)).why is None


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
def test_eventdata_ends_with_who_when_and_which(template: Row, changes: dict[str, object], tail: str) -> None:
    assert eventdata(msgspec.structs.replace(template, pairs="", **changes), 7) == tail
    whole = msgspec.structs.replace(template, pairs="order=1; ", **changes)
    assert eventdata(whole, 7) == f"order=1; {tail}"


def test_a_pair_that_does_not_fit_is_left_out_and_the_others_stay(template: Row) -> None:
    long = "\N{LATIN SMALL LETTER E WITH ACUTE}" * 120
    pairs = f"a=1; b={long}; c=3; "
    assert eventdata(msgspec.structs.replace(template, pairs=pairs), 7).startswith("a=1; c=3; at=")
    fits = "x" * (255 - len("b=; at=2026-03-31T23:33:20Z; log=7"))
    whole = eventdata(msgspec.structs.replace(template, pairs=f"b={fits}; "), 7)
    assert len(whole) == 255
    assert eventdata(msgspec.structs.replace(template, pairs=f"b={fits}x; "), 7).startswith("at=")
