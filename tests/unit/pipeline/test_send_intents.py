"""Out: which events a commit names, and which of them are named ahead of their turn."""

from __future__ import annotations

import anyio

from kiva_stream.model.positions import Position
from kiva_stream.pipeline.send_intents import SendIntents
from tests.fakes import position

A, B, C, D, E, F = map(position, range(1, 7))


async def asking(out: SendIntents, *asks: list[Position]) -> list[bool]:
    """Ask for events, each with what lies ahead of it; return the answers once a commit has named some."""
    answers: list[bool] = []

    async def ask(events: list[Position]) -> None:
        answers.append(await out.wait_recorded(events[0], lambda most: events[1 : 1 + most]))

    async with anyio.create_task_group() as group:
        for each in asks:
            group.start_soon(ask, each)
        await anyio.wait_all_tasks_blocked()
        for each_named in out.next():
            each_named.go()
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    return answers


async def test_places_that_nobody_asks_for_go_to_what_lies_ahead_in_equal_shares() -> None:
    out = SendIntents(most=5)
    assert await asking(out, [A, B, C, D], [E, F]) == [True, True]
    assert out.positions == {A, B, E, F}
    assert out.claim_prerecorded(B)
    assert not out.claim_prerecorded(B)  # once
    assert not out.claim_prerecorded(C)


async def test_who_asks_comes_before_what_lies_ahead() -> None:
    out = SendIntents(most=2)
    assert await asking(out, [A, B], [E, F], [C]) == [True, True]
    assert out.positions == {A, E}


async def test_what_lies_ahead_and_is_not_sent_soon_gives_its_place_back_with_the_next_commit() -> None:
    out = SendIntents(most=3)
    await asking(out, [A, B, C])
    out.release_lookahead([B, C, D])
    assert out.has_news
    out.next()
    assert out.positions == {A}


async def test_a_closed_one_takes_back_what_lies_ahead_and_keeps_what_was_let_go() -> None:
    out = SendIntents(most=3)
    await asking(out, [A, B])
    out.close()
    out.next()
    assert out.positions == {A}
    assert not out.claim_prerecorded(B)
    assert not await out.wait_recorded(B)


async def test_a_closed_one_names_nobody_who_was_waiting_nor_what_lay_ahead_of_them() -> None:
    out = SendIntents(most=3)
    answers: list[bool] = []

    async def ask() -> None:
        answers.append(await out.wait_recorded(A, lambda most: [B, C][:most]))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        out.close()
        assert out.next() == []  # before who waited has heard of it
    assert answers == [False]
    out.next()
    assert out.positions == set()


async def test_who_was_named_when_it_was_closed_is_taken_back_by_another_commit() -> None:
    out = SendIntents(most=1)
    answers: list[bool] = []

    async def ask() -> None:
        answers.append(await out.wait_recorded(A))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        (named,) = out.next()  # the commit is on its way
        out.close()
        named.go()
    assert answers == [False]
    assert out.has_news
    out.next()
    assert out.positions == set()
