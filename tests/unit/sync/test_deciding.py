"""Deciding between an outage and a bad record: a test a sentence of the rules."""

from __future__ import annotations

import anyio
import pytest

from kiva_stream.errors import RecordsHeld, Rejected, Unanswered
from kiva_stream.sync.isolation import MOST_BY_READS, READS, RECORD_TRIES, LoneRecords, Silence, is_held
from kiva_stream.sync.lone_requests import LoneRequests
from tests.support.virtual_time import run

OVER_S = 300.0
WITNESSED = Silence(1, RECORD_TRIES, has_witness=True)
READ = Silence(1, RECORD_TRIES, reads=READS, read_s=OVER_S)


def test_a_record_is_bad_when_others_of_its_kind_are_answered_between_its_tries() -> None:
    assert is_held(WITNESSED, OVER_S)


def test_without_a_witness_it_is_an_outage() -> None:
    assert not is_held(WITNESSED._replace(has_witness=False), OVER_S)


def test_it_takes_three_tries() -> None:
    assert not is_held(WITNESSED._replace(tries=RECORD_TRIES - 1), OVER_S)
    assert not is_held(READ._replace(tries=RECORD_TRIES - 1), OVER_S)


def test_only_a_body_of_one_record_has_a_witness() -> None:
    assert not is_held(WITNESSED._replace(records=2), OVER_S)


def test_without_a_witness_reads_of_the_same_service_count_if_they_were_answered_for_long() -> None:
    assert is_held(READ, OVER_S)
    assert not is_held(READ._replace(read_s=OVER_S - 1), OVER_S)
    assert not is_held(READ._replace(reads=READS - 1), OVER_S)


def test_by_reads_at_most_three_records_of_a_kind_are_held_and_a_fourth_is_not() -> None:
    assert is_held(READ._replace(held_by_reads=MOST_BY_READS - 1), OVER_S)
    assert not is_held(READ._replace(held_by_reads=MOST_BY_READS), OVER_S)
    assert is_held(READ._replace(records=MOST_BY_READS), OVER_S)
    assert not is_held(READ._replace(records=MOST_BY_READS + 1), OVER_S)


def test_a_record_that_was_held_and_is_silent_again_takes_one_try_and_no_witness() -> None:
    assert is_held(Silence(1, 1, were_held=True), OVER_S)


class Reads:
    """Reads at the service, a minute apart, that are answered as long as the service is."""

    def __init__(self) -> None:
        self.are_answered = True
        self.now = 0.0
        self.lone: LoneRecords[int] = LoneRecords(self.read, OVER_S, lambda: self.now)

    async def read(self) -> bool:
        self.now += 60
        return self.are_answered

    def tries_until_held(self, record: int, most: int = 20) -> int | None:
        """Return how often it was asked about a silent record until it was held; None: it was not."""

        async def ask() -> int | None:
            for number in range(1, most):
                if await self.lone.are_held([record], has_witness=False):
                    return number
            return None

        return anyio.run(ask)


def test_a_read_that_is_not_answered_has_the_time_begin_anew() -> None:
    reads = Reads()
    assert reads.tries_until_held(1, most=5) is None
    reads.are_answered = False
    assert reads.tries_until_held(1, most=2) is None
    reads.are_answered = True
    assert reads.tries_until_held(1) == 1 + OVER_S / 60


def test_an_answer_of_the_kind_ends_what_may_have_been_an_outage() -> None:
    reads = Reads()
    assert all(reads.tries_until_held(record) for record in range(MOST_BY_READS))
    assert reads.tries_until_held(7) is None
    reads.lone.answered([99])
    assert reads.tries_until_held(7) is not None
    assert 0 in reads.lone, "it is still held, until it is answered itself"


async def _answered() -> bool:
    return True


@pytest.mark.parametrize("refused", [False, True])
def test_a_kind_is_one_call_and_a_refusal_is_an_answer_of_it(refused: bool) -> None:
    """Have one record silent while others of the same kind, or of another, are answered or refused."""
    same, other = (LoneRequests(what, _answered, OVER_S) for what in ("contacts", "tags"))
    tries = 0

    async def silent(*, tries: float, is_suspect: bool) -> None:
        del is_suspect
        await anyio.sleep(tries)
        raise Unanswered("500")

    async def answered(*, tries: float, is_suspect: bool) -> None:
        del tries, is_suspect
        if refused:
            raise Rejected("refused")

    async def answer(kind: LoneRequests) -> None:
        nonlocal tries
        while True:
            await anyio.sleep(1)
            tries += 1
            try:
                await kind.send(2, answered)
            except Rejected:
                assert refused

    async def story(kind: LoneRequests) -> float:
        began_at = anyio.current_time()
        async with anyio.create_task_group() as group:
            group.start_soon(answer, kind)
            with pytest.raises(RecordsHeld, match="contacts 1"):
                await same.send(1, silent)
            group.cancel_scope.cancel()
        return anyio.current_time() - began_at

    assert run(story(other)) >= OVER_S  # held by reads alone
    same = LoneRequests("contacts", _answered, OVER_S)
    assert run(story(same)) < 10
