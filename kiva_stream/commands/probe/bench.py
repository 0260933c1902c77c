"""What several questions look at: measured once, when the first of them asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from kiva_stream.activecampaign.rate_limits import SECOND_S
from kiva_stream.activecampaign.raw_calls import GRAPHQL, RawCalls, Request
from kiva_stream.activecampaign.responses.orders import parse_query
from kiva_stream.activecampaign.responses.response import Response
from kiva_stream.activecampaign.responses.rest import parse_rest
from kiva_stream.activecampaign.responses.statuses import retry_after_s
from kiva_stream.activecampaign.responses.tracking_logs import TrackingLogRow, parse_tracking_log
from kiva_stream.commands.probe.scratch import Scratch
from kiva_stream.errors import TryLater
from kiva_stream.model.ids import Email
from kiva_stream.settings.sections import ActiveCampaignSettings

CHARACTERS = 600  # of the eventdata that is sent to see where it is cut
PLAIN, ACCENTED = "p" * CHARACTERS, "é" * CHARACTERS  # one and two bytes a character
LOOKS = (1 / 30, 1 / 10, 1 / 3, 2 / 3, 1, 2)  # at a tracking log, in parts of lookup_settle_s
ORDER_ID, ORDER_STATUS = "1", "probe"
ORDER_LOOKS = 3  # at an order that was accepted
TOO_MANY = 429
UPSERT = "mutation Probe($orders: [OrderInput!]!) { bulkUpsertOrdersAsync(orders: $orders) { recordId } }"
GET_ORDER = (
    "query Probe($connection: Int, $order: String) { order: getOrder(legacyConnectionId: $connection, "
    "storeOrderId: $order) { creationSource storeStatus finalAmount } }"
)


class Shown(NamedTuple):
    """What a tracking log showed of the two long events; None: nothing while it was waited for."""

    delay_s: float | None
    waited_s: float
    plain: str = ""
    accented: str = ""


class ShownOrder(msgspec.Struct, rename="camel"):
    """An order as GraphQL shows it."""

    creation_source: str | None = None
    store_status: str | None = None
    final_amount: float = 0.0


class Bursts(NamedTuple):
    """What bursts of requests got: whether each was throttled, and the first answer that was."""

    throttled: list[bool]
    reply: Response | None


class Bench:
    """The account's settings, its calls, the scratch objects, and the measurements made so far."""

    def __init__(self, settings: ActiveCampaignSettings, calls: RawCalls, scratch: Scratch) -> None:
        self.settings = settings
        self.calls = calls
        self.scratch = scratch
        self._shown: Shown | None = None
        self._resent: ShownOrder | None = None
        self._bursts: Bursts | None = None

    # --- events ---

    async def shown(self) -> Shown:
        """Send two long events to the contact, and return what its tracking log shows of them, and when."""
        if self._shown is None:
            self._shown = await self._send_and_look()
        return self._shown

    async def _send_and_look(self) -> Shown:
        contact, name = await self.scratch.contact_id(), await self.scratch.registered_name()
        began_at = time.monotonic()
        for text in (PLAIN, ACCENTED):
            await self.calls.event(self.scratch.email, name, text)
        for part in LOOKS:
            await asyncio.sleep(max(0.0, began_at + part * self.settings.lookup_settle_s - time.monotonic()))
            values = [row.eventdata for row in await self.tracking_log(contact) if row.name == name]
            plain = next((text for text in values if text.startswith("p")), "")
            accented = next((text for text in values if text.startswith("é")), "")
            if plain and accented:
                passed_s = time.monotonic() - began_at
                return Shown(passed_s, passed_s, plain=plain, accented=accented)
        return Shown(None, time.monotonic() - began_at)

    async def tracking_log(self, contact: int) -> list[TrackingLogRow]:
        """Return the tracking log of a contact."""
        return parse_tracking_log(await self.calls.call("GET", f"/contacts/{contact}/trackingLogs?limit=100"))

    # --- orders ---

    async def upsert(self, source: str, *, copies: int = 1, **more: object) -> Response:
        """Upsert the one order, so many times by one request; return the answer."""
        connection = await self.scratch.connection_id()
        self.scratch.note_orders(self.settings.order_settle_s)
        order = {**_order(self.scratch.email, connection), "creationSource": source, **more}
        return await self.calls.graphql(UPSERT, {"orders": [order] * copies})

    async def resent_order(self) -> ShownOrder:
        """Send the order as HISTORICAL, then as REAL_TIME without its status; return it. Raises TryLater."""
        if self._resent is None:
            await self.upsert("HISTORICAL", finalAmount=1, storeStatus=ORDER_STATUS)
            await self._order_of(1)
            await self.upsert("REAL_TIME", finalAmount=2)
            self._resent = await self._order_of(2)
        return self._resent

    async def _order_of(self, amount: float) -> ShownOrder:
        connection = await self.scratch.connection_id()
        for _ in range(ORDER_LOOKS):
            await asyncio.sleep(self.settings.order_settle_s)
            answer = await self.calls.graphql(GET_ORDER, {"connection": connection, "order": ORDER_ID})
            order = parse_query(answer, ShownOrder).get("order")
            if order and order.final_amount == amount:
                return order
        waited_s = ORDER_LOOKS * self.settings.order_settle_s
        raise TryLater(f"an accepted order was not shown within {waited_s:g} s")

    # --- limits ---

    async def bursts(self) -> Bursts:
        """Send bursts until one is throttled: of all kinds, of two of them, of one."""
        if self._bursts is None:
            self._bursts = await self._send_bursts()
        return self._bursts

    async def _send_bursts(self) -> Bursts:
        throttled: list[bool] = []
        for requests in await self._burst_requests():
            reply = await self._first_throttled(requests)
            throttled.append(reply is not None)
            if reply is not None:
                return Bursts(throttled, reply)
        return Bursts(throttled, None)

    async def _burst_requests(self) -> Sequence[Sequence[Request]]:
        """Return three bursts of seven requests, where five a second are allowed."""
        rest = Request("GET", "/users/me")
        graphql = Request("POST", GRAPHQL, {"query": "{ __typename }"})
        body = {"contacts": [{"email": self.scratch.email}], "exclude_automations": True}
        bulk_import = Request("POST", "/import/bulk_import", body)
        await self.scratch.contact_id()
        self.scratch.note_imports()
        return [rest] * 3 + [graphql] * 2 + [bulk_import] * 2, [rest] * 4 + [graphql] * 3, [rest] * 7

    async def _first_throttled(self, requests: Sequence[Request]) -> Response | None:
        answers = await self.calls.burst(requests)
        throttled = [answer for answer in answers if answer.status == TOO_MANY]
        await asyncio.sleep(retry_after_s(throttled[0]) if throttled else SECOND_S)
        return throttled[0] if throttled else None

    # --- imports ---

    async def automations_after_import(self, *, exclude: bool) -> int:
        """Create the contact anew by an import; return how many automations it has entered.

        Raises TryLater if the import is not completed in time.
        """
        subscribe = [{"listid": await self.scratch.list_id()}]
        if not await self.scratch.imports_done():
            raise TryLater("an import was not completed")
        await self.scratch.remove_contact()
        self.scratch.note_imports()
        rows = [{"email": self.scratch.email, "subscribe": subscribe}]
        body = {"contacts": rows, "exclude_automations": exclude}
        parse_rest(await self.calls.call("POST", "/import/bulk_import", body), dict[str, Any])
        is_done = await self.scratch.imports_done()
        contact = await self.scratch.find_contact()
        if not is_done or contact is None:
            raise TryLater("an import was not completed")
        answer = await self.calls.call("GET", f"/contacts/{contact}/contactAutomations")
        return len(parse_rest(answer, list[Any], key="contactAutomations"))


def _order(email: Email, connection: int) -> dict[str, object]:
    return {
        "legacyConnectionId": connection,
        "storeOrderId": ORDER_ID,
        "orderNumber": ORDER_ID,
        "storeCustomerId": "1",
        "email": email,
        "storeCreatedDate": "2020-01-01T12:00:00Z",
        "normalizedStatus": "COMPLETED",
        "currency": "usd",
        "finalAmount": 1,
    }
