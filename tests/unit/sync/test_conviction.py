"""Conviction: a test for each sentence of its rules."""

from __future__ import annotations

import pytest

from kiva_stream.sync.conviction import (
    BETWEEN_S,
    MOST_COUNTED,
    ROW,
    Conviction,
    Found,
    Verdict,
    is_about_account,
)

NO = "It does not work"
NOTHING: Found[int] = Found([], [])
PROBE_EVERY_S = 300.0


@pytest.fixture
def kind() -> Conviction[int]:
    return Conviction(PROBE_EVERY_S)


def refuse(
    kind: Conviction[int], record: int, at: float, reply: str = NO, *, names_value: bool = False
) -> Verdict:
    return kind.refused(record, reply, at=at, names_value=names_value)


def accept(kind: Conviction[int], record: int, at: float, *, sent_at: float | None = None) -> Found[int]:
    return kind.accepted([record], sent_at=at if sent_at is None else sent_at, at=at)


def convicted(kind: Conviction[int], at: float = 0.0) -> Conviction[int]:
    assert refuse(kind, 1, at, "You have reached your contact limit.") is Verdict.PAUSED
    return kind


# what convicts


@pytest.mark.parametrize(
    "reply",
    [
        "You have reached your contact limit.",
        "This is not part of your plan",
        "Ecommerce is not enabled for this account",
        "Connection 7 was not found or deleted",
        "Event tracking is disabled",
        "Invalid API key",
    ],
    ids=["limit", "plan", "e-commerce", "connection", "tracking", "key"],
)
def test_a_known_text_convicts_at_once(kind: Conviction[int], reply: str) -> None:
    assert refuse(kind, 1, 0, reply) is Verdict.PAUSED
    assert kind.is_paused


@pytest.mark.parametrize(
    "reply",
    [NO, "The phone is too long", "Rate limit exceeded", "The name exceeds the limit of 40 characters"],
)
def test_other_texts_are_not_known(reply: str) -> None:
    assert not is_about_account(reply)


def test_so_many_different_records_in_a_row_with_the_same_text_convict(kind: Conviction[int]) -> None:
    verdicts = [refuse(kind, record, record) for record in range(ROW)]
    assert verdicts == [Verdict.PROVISIONAL] * (ROW - 1) + [Verdict.PAUSED]


def test_digits_and_addresses_in_the_text_do_not_count(kind: Conviction[int]) -> None:
    for record in range(ROW):
        refuse(kind, record, record, f"No {record}: bob{record}@example.com and [address]")
    assert kind.is_paused


def test_other_texts_between_convict_nobody(kind: Conviction[int]) -> None:
    for record in range(2 * ROW):
        refuse(kind, record, record, NO if record % 2 else "It works not")
    assert not kind.is_paused


def test_an_acceptance_between_begins_the_row_anew(kind: Conviction[int]) -> None:
    for record in range(ROW - 1):
        refuse(kind, record, record)
    accept(kind, 99, 10)
    for record in range(ROW, 2 * ROW - 1):
        assert refuse(kind, record, 10 + record) is Verdict.PROVISIONAL


def test_a_record_counts_once_until_it_is_accepted(kind: Conviction[int]) -> None:
    for at in range(2 * ROW):
        refuse(kind, 1, at)
    assert not kind.is_paused
    for record in range(2, ROW):
        refuse(kind, record, 20)
    accept(kind, 1, 30)
    for record in (1, *range(10, 10 + ROW - 2)):
        assert refuse(kind, record, 40) is Verdict.PROVISIONAL
    assert refuse(kind, 50, 50) is Verdict.PAUSED


def test_a_refusal_that_names_a_value_never_convicts(kind: Conviction[int]) -> None:
    for record in range(3 * ROW):
        assert refuse(kind, record, record, names_value=True) is Verdict.AT_FAULT
    assert not kind.is_paused


def test_a_refusal_of_all_requests_convicts(kind: Conviction[int]) -> None:
    kind.convict(at=10)
    kind.convict(at=20)
    assert kind.is_paused
    assert not kind.may_send(1)
    assert kind.take_probe(10 + PROBE_EVERY_S) == 1


# what makes a provisional record at fault


def test_a_record_refused_between_two_acceptances_of_others_is_at_fault(kind: Conviction[int]) -> None:
    accept(kind, 2, 0)
    assert refuse(kind, 1, 1) is Verdict.PROVISIONAL
    assert accept(kind, 3, 2) == Found([1], [])
    assert accept(kind, 4, 3) == NOTHING


def test_the_later_acceptance_must_have_been_sent_after_the_refusal_came(kind: Conviction[int]) -> None:
    accept(kind, 2, 0)
    refuse(kind, 1, 1)
    assert accept(kind, 3, 2, sent_at=0.5) == Found([], [1])
    assert accept(kind, 4, 3, sent_at=1) == Found([1], [])


@pytest.mark.parametrize(("apart_s", "at_fault"), [(BETWEEN_S - 1, [1]), (BETWEEN_S, [])])
def test_the_two_acceptances_must_be_less_than_15_minutes_apart(
    kind: Conviction[int], apart_s: float, at_fault: list[int]
) -> None:
    accept(kind, 2, 0)
    refuse(kind, 1, 1)
    assert accept(kind, 3, apart_s).at_fault == at_fault


def test_both_acceptances_must_be_those_of_other_records(kind: Conviction[int]) -> None:
    accept(kind, 1, 0)
    refuse(kind, 1, 1)
    assert accept(kind, 2, 2) == Found([], [1])
    accept(kind, 1, 3)
    refuse(kind, 1, 4)
    assert accept(kind, 3, 5) == Found([1], [])


def test_an_acceptance_without_one_before_has_the_record_tried_again(kind: Conviction[int]) -> None:
    refuse(kind, 1, 0)
    assert accept(kind, 2, 1) == Found([], [1])
    refuse(kind, 1, 2)
    assert accept(kind, 3, 3) == Found([1], [])


def test_a_record_that_is_accepted_is_not_provisional_any_more(kind: Conviction[int]) -> None:
    refuse(kind, 1, 0)
    accept(kind, 1, 1)
    assert accept(kind, 2, 2) == NOTHING


def test_time_alone_makes_no_record_at_fault(kind: Conviction[int]) -> None:
    accept(kind, 2, 0)
    for at in range(1, 1_000_000, 10_000):
        assert refuse(kind, 1, at) is Verdict.PROVISIONAL


def test_a_refusal_that_names_a_value_makes_a_provisional_record_at_fault(kind: Conviction[int]) -> None:
    refuse(kind, 1, 0)
    assert refuse(kind, 1, 1, names_value=True) is Verdict.AT_FAULT
    assert accept(kind, 2, 2) == NOTHING


# what is withdrawn


def test_a_record_that_is_not_to_be_sent_any_more_is_neither_provisional_nor_counted(
    kind: Conviction[int],
) -> None:
    accept(kind, 2, 0)
    refuse(kind, 1, 1)
    kind.forget([1])
    assert accept(kind, 3, 2) == NOTHING
    for record in range(10, 10 + ROW - 1):
        assert refuse(kind, record, 3) is Verdict.PROVISIONAL
    assert refuse(kind, 1, 4) is Verdict.PAUSED


def test_a_probe_that_is_not_to_be_sent_any_more_leaves_its_turn_to_the_next_at_once(
    kind: Conviction[int],
) -> None:
    convicted(kind)
    refuse(kind, 2, 1)
    assert kind.take_probe(PROBE_EVERY_S) == 1
    kind.forget([1])
    assert not kind.may_send(1)
    assert kind.take_probe(PROBE_EVERY_S) in {1, 2}


def test_so_many_records_are_counted_and_no_more(kind: Conviction[int]) -> None:
    for record in range(2 * MOST_COUNTED):
        refuse(kind, record, record, NO if record % 2 else "It works not")
    assert len(kind._counted) == MOST_COUNTED
    assert not kind.is_paused


# while the account is convicted


def test_only_the_probe_is_sent_while_the_kind_is_paused(kind: Conviction[int]) -> None:
    assert kind.may_send(1)
    convicted(kind)
    assert not kind.may_send(2)
    assert kind.take_probe(PROBE_EVERY_S - 1) is None
    assert kind.take_probe(PROBE_EVERY_S) == 1
    assert kind.may_send(1)
    assert not kind.may_send(2)


def test_the_probe_is_by_turns_the_oldest_provisional_record_and_one_never_refused(
    kind: Conviction[int],
) -> None:
    refuse(kind, 7, 0)
    convicted(kind, 1)
    for waiting in (20, 30):
        kind.may_send(waiting)
    probes = []
    for turn in range(1, 7):
        probe = kind.take_probe(1 + turn * PROBE_EVERY_S)
        assert probe is not None
        assert refuse(kind, probe, 1 + turn * PROBE_EVERY_S) is Verdict.PAUSED
        probes.append(probe)
    assert probes == [7, 20, 7, 30, 7, 7]


def test_a_probe_that_was_not_sent_is_tried_again_after_the_others(kind: Conviction[int]) -> None:
    convicted(kind)
    refuse(kind, 2, 1)
    probes = [kind.take_probe(turn * PROBE_EVERY_S) for turn in range(1, 4)]
    assert probes == [1, 2, 1]


def test_no_probe_is_due_without_a_record(kind: Conviction[int]) -> None:
    kind.convict(at=0)
    assert kind.take_probe(PROBE_EVERY_S) is None


def test_one_accepted_ends_the_pause_and_all_are_tried_again(kind: Conviction[int]) -> None:
    convicted(kind)
    kind.may_send(2)
    kind.may_send(3)
    assert accept(kind, 3, 400) == Found([], [1, 2])
    assert not kind.is_paused
    assert kind.may_send(2)


def test_the_acceptance_that_ends_a_conviction_makes_no_record_at_fault(kind: Conviction[int]) -> None:
    accept(kind, 9, 0)
    convicted(kind, 1)
    assert accept(kind, 2, 2) == Found([], [1])
    assert accept(kind, 3, 3) == Found([], [1])  # what was refused before says nothing any more
    refuse(kind, 1, 4)
    assert accept(kind, 4, 5) == Found([1], [])


def test_an_acceptance_of_what_left_before_the_conviction_does_not_end_it(kind: Conviction[int]) -> None:
    convicted(kind, 10)
    assert accept(kind, 2, 11, sent_at=9) == NOTHING
    assert kind.is_paused
