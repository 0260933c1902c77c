"""What erasure lists and deletes at ActiveCampaign."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from aioresponses import CallbackResult
from yarl import URL

from kiva_stream.activecampaign.client import Client
from kiva_stream.activecampaign.erasure import Erasure
from kiva_stream.activecampaign.listings import PAGE_ROWS
from kiva_stream.model.account_ids import AccountIds
from kiva_stream.model.ids import CustomerId, OrderId
from kiva_stream.settings.sections import ActiveCampaignSettings
from tests.support.http_answers import Answers, Response
from tests.support.virtual_time import now, run

API = "https://account.example/api/3"
SETTINGS = ActiveCampaignSettings(
    api_url="https://account.example", api_token="the-token", event_actid="25550001", event_key="the-key"
)
IDS = AccountIds(list_id=3, fields={}, tags={}, connection_id=2)
ANN = CustomerId(7)


class StoredOrders:
    """ActiveCampaign's orders of one store customer, listed as it is told to."""

    def __init__(
        self, orders: Mapping[int, int], *, ignores_offset: bool = False, shows_deleted: bool = False
    ) -> None:
        self.left = dict(orders)  # the shop's ids by ActiveCampaign's
        self._all = dict(orders)
        self._ignores_offset = ignores_offset
        self._shows_deleted = shows_deleted

    def answer(self, answers: Answers) -> None:
        customers = {"ecomCustomers": [{"id": "70", "externalid": str(ANN)}]}
        answers.add(re.compile(rf"{API}/ecomCustomers\?.*"), "GET", payload=customers, repeat=True)
        answers.add(re.compile(rf"{API}/ecomOrders\?.*"), "GET", callback=self._list, repeat=True)
        answers.add(re.compile(rf"{API}/ecomOrders/\d+"), "DELETE", callback=self._delete, repeat=True)

    def _list(self, url: URL, **_: Any) -> CallbackResult:  # noqa: ANN401  whatever the request had
        offset = 0 if self._ignores_offset else int(url.query["offset"])
        shown = list((self._all if self._shows_deleted else self.left).items())[offset : offset + PAGE_ROWS]
        return CallbackResult(
            response_class=Response,
            payload={"ecomOrders": [{"id": str(ac), "externalid": str(shop)} for ac, shop in shown]},
        )

    def _delete(self, url: URL, **_: Any) -> CallbackResult:  # noqa: ANN401  whatever the request had
        existed = self.left.pop(int(url.name), None) is not None
        return CallbackResult(status=200 if existed else 404, payload={}, response_class=Response)


def erased(stored: StoredOrders) -> set[OrderId]:
    async def with_answers() -> set[OrderId]:
        with Answers() as answers:
            stored.answer(answers)
            async with Client(SETTINGS, clock=now) as client:
                return await Erasure(client, IDS).delete_orders(ANN)

    return run(with_answers())


def test_orders_beyond_the_first_page_are_deleted_too() -> None:
    stored = StoredOrders({ac: 1_000 + ac for ac in range(1, 251)})
    assert erased(stored) == {OrderId(1_000 + ac) for ac in range(1, 251)}
    assert stored.left == {}


def test_all_orders_are_deleted_though_the_listing_ignores_its_offset() -> None:
    stored = StoredOrders({ac: 1_000 + ac for ac in range(1, 251)}, ignores_offset=True)
    assert erased(stored) == {OrderId(1_000 + ac) for ac in range(1, 251)}
    assert stored.left == {}


def test_a_listing_that_still_shows_deleted_orders_ends_the_erasure() -> None:
    stored = StoredOrders({1: 1_001}, shows_deleted=True)
    assert erased(stored) == {OrderId(1_001)}


def test_a_customer_without_orders_has_none_deleted() -> None:
    assert erased(StoredOrders({})) == set()
