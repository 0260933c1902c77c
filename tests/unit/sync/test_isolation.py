"""Isolation: which records of a silent batch are set aside, by how many requests, and what an outage is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from math import ceil, log2

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiva_stream.errors import Unanswered
from kiva_stream.sync.isolation import RECORD_TRIES, BatchSender, Isolation, LoneRecords


class Account:
    """Answers every request without a silent record, until an outage begins after so many requests."""

    def __init__(self, silent: Collection[int], outage_after: float = float("inf")) -> None:
        self.silent = frozenset(silent)
        self.outage_after = outage_after
        self.requests: list[tuple[int, ...]] = []
        self.answered: list[int] = []
        self.answers = 0

    async def attempt(self, part: Sequence[int], tries: int) -> bool:
        for _ in range(tries):
            self.requests.append(tuple(part))
            if len(self.requests) <= self.outage_after and self.silent.isdisjoint(part):
                self.answered += part
                self.answers += 1
                return True
        return False


def search(
    account: Account, batch: Sequence[int], choose: Callable[[Sequence[int]], int] = min
) -> Isolation[int]:
    isolation = Isolation(account.attempt, lambda: account.answers, choose)
    anyio.run(isolation.search, batch)
    return isolation


@pytest.mark.parametrize("culprit", range(20))
def test_one_silent_record_is_held_and_all_others_are_answered(culprit: int) -> None:
    account = Account({culprit})
    isolation = search(account, range(20))

    assert (isolation.held, isolation.unproven) == ([culprit], [])
    assert sorted(account.answered) == [each for each in range(20) if each != culprit]


def test_halving_takes_two_requests_a_level_and_the_tries_of_the_record() -> None:
    account = Account({0})
    search(account, range(256))

    assert len(account.requests) == 2 * log2(256) + RECORD_TRIES - 1


@given(st.sets(st.integers(0, 39), min_size=1, max_size=10), st.integers(2, 40))
def test_whatever_is_silent_no_innocent_is_set_aside_and_none_is_sent_after_its_answer(
    silent: set[int], size: int
) -> None:
    account = Account(silent)
    isolation = search(account, range(size))

    assert set(isolation.held) <= silent
    assert set(isolation.unproven).isdisjoint(account.answered)
    assert len(account.answered) == len(set(account.answered))
    if not isolation.is_outage:
        bad = silent & set(range(size))
        assert set(isolation.held) | set(isolation.unproven) | set(account.answered) == set(range(size))
        assert bad.isdisjoint(account.answered)


def test_silent_records_in_both_halves_are_found_when_one_of_the_quarters_is_answered() -> None:
    isolation = search(Account({3, 17}), range(20), choose=min)

    assert isolation.held == [3, 17]


def test_an_outage_is_no_record_s_fault_and_takes_six_requests() -> None:
    account = Account(range(20))
    isolation = search(account, range(20))

    assert isolation.is_outage
    assert isolation.held == isolation.unproven == []
    assert len(account.requests) == 2 + 4


def test_both_halves_answered_means_that_the_batch_was_too_large() -> None:
    isolation = search(Account(()), range(20))

    assert isolation.is_too_large
    assert isolation.held == []


@pytest.mark.parametrize("outage_after", range(1, 12))
def test_an_outage_that_begins_meanwhile_has_no_innocent_held(outage_after: int) -> None:
    isolation = search(Account({5}, outage_after), range(32))

    assert set(isolation.held) <= {5}


@pytest.mark.parametrize("outage_after", range(1, 20))
def test_an_outage_that_begins_meanwhile_costs_few_requests_at_whatever_level(outage_after: int) -> None:
    account = Account({5}, outage_after)
    isolation = search(account, range(256))

    # Two halves and four single records of the part that is searched then; and the tries of a single record.
    assert len(account.requests) <= outage_after + 2 + 4 + RECORD_TRIES
    found = {*account.answered, *isolation.unproven, *isolation.held}
    assert isolation.is_outage or found == set(range(256))


def test_what_is_silent_in_all_parts_is_halved_on_while_single_records_are_answered() -> None:
    account = Account(range(0, 40, 10))
    assert sorted(search(account, range(40), max).held) == [0, 10, 20, 30]


def test_two_neighbours_without_a_witness_are_unproven() -> None:
    assert search(Account({0, 1}), range(4)).unproven == [0, 1]


def test_an_answer_of_other_requests_meanwhile_proves_neighbours() -> None:
    account = Account({0, 1, 2, 3})

    async def attempt(part: Sequence[int], tries: int) -> bool:
        account.answers += 1  # another task was answered
        return await account.attempt(part, tries)

    isolation: Isolation[int] = Isolation(attempt, lambda: account.answers, min)
    anyio.run(isolation.search, range(4))

    assert sorted(isolation.held) == [0, 1, 2, 3]
    assert len(account.requests) <= 2 + 4 + 2 + 4 * ceil(RECORD_TRIES)


class Kind:
    """A kind of request whose records are answered unless they are silent; `others` count as answers too."""

    def __init__(self, *silent: int) -> None:
        self.silent = set(silent)
        self.reads = True
        self.now = 0.0
        self.sent: list[list[int]] = []
        self.recoveries = 0
        self.sender: BatchSender[int, int] = BatchSender(
            int, LoneRecords(self._read, 60, lambda: self.now, on_recovery=self._recover)
        )

    def _recover(self) -> None:
        self.recoveries += 1

    async def _read(self) -> bool:
        self.now += 20
        return self.reads

    async def send(self, batch: Sequence[int], /, *, tries: int, is_suspect: bool) -> list[Sequence[int]]:
        del is_suspect  # which is for the circuit breaker
        self.sent += [list(batch)] * tries
        assert len(self.sent) < 200, "it never ends"
        if not self.silent.isdisjoint(batch):
            raise Unanswered(f"500 for {min(self.silent.intersection(batch))}")
        return []

    def deliver(self, *batch: int) -> dict[int, str]:
        async def deliver() -> dict[int, str]:
            parts: list[Sequence[int]] = [list(batch)]
            held: dict[int, str] = {}
            while parts:
                if part := parts.pop(0):
                    held |= await self.sender.send(part, parts, send=self.send)
            return held

        return anyio.run(deliver)


def test_an_answer_before_the_first_failure_of_a_record_is_no_witness() -> None:
    kind = Kind(2)
    kind.deliver(1)
    assert kind.deliver(2) == {2: "500 for 2"}
    assert kind.now >= 60, "held for the answer to another record that was sent before it"


def test_at_most_three_records_are_held_without_a_witness() -> None:
    kind = Kind(1, 2, 3, 4)
    assert [kind.deliver(each) for each in (1, 2, 3)] == [{each: f"500 for {each}"} for each in (1, 2, 3)]
    with pytest.raises(AssertionError, match="never ends"):
        kind.deliver(4)


def test_the_first_answer_after_what_may_have_been_an_outage_is_a_recovery() -> None:
    kind = Kind(1)
    assert kind.deliver(1) == {1: "500 for 1"}  # by reads
    assert kind.recoveries == 0
    kind.deliver(2)
    kind.deliver(3)
    assert kind.recoveries == 1


def test_the_answer_after_a_record_that_was_silent_among_others_is_none() -> None:
    kind = Kind(1)
    assert kind.deliver(*range(8)) == {1: "500 for 1"}
    kind.deliver(8)
    assert kind.recoveries == 0


def test_a_record_that_was_held_goes_apart_and_costs_the_others_no_attempt() -> None:
    kind = Kind(3)
    assert kind.deliver(1, 2, 3, 4) == {3: "500 for 3"}
    kind.sent.clear()
    assert kind.deliver(3, 5, 6) == {3: "500 for 3"}
    assert [batch for batch in kind.sent if 3 not in batch] == [[5, 6]]
    assert all(batch == [3] for batch in kind.sent if 3 in batch)


def test_each_record_is_held_with_its_own_reply() -> None:
    assert Kind(1, 6).deliver(*range(8)) == {1: "500 for 1", 6: "500 for 6"}
