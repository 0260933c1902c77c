"""The ids in use: when the account's ids are read again, and when they are others. In virtual time."""

from __future__ import annotations

import asyncio

import pytest

from kiva_stream.activecampaign.ids_in_use import REFUSED_EVERY_S, IdsInUse
from kiva_stream.errors import IdsChanged, SettingsError
from kiva_stream.model.account_ids import AccountIds
from kiva_stream.model.week_tags import WeekTag
from tests.support.virtual_time import now, run

IDS = AccountIds(list_id=1, fields={"status": 2}, tags={WeekTag.OPEN: 3}, connection_id=4)
FRESH_S = 300.0


class Account:
    """An account whose `ids` can be read; None: it lacks one."""

    def __init__(self) -> None:
        self.ids: AccountIds | None = IDS
        self.reads = 0

    async def lookup(self) -> AccountIds:
        self.reads += 1
        await asyncio.sleep(1)
        if self.ids is None:
            raise SettingsError("run setup")
        return self.ids


def in_use(account: Account) -> IdsInUse:
    return IdsInUse(IDS, account.lookup, fresh_s=FRESH_S, clock=now)


def test_ids_are_read_again_when_they_are_not_fresh_and_once_for_all_who_ask() -> None:
    async def story() -> None:
        account = Account()
        ids = in_use(account)
        await ids.require_same()
        assert account.reads == 0
        await asyncio.sleep(FRESH_S)
        await asyncio.gather(*(ids.require_same() for _ in range(4)))
        assert account.reads == 1

    run(story())


@pytest.mark.parametrize(
    ("found", "kinds"),
    [
        (IDS._replace(connection_id=5), "connection"),
        (IDS._replace(list_id=5), "list"),
        (IDS._replace(fields={"status": 5}, tags={WeekTag.OPEN: 5}), "fields, tags"),
    ],
)
def test_other_ids_are_told_until_a_new_site_uses_them(found: AccountIds, kinds: str) -> None:
    async def story() -> None:
        account = Account()
        ids = in_use(account)
        account.ids = found
        await ids.require_same()
        await asyncio.sleep(FRESH_S)
        for _ in range(2):
            with pytest.raises(IdsChanged, match=f"in use: {kinds}; run it again$"):
                await ids.require_same()

    run(story())


def test_an_account_that_lacks_an_id_has_no_other_ones_until_it_is_set_up() -> None:
    async def story() -> None:
        account = Account()
        ids = in_use(account)
        account.ids = None
        await asyncio.sleep(FRESH_S)
        await ids.require_same()
        account.ids = IDS._replace(connection_id=5)
        await ids.require_same()
        await asyncio.sleep(FRESH_S)
        with pytest.raises(IdsChanged):
            await ids.require_same()

    run(story())


def test_after_a_refusal_ids_are_read_again_and_missing_or_other_ones_are_told() -> None:
    async def story() -> None:
        account = Account()
        ids = in_use(account)
        account.ids = None  # just after they were read
        began_at = now()
        assert await asyncio.gather(*(ids.are_missing() for _ in range(4))) == [True] * 4
        assert account.reads == 1
        assert now() - began_at == pytest.approx(REFUSED_EVERY_S + 1)
        await ids.require_same()
        account.ids = IDS
        assert not await ids.are_missing()
        assert account.reads == 2
        assert now() - began_at == pytest.approx(2 * REFUSED_EVERY_S + 1)
        account.ids = IDS._replace(list_id=5)
        with pytest.raises(IdsChanged):
            await ids.are_missing()

    run(story())
