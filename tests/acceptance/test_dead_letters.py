"""Dead letters: a thousand of them listed, shown, replayed by reason and by contact, discarded; each once."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import anyio
import msgspec
import pytest

from kiva_stream.commands.dead_letters.details import show_dead_letter
from kiva_stream.commands.dead_letters.listing import DeadLetterRow, list_dead_letters
from kiva_stream.commands.dead_letters.replay import replay
from kiva_stream.commands.dead_letters.selection import DeadLetterRequest
from kiva_stream.model.bounds import parse_place
from kiva_stream.model.ids import CustomerId
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import Position
from kiva_stream.sandbox.drill import History
from kiva_stream.settings import loading
from kiva_stream.settings.sections import Settings
from tests.acceptance.stages import PATIENCE_S, Stage, staged_for_many, until
from tests.support.postgres import connected

LETTERS = 1_000
BACKFILL = ("backfill", "--since", "day1", "--yes")
QUICK = {"KIVA_STREAM__SOURCE__POLL_INTERVAL_S": "0.2", "KIVA_STREAM__SOURCE__DELAY_S": "0"}


@pytest.fixture(scope="module")
def refused(history: History, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A shop whose first thousand events ActiveCampaign refused, for no reason that would last."""
    with staged_for_many(history, tmp_path_factory.mktemp("refused")) as (stage, portal):
        portal.call(stage.activecampaign.fail, f"/event:success-0:1:{LETTERS}")
        stage.run(*BACKFILL)
        yield stage


def json_of(stage: Stage, *arguments: str) -> dict[str, Any]:
    return msgspec.json.decode(stage.run("dead-letters", *arguments, "--json"))  # type: ignore[no-any-return]


def settings_of(stage: Stage) -> Settings:
    return loading.load(None, stage.environ)


async def rejected(stage: Stage, customer: str | None = None) -> list[DeadLetterRow]:
    """Return the letters of events that were refused, the oldest first."""
    of = None if customer is None else CustomerId(int(customer))
    request = DeadLetterRequest(reason=Reason.EVENT_REJECTED, customer=of)
    return (await list_dead_letters(settings_of(stage), request, 2 * LETTERS, oldest_first=True)).rows


async def replayed(stage: Stage, *places: str, reason: Reason | None = None) -> dict[str, int] | None:
    """Replay letters in this process; return what became of them."""
    wanted = DeadLetterRequest(reason=reason, places=tuple(map(parse_place, places)))
    return (await replay(settings_of(stage), wanted)).outcomes


async def events(stage: Stage) -> list[dict[str, Any]]:
    return [event async for event in stage.activecampaign.rows("events")]


def id_of(event: dict[str, Any]) -> int:
    return int(event["eventdata"].rpartition("log=")[2])


async def test_a_thousand_dead_letters_are_listed_shown_replayed_and_discarded_each_once(
    refused: Stage,
) -> None:
    before, died = await events(refused), await rejected(refused)
    listed = json_of(refused, "list")
    assert {"reason": "event_rejected", "count": LETTERS, "replay_asked": 0, "discarded": 0} in listed[
        "reasons"
    ]
    assert (len(listed["letters"]), len(died)) == (100, LETTERS)
    one, discarded, contact = died[0], [letter.place for letter in died[1:11]], of_the_busiest(died[11:])
    shown = json_of(refused, "show", one.place)
    assert shown["verdict"].startswith("an event: ")
    assert "@" not in str(shown).replace("***@", "")

    assert await replayed(refused, one.place) == {"delivered": 1}
    assert json_of(refused, "discard", *discarded, "--yes") == {"discarded": 10, "held": 0}
    of_contact = [letter for letter in await rejected(refused, contact) if not letter.mark]
    by_contact = json_of(refused, "replay", "--customer", contact)["outcomes"]
    assert by_contact["delivered"] >= len(of_contact) > 1
    assert [each for each in await rejected(refused, contact) if not each.mark] == []
    rest = LETTERS - 1 - len(discarded) - len(of_contact)
    assert await replayed(refused, reason=Reason.EVENT_REJECTED) == {"delivered": rest}

    assert [letter.place for letter in await rejected(refused)] == discarded
    arrived = (await events(refused))[len(before) :]
    alive = [letter.place for letter in died if letter.place not in discarded]
    assert Counter(map(id_of, arrived)) == Counter(Position.parse(place).id for place in alive)
    assert_log_order(arrived[1 + len(of_contact) :], alive)
    comparison = await refused.compare()
    assert (comparison.lost, comparison.repeated, comparison.unexpected) == (len(discarded), 0, 0)
    equation = refused.status()["equation"]
    assert equation["dead"]["event_rejected"] == len(discarded)
    assert equation["delivered"] == refused.generated.outcomes["delivered"] - len(discarded)
    assert equation["entries_read"] == refused.generated.entries


def of_the_busiest(letters: list[DeadLetterRow]) -> str:
    ((customer, _),) = Counter(letter.customer for letter in letters).most_common(1)
    assert customer is not None
    return customer


def assert_log_order(arrived: list[dict[str, Any]], places: list[str]) -> None:
    """Assert that what was replayed together came in log order, contact by contact."""
    positions = {(at := Position.parse(place)).id: at for place in places}
    newest: dict[str, Position] = {}
    for event in arrived:
        at = positions[id_of(event)]
        assert newest.get(event["email"], at) <= at
        newest[event["email"]] = at


async def test_a_discarded_dead_letter_is_replayed_only_where_it_is_named(refused: Stage) -> None:
    (letter, *_) = [each for each in await rejected(refused) if each.mark == "discarded"]
    outcomes = await replayed(refused, reason=Reason.EVENT_REJECTED)
    assert outcomes == {}
    assert await replayed(refused, letter.place) == {"delivered": 1}


def test_a_name_of_no_dead_letter_is_exit_2_with_the_names_there_are(refused: Stage) -> None:
    assert "event_rejected" in refused.run("dead-letters", "list", "--reason", "noise", code=2)
    assert "order:ID" in refused.run("dead-letters", "show", "1:1", code=2)


async def test_a_dead_letter_whose_replay_is_refused_stays_dead_without_a_replay_request(
    refused: Stage,
) -> None:
    place = (await rejected(refused))[0].place
    await refused.activecampaign.fail("/event:success-0:1:1")
    assert await replayed(refused, place) == {"dead event_rejected": 1}
    assert {letter.place: letter.mark for letter in await rejected(refused)}[place] == ""


async def test_follow_replays_requested_dead_letters_at_its_next_poll(refused: Stage) -> None:
    place = (await rejected(refused))[0].place
    process = refused.start("follow", **QUICK)
    try:
        await until(lambda: is_following(refused))
        assert await replayed(refused, place) is None

        async def is_there() -> bool:
            return Position.parse(place).id in map(id_of, await events(refused))

        await until(is_there)
    finally:
        process.send_signal(signal.SIGTERM)
        await anyio.to_thread.run_sync(lambda: process.communicate(timeout=PATIENCE_S))
    assert place not in [letter.place for letter in await rejected(refused)]
    assert (await refused.compare()).repeated == 0


async def is_following(stage: Stage) -> bool:
    async with connected(stage.dsn) as connection:
        return bool(
            await connection.fetchval(
                "SELECT phase = 'follow' AND caught_up_at IS NOT NULL FROM kiva_stream.checkpoint"
            )
        )


async def test_a_refused_order_is_a_dead_letter_and_is_upserted_when_replayed(refused: Stage) -> None:
    async with connected(refused.dsn) as connection:
        order = await connection.fetchval(
            "UPDATE kiva_stream.sent_order SET refused = '422 no such product' WHERE order_id = "
            "(SELECT max(order_id) FROM kiva_stream.sent_order WHERE refused = '') RETURNING order_id"
        )
    place = f"order:{order}"
    request = DeadLetterRequest(reason=Reason.ORDER_INVALID)
    listed = await list_dead_letters(settings_of(refused), request, LETTERS, oldest_first=False)
    assert place in [letter.place for letter in listed.rows]
    shown = await show_dead_letter(settings_of(refused), parse_place(place))
    assert (shown.row.reply, shown.verdict) == ("422 no such product", "an order that would be sent")
    assert await replayed(refused, place) == {"orders sent": 1}
    listed = await list_dead_letters(settings_of(refused), request, LETTERS, oldest_first=False)
    assert place not in [letter.place for letter in listed.rows]


async def test_a_dead_letter_from_before_the_counts_began_changes_no_count(refused: Stage) -> None:
    place = (await rejected(refused))[0].place
    refused.run("rewind", "--to", refused.status()["watermark"])
    assert await replayed(refused, place) == {"delivered": 1}
    equation = refused.status()["equation"]
    assert (equation["entries_read"], equation["dead"], equation["delivered"]) == (0, {}, 0)
