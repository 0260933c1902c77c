"""A contact that ActiveCampaign refuses: its reply is kept and shown, and every refusal can be undone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.acceptance.live_shop import LiveShop, email, following, live_shop
from tests.acceptance.stages import until
from tests.support.postgres import connected

WRONG, RIGHT = "Zacharias", "Zoe"
SAID = "The address is not accepted"
REFUSALS = (  # of every request that carries the wrong name; what they name is not optional
    {
        "path": "/import/bulk_import",
        "kind": "answer-before",
        "containing": WRONG,
        "status": 400,
        "text": '{"success":0,"message":"Some contacts are invalid.",'
        f'"failureReasons":[{{"contact":1,"failureReason":"{SAID}"}}]}}',
    },
    {
        "path": "/contact/sync",
        "kind": "answer-before",
        "containing": WRONG,
        "status": 422,
        "text": f'{{"errors":[{{"title":"{SAID}","source":{{"pointer":"/data/attributes/email"}}}}]}}',
    },
)
BACKFILL = ("backfill", "--since", "day1", "--yes")


@pytest.fixture
async def shop(database: str, tmp_path: Path) -> AsyncIterator[LiveShop]:
    """A shop of two customers after a backfill; ActiveCampaign refused the contact of the first."""
    async with live_shop(database, tmp_path, 2) as live, connected(database) as connection:
        await name_of_first(live, WRONG)
        for customer in live.customers:
            await live.write(connection, customer)
        await live.activecampaign.fail(*REFUSALS)
        live.run(*BACKFILL)
        yield live


async def name_of_first(shop: LiveShop, name: str) -> None:
    await shop.rows.connection.execute(
        "UPDATE kiva.customers SET first_name = $1, updated_at = clock_timestamp() WHERE id = 1", name
    )


async def contacts_sent(shop: LiveShop) -> int:
    """Return how many requests with contacts ActiveCampaign received, including refused ones."""
    state = await shop.activecampaign.state()
    carried: list[int] = [state["requests"].get(name, 0) for name in ("bulkImport", "syncContact")]
    faults: list[int] = [*state["faults"].values()]
    return sum(carried) + sum(faults)


def dead(shop: LiveShop) -> list[dict[str, Any]]:
    listed = msgspec.json.decode(shop.run("dead-letters", "list", "--json"))
    return list(listed["letters"])


async def has_arrived(shop: LiveShop) -> bool:
    """Return whether the refused contact is at ActiveCampaign, with its event."""
    return email(1) in await shop.contacts() and len((await shop.received()).get(email(1), [])) > 0


async def test_the_reply_that_refused_a_contact_is_shown_by_its_dead_letters(shop: LiveShop) -> None:
    (letter,) = dead(shop)
    assert (letter["reason"], letter["customer"]) == ("ac_rejected", "1")
    assert SAID in letter["reply"]
    assert list(await shop.received()) == [email(2)]


async def test_a_refused_contact_is_not_sent_again_while_its_data_are_the_same(shop: LiveShop) -> None:
    before = await contacts_sent(shop)
    async with connected(shop.dsn) as connection:
        await shop.write(connection, 1)
    shop.run("backfill")
    assert await contacts_sent(shop) == before
    assert [letter["reason"] for letter in dead(shop)] == ["ac_rejected"] * 2
    assert all(SAID in letter["reply"] for letter in dead(shop))


async def test_a_backfill_tries_a_refused_contact_again_when_its_data_changed(shop: LiveShop) -> None:
    await name_of_first(shop, RIGHT)
    shop.run("backfill")
    assert await has_arrived(shop)
    assert dead(shop) == []


@pytest.mark.parametrize("with_entry", [False, True])
async def test_follow_tries_a_refused_contact_again_when_its_data_change(
    shop: LiveShop, *, with_entry: bool
) -> None:
    async with following(shop, "follow"), connected(shop.dsn) as connection:
        await name_of_first(shop, RIGHT)
        if with_entry:
            await shop.write(connection, 1)

        async def have_all_arrived() -> bool:
            return len((await shop.received()).get(email(1), [])) == 1 + with_entry

        await until(have_all_arrived)

        async def is_none_dead() -> bool:
            return not await connection.fetchval("SELECT count(*) FROM kiva_stream.dead_letter")

        await until(is_none_dead)
    received = (await shop.received())[email(1)]
    assert received == sorted(received)


@pytest.mark.parametrize(
    "command",
    [
        ("dead-letters", "replay", "--all"),
        ("sync", "--customer", "1"),
        ("rewind", "--to", "day1", "--resend", "--yes"),
    ],
)
async def test_a_refused_contact_is_tried_again_though_nothing_changed_by(
    shop: LiveShop, command: tuple[str, ...]
) -> None:
    await shop.activecampaign.fail()
    shop.run(*command)
    if command[0] == "rewind":
        shop.run("backfill")
    assert email(1) in await shop.contacts()
    shop.run("backfill")
    assert await has_arrived(shop)
    assert dead(shop) == []


async def test_a_refused_contact_that_is_refused_again_stays_dead_with_the_new_reply(shop: LiveShop) -> None:
    again = [{**each, "text": each["text"].replace(SAID, "Still not")} for each in REFUSALS]  # type: ignore[attr-defined]
    await shop.activecampaign.fail(*again)
    before = await contacts_sent(shop)
    shop.run("dead-letters", "replay", "--all")
    assert await contacts_sent(shop) > before
    (letter,) = dead(shop)
    assert "Still not" in letter["reply"]
    assert letter["mark"] == ""


# verify


def verified(shop: LiveShop, *arguments: str, code: int = 7) -> dict[str, Any]:
    ended = shop.ended("verify", *arguments, "--json")
    assert ended.code == code, ended.err
    return dict(msgspec.json.decode(ended.out))


async def test_verify_lists_a_refused_contact_and_a_repair_tries_it_again(shop: LiveShop) -> None:
    (gap,) = verified(shop)["gaps"]
    assert (gap["kind"], gap["customer"]) == ("refused", "1")
    await shop.activecampaign.fail()
    report = verified(shop, "--repair", code=0)
    assert [gap["kind"] for gap in report["closed"]] == ["refused"]
    assert email(1) in await shop.contacts()
